"""The network: the course project's layers, counts and shapes."""

from __future__ import annotations

import pytest
import torch
from conftest import random_images
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cifar_cli.config.schema import CustomResnetConfig
from cifar_cli.errors import ConfigError
from cifar_cli.models import build_model
from cifar_cli.models.custom_resnet import ConvBlock, CustomResnet, ResidualPair
from cifar_cli.models.summary import summarise


def test_it_has_the_course_projects_6573120_parameters() -> None:
    model = CustomResnet()
    assert sum(p.numel() for p in model.parameters()) == 6_573_120
    convolutions = [
        (m.in_channels, m.out_channels, m.kernel_size, m.padding_mode, m.bias)
        for m in model.modules()
        if isinstance(m, nn.Conv2d)
    ]
    widths = [(3, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 512)]
    widths += [(512, 512), (512, 512)]
    assert convolutions == [(i, o, (3, 3), "reflect", None) for i, o in widths]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 8
    dropouts = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert dropouts == [0.02, 0.05, 0.05, 0.05, 0.02, 0.05, 0.05, 0.05]


def test_a_block_convolves_pools_normalises_then_clips() -> None:
    block = ConvBlock(2, 3, pool=True).eval()
    x = torch.randn(4, 2, 6, 6)
    convolution = block[0]
    assert isinstance(convolution, nn.Conv2d)
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    expected = nn.functional.conv2d(padded, convolution.weight)
    expected = nn.functional.max_pool2d(expected, 2) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(block(x), expected.relu())


def test_a_residual_pair_adds_its_input() -> None:
    pair = ResidualPair(4, 0.0).eval()
    for parameter in pair.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(pair(x), x)


@pytest.mark.parametrize(
    ("batch", "classes", "width", "size"), [(1, 10, 4, 32), (3, 2, 1, 16), (2, 100, 8, 48)]
)
def test_any_batch_class_count_width_and_size(
    batch: int, classes: int, width: int, size: int
) -> None:
    model = build_model(CustomResnetConfig(width=width), classes, size).eval()
    images = torch.randn(batch, 3, size, size)
    logits = model(images)
    assert logits.shape == (batch, classes)
    torch.testing.assert_close(model(images[:1]), logits[:1], atol=1e-4, rtol=1e-4)


def test_a_batch_of_one_gives_what_it_gives_in_company() -> None:
    model = build_model(CustomResnetConfig(width=4), 10, 32).eval()
    images = random_images(5).images.permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(model(images)[2:3], model(images[2:3]))


def test_logits_come_out_not_probabilities() -> None:
    model = build_model(CustomResnetConfig(width=4), 10, 32).eval()
    logits = model(torch.randn(4, 3, 32, 32))
    assert (logits.exp().sum(1) - 1).abs().min() > 1e-3
    assert logits.min() < 0


def test_memory_layout_changes_nothing_but_speed() -> None:
    model = build_model(CustomResnetConfig(width=8), 10, 32).eval()
    images = torch.randn(4, 3, 32, 32)
    plain = model(images)
    layout = torch.channels_last
    other = model.to(memory_format=layout)(images.contiguous(memory_format=layout))
    torch.testing.assert_close(plain, other, atol=1e-4, rtol=1e-4)


def test_a_size_that_cannot_be_halved_three_times_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 8"):
        build_model(CustomResnetConfig(), 10, 36)


# Type, kernel, output, parameters and mult-adds of the course project's printed table.
@given(st.integers(16, 40))
def test_images_of_any_side_are_pooled_as_a_whole(side: int) -> None:
    model, images = CustomResnet(width=2).eval(), torch.randn(3, 3, side, side)
    maps: list[torch.Tensor] = []
    model.layer3.register_forward_hook(lambda *call: maps.append(call[2]))
    logits = model(images)
    torch.testing.assert_close(logits, maps[0].amax((2, 3)) @ model.classifier.weight.T)


SEED_ROWS = [
    ("Conv2d", [3, 3], [1, 64, 32, 32], 1_728, 1_769_472),
    ("BatchNorm2d", None, [1, 64, 32, 32], 128, 128),
    ("ReLU", None, [1, 64, 32, 32], None, None),
    ("Dropout", None, [1, 64, 32, 32], None, None),
    ("Conv2d", [3, 3], [1, 128, 32, 32], 73_728, 75_497_472),
    ("MaxPool2d", [2], [1, 128, 16, 16], None, None),
    ("BatchNorm2d", None, [1, 128, 16, 16], 256, 256),
]


def test_the_layer_table_counts_as_the_course_projects_does() -> None:
    summary = summarise(CustomResnet(), 32, depth=4)
    assert summary.total_params == summary.trainable_params == 6_573_120
    assert round(summary.total_mult_adds / 1e6, 2) == 379.31
    assert round(summary.performed_mult_adds / 1e6, 2) == 379.27
    leaves = [row for row in summary.rows if row.name.split(" ")[0] in {n for n, *_ in SEED_ROWS}]
    for row, (name, kernel, output, params, mult_adds) in zip(leaves, SEED_ROWS, strict=False):
        assert row.name.startswith(name)
        assert (row.output, row.params, row.mult_adds) == (output, params, mult_adds)
        assert row.kernel == kernel or name == "MaxPool2d"
    (linear,) = [row for row in summary.rows if row.name.startswith("Linear")]
    assert (linear.params, linear.mult_adds) == (5_120, 51_200)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 10])
def test_every_depth_adds_up_to_the_same_totals(depth: int) -> None:
    summary = summarise(CustomResnet(width=4), 32, depth)
    shown = [row for row in summary.rows if row.params is not None]
    assert sum(row.params or 0 for row in shown) == summary.total_params
    assert sum(row.mult_adds or 0 for row in shown) == summary.total_mult_adds
    assert max(row.depth for row in summary.rows) <= depth


def test_counting_leaves_model_and_generator_as_they_were() -> None:
    model = CustomResnet(width=4).train()
    weights = {name: t.clone() for name, t in model.state_dict().items()}
    before = torch.get_rng_state()
    summarise(model, 32)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(torch.equal(weights[name], t) for name, t in model.state_dict().items())
