"""The parts of the speed recipes, each against a reference or a property."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from hypothesis import given
from hypothesis import strategies as st
from stopped import Stop, same_run
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_cli import load_model, train
from cifar_cli.config import Config, ModelConfig, load_config, recipe_names
from cifar_cli.config.schema import (
    CustomResnetConfig,
    LinearConfig,
    MuonConfig,
    SpeedResnetConfig,
)
from cifar_cli.data.loader import Normalise
from cifar_cli.data.sources.shapes import load_shapes
from cifar_cli.data.splits import choose_splits
from cifar_cli.errors import ConfigError, Interrupted
from cifar_cli.models import build_model
from cifar_cli.models.custom_resnet import CustomResnet
from cifar_cli.models.speed_resnet import EIGENVALUE_FLOOR, SpeedResnet
from cifar_cli.rundir import RunDir
from cifar_cli.training.muon import orthogonalise
from cifar_cli.training.optim import apply_settings, build_optimizer
from cifar_cli.training.schedule import settings_at
from cifar_cli.training.step import at_resolution

MEAN = (0.491, 0.482, 0.447)
SMALL = SpeedResnetConfig(widths=(8, 12, 16))


def speed_config(**changes: object) -> Config:
    small = {
        "model__name": "speed_resnet",
        "model__widths": [8, 8, 8],
        "optim__name": "muon",
        "optim__max_lr": 0.12,
        "schedule__name": "linear",
        "augment__crop_p": 0.0,
        "augment__translate": 2,
        "augment__flip": "alternating",
        "train__label_smoothing": 0.1,
        "train__resolutions": [[0.3, 20], [0.6, 24]],
    }
    return tiny_config(**{**small, **changes})


@pytest.mark.parametrize("shape", [(32, 216), (96, 27), (10, 10), (1, 9)])
def test_orthogonalising_keeps_singular_vectors_and_brings_values_near_one(
    shape: tuple[int, int],
) -> None:
    matrix = torch.randn(shape, dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    # The same polynomial, on the singular values alone.
    values = s / s.norm()
    for _ in range(3):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    torch.testing.assert_close(orthogonalise(matrix), u @ torch.diag(values) @ v, atol=1e-6, rtol=0)
    wide = orthogonalise(torch.randn(16, 400))
    assert (torch.linalg.svdvals(wide) - 1).abs().max() < 0.4


def test_everything_but_filters_follows_torchs_sgd_with_nesterov_momentum() -> None:
    config = MuonConfig(bias_lr=0.05, head_lr=0.3, weight_decay=0.01)
    ours, theirs = (SpeedResnet(10, (8, 8, 8)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, config, 0.1)
    head, biases = (
        [theirs.head.weight],
        [p for p in theirs.parameters() if p.requires_grad and p.ndim == 1],
    )
    groups = [
        {"params": parameters, "lr": lr, "weight_decay": 0.01 / lr}
        for parameters, lr in ((head, 0.3), (biases, 0.05))
    ]
    sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
    for step in range(4):
        apply_settings(optimizer, settings_at(step, 4, 0.1, LinearConfig()))
        for group, lr in zip(sgd.param_groups, (0.3, 0.05), strict=True):
            group["lr"] = lr * (1 - step / 4)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            if a.requires_grad:
                a.grad = torch.randn_like(a)
                b.grad = a.grad.clone()
        optimizer.step()
        sgd.step()
    torch.testing.assert_close(ours.head.weight, theirs.head.weight)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        if a.ndim == 1:
            torch.testing.assert_close(a, b)


def test_a_filter_is_renormalised_and_moved_by_an_orthogonal_matrix() -> None:
    model = SpeedResnet(10, (8, 8, 8))
    optimizer = build_optimizer(model, MuonConfig(momentum=0.5), 0.1)
    weight = model.groups[1][0][0].weight
    before = weight.detach().clone()
    for p in model.parameters():
        p.grad = torch.randn_like(p) if p.requires_grad else None
    gradient = weight.grad.clone()
    optimizer.step()
    start = before * math.sqrt(8) / before.norm()
    # In the first step momentum makes the gradient 1.5 times as long, which changes no direction.
    moved = orthogonalise(gradient.reshape(8, -1)).view_as(before)
    torch.testing.assert_close(weight.detach(), start - 0.1 * moved, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_filters_gather_a_momentum_of_their_own_and_do_not_decay(shape: str) -> None:
    speed, course = SpeedResnet(10, (8, 8, 8)), CustomResnet(width=28)
    model = speed if shape == "wide" else course
    weight = (speed.groups[1][0] if shape == "wide" else course.prep)[0].weight
    settings = MuonConfig(momentum=0.6, sgd_momentum=0.9, weight_decay=1.0)
    optimizer = build_optimizer(model, settings, 0.1)
    expected, momentum = weight.detach().clone(), torch.zeros_like(weight)
    for _ in range(3):
        for p in model.parameters():
            p.grad = torch.randn_like(p) if p.requires_grad else None
        momentum = 0.6 * momentum + weight.grad
        step = orthogonalise((weight.grad + 0.6 * momentum).flatten(1)).view_as(weight)
        expected = expected * math.sqrt(len(weight)) / expected.norm() - 0.1 * step
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected, atol=1e-4, rtol=1e-4)


def test_muon_leaves_batch_norms_scales_as_they_start() -> None:
    model = CustomResnet(width=4)
    optimizer = build_optimizer(model, MuonConfig(), 0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    scales = {f"{name}.weight" for name, m in model.named_modules() if "BatchNorm" in str(type(m))}
    same = {name for name, p in model.named_parameters() if torch.equal(before[name], p)}
    assert len(scales) == 8
    assert same == scales


def test_whitened_images_are_uncorrelated_with_unit_variance() -> None:
    images = load_shapes().train.images[:500].permute(0, 3, 1, 2) / 255.0 - 0.5
    model = build_model(SMALL, 10, 32, lambda: images)
    assert isinstance(model, SpeedResnet)
    out = F.conv2d(images, model.stem.weight[:12]).permute(1, 0, 2, 3).flatten(1).double()
    moments = out @ out.T / out.shape[1]
    eigenvalues = torch.linalg.eigvalsh(
        (p := F.unfold(images, 2).transpose(1, 2).flatten(0, 1).double()).T @ p / len(p)
    ).flip(0)
    expected = torch.diag(eigenvalues / (eigenvalues + EIGENVALUE_FLOOR))
    torch.testing.assert_close(moments, expected, atol=1e-3, rtol=0)
    assert torch.equal(model.stem.weight[:12], -model.stem.weight[12:])
    assert not model.stem.weight.requires_grad


def test_a_run_is_whitened_on_the_images_that_it_trains_on(in_tmp: Path) -> None:
    config = speed_config(train__epochs=1)
    train(config, "a")
    images = choose_splits(load_shapes(), config.data, config.seed).train.images
    expected = SpeedResnet()
    expected.whiten(Normalise(config.data.mean, config.data.std)(images))
    found = load_model("a").network
    assert isinstance(found, SpeedResnet)
    torch.testing.assert_close(found.stem.weight, expected.stem.weight)


@given(st.integers(16, 40), st.integers(1, 3), st.integers(1, 4))
def test_the_speed_network_takes_any_batch_and_size(side: int, convolutions: int, n: int) -> None:
    model = SpeedResnet(7, (4, 6, 8), convolutions).eval()
    assert model(torch.randn(n, 3, side, side)).shape == (n, 7)


def test_the_first_filters_of_each_convolution_hand_their_input_on() -> None:
    convolution = SpeedResnet(10, (8, 12, 16)).groups[1][0][0]
    x = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(convolution(x)[:, :8], x)


def test_logits_are_the_heads_of_the_maps_maxima_over_the_width() -> None:
    model = build_model(SMALL, 10, 32).eval()
    calls: list[tuple[Tensor, Tensor]] = []
    model.groups.register_forward_hook(lambda _, x, out: calls.append((x[0], out)))
    images = torch.randn(3, 3, 21, 21)
    logits = model(images)
    ((stem, maps),) = calls
    torch.testing.assert_close(stem, F.silu(F.conv2d(images, model.stem.weight)))
    torch.testing.assert_close(logits, maps.amax((2, 3)) @ model.head.weight.T / 16)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("convolutions", [1, 2, 3])
def test_a_group_is_its_blocks_in_turn_with_a_shortcut_where_it_is_residual(
    convolutions: int, residual: bool
) -> None:
    settings = SMALL.model_copy(update={"convolutions": convolutions, "residual": residual})
    group = build_model(settings, 10, 32).eval().groups[0]
    x = torch.randn(2, 24, 9, 8)
    started = expected = group[0](x)
    for n, block in enumerate(list(group)[1:], start=1):
        torch.nn.init.normal_(block[0].weight)
        is_last = residual and n == convolutions - 1
        normed = block[1](F.conv2d(expected, block[0].weight, padding=1))
        expected = F.silu(normed + started if is_last else normed)
    torch.testing.assert_close(group(x), expected)


def test_the_linear_schedule_falls_straight_to_nothing() -> None:
    config = LinearConfig()
    assert [settings_at(step, 4, 0.2, config).lr for step in range(4)] == pytest.approx(
        [0.2, 0.15, 0.1, 0.05]
    )


def test_images_grow_by_stages() -> None:
    images = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    stages = ((0.3, 20), (0.55, 24))
    sides = [at_resolution(images, share, stages).shape[-1] for share in (0, 0.29, 0.3, 0.54, 0.55)]
    assert sides == [20, 20, 24, 24, 32]
    small = at_resolution(images, 0.0, stages)
    assert small.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        small, F.interpolate(images, size=(20, 20), mode="bilinear", align_corners=False)
    )


@pytest.mark.parametrize("settings", [SMALL, CustomResnetConfig(width=4)], ids=lambda s: s.name)
def test_images_are_resized_for_evaluation_alone(settings: ModelConfig) -> None:
    model = build_model(settings, 10, 32, eval_size=28)
    images = torch.randn(4, 3, 32, 32)
    small = F.interpolate(images, size=(28, 28), mode="bilinear", align_corners=False)
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    shapes: list[torch.Size] = []
    first.register_forward_hook(lambda *call: shapes.append(call[1][0].shape[2:]))
    model.train()(images)
    assert torch.equal(model.eval()(images), model(small))
    assert shapes == [(32, 32), (28, 28), (28, 28)]


def test_a_speed_run_that_was_stopped_equals_one_that_was_not(in_tmp: Path) -> None:
    config = speed_config(train__epochs=3)
    whole = train(config, "whole")
    with pytest.raises(Interrupted):
        train(config, "a", observer=Stop(2, 2))
    train(config, "a", resume=True)
    assert same_run(RunDir(whole.run_dir), RunDir(Path("a")))


def test_it_learns(in_tmp: Path) -> None:
    config = speed_config(
        train__epochs=20, model__widths=[16, 24, 32], data__limit_train=1000, data__limit_val=200
    )
    assert train(config, "a").val_accuracy > 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {"augment.form": "albumentations", "augment.translate": 2},
        {"augment.form": "albumentations", "augment.flip": "alternating"},
        {"train.resolutions": [[0.5, 20], [0.3, 24]]},
        {"train.resolutions": [[0.5, 4]]},
        {"train.resolutions": [[0.5, 15]]},
        {"model.widths": [8, 8]},
        {"optim.name": "lion"},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        load_config("fast90", env={}, settings=settings)


def test_a_speed_recipe_needs_nothing_but_torch(in_tmp: Path) -> None:
    program = (
        "import sys, cifar_cli.cli.app as app;"
        "code = app.run(sys.argv[1:]);"
        "names = {'albumentations', 'torch_lr_finder', 'torchinfo', 'torchvision', 'matplotlib'};"
        "sys.exit(code or len(names & set(sys.modules)))"
    )
    flags = (
        "train --recipe fast90 --data shapes --limit-train 100 --limit-val 20 --epochs 1 --quiet"
    )
    arguments = [*flags.split(), "--set", "model.widths=[4,4,4]", "--batch-size", "50"]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)


def test_the_documents_have_each_recipe_and_its_networks_size() -> None:
    root = Path(__file__).parents[2]
    text = (root / "doc" / "recipes.md").read_text(encoding="utf-8")
    for document in (text, (root / "README.md").read_text(encoding="utf-8")):
        assert [name for name in recipe_names() if f"| `{name}` |" not in document] == []
    told = re.findall(r"^\| `(\S+)` \|[^|]*?([\d,]+) parameters", text, re.MULTILINE)
    assert {name for name, _ in told} >= set(recipe_names()) - {"baseline-fast"}
    for name, count in told:
        model = build_model(load_config(name, env={}).model, 10, 32)
        assert sum(p.numel() for p in model.parameters()) == int(count.replace(",", ""))
