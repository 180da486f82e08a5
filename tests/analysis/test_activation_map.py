"""Grad-CAM against maps worked out by hand, and on trained networks."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from torch import nn

from cifar_cli import load_model, train
from cifar_cli.analysis.activation_map import activation_maps
from cifar_cli.analysis.trained import Trained
from cifar_cli.training.runtime import Runtime

SPEED = {
    "model__name": "speed_resnet", "model__widths": [8, 8, 8], "model__width": None,
    "optim__name": "muon", "schedule__name": "linear", "train__batch_size": 32,
}  # fmt: skip


def trained_with(network: nn.Module) -> Trained:
    config = tiny_config(data__mean=[0.0] * 3, data__std=[1 / 255] * 3)
    return Trained(network, ("red", "green", "blue"), config, Runtime.start(config), Path("net.pt"))


def test_a_map_is_the_channel_that_speaks_for_the_class_where_it_does() -> None:
    """Channel k of the layer is colour k, whose mean alone is the logit of class k."""
    plain = nn.Conv2d(3, 3, 1, bias=False)
    plain.weight.data = torch.eye(3)[:, :, None, None]
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(OrderedDict(colours=plain, pool=pool))
    images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    images[0, 3, 5, 1], images[0, 20, 9, 1], images[1, 8, 8, 2] = 200, 100, 50
    green, red = activation_maps(trained_with(network), images, [1, 0])
    assert green[3, 5] == 1
    assert green[20, 9] == pytest.approx(0.5)
    assert green.count_nonzero() == 2
    assert red.count_nonzero() == 0  # nothing in the second image is red


@pytest.mark.parametrize("network", ["custom_resnet", "speed_resnet"])
def test_maps_of_many_images_are_those_of_each_alone(network: str, tmp_path: Path) -> None:
    settings = {"custom_resnet": {}, "speed_resnet": SPEED}[network]
    config = tiny_config(train__epochs=1, **settings)
    model = load_model(train(config, tmp_path / "run").run_dir)
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    before = [p.clone() for p in model.network.parameters()]
    maps = activation_maps(model, pixels, [0, 1, 2])
    assert maps.shape == (3, 32, 32)
    assert maps.min() >= 0
    assert set(maps.amax(dim=(1, 2)).tolist()) <= {0.0, 1.0}
    for n in range(3):
        assert torch.allclose(activation_maps(model, pixels[n : n + 1], [n])[0], maps[n], atol=1e-4)
    assert all(p.grad is None for p in model.network.parameters())
    assert all(map(torch.equal, before, model.network.parameters()))
