"""The LR range test: a curve that means something, and surroundings left alone."""

from __future__ import annotations

import itertools
import os
import signal
from typing import ClassVar

import pytest
import torch
from conftest import on_cpu, random_images, spoiled, tiny_config
from torch import Tensor, nn

from cifar_cli.data.splits import Splits
from cifar_cli.errors import ConfigError, DivergedError
from cifar_cli.training.lr_curve import LrCurve
from cifar_cli.training.lr_search import lr_range_test
from cifar_cli.training.optim import build_optimizer

CPU = torch.device("cpu")
QUICK = {"train__batch_size": 4}  # as the test takes 200 steps at least
IMAGES = random_images(100, classes=4)
SPLITS = Splits(IMAGES, IMAGES, tuple("abcd"), val_from="test")


def curve(num_iter: int = 40, **options: object) -> LrCurve:
    config = tiny_config(**QUICK)
    return lr_range_test(config, SPLITS, on_cpu(config), num_iter=num_iter, **options)  # type: ignore[arg-type]


def test_rates_rise_from_start_to_end_evenly() -> None:
    exponential = curve(num_iter=30, start_lr=1e-5, end_lr=1e-2).lrs
    assert exponential[0] == pytest.approx(1e-5, rel=0.3)
    assert exponential[-1] == pytest.approx(1e-2, rel=0.3)
    ratios = [b / a for a, b in itertools.pairwise(exponential)]
    assert max(ratios[1:]) == pytest.approx(min(ratios[1:]), rel=1e-6)
    linear = curve(num_iter=30, start_lr=1e-5, end_lr=1e-2, step_mode="linear").lrs
    steps = [b - a for a, b in itertools.pairwise(linear)]
    assert max(steps[1:]) == pytest.approx(min(steps[1:]), rel=1e-6)


def test_it_stops_early_where_the_loss_explodes() -> None:
    found = curve(num_iter=100, start_lr=1e-4, end_lr=100)
    assert found.stopped_early
    assert len(found.lrs) < 100
    assert 1e-4 <= found.suggestion <= 100


def test_the_rng_state_does_not_change() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    curve(start_lr=1e-4, end_lr=1.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_interruption_leaves_the_rng_state_too() -> None:
    before = torch.get_rng_state()

    def interrupt(what: str, done: int, total: int | None) -> None:
        if done == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        curve(on_step=interrupt)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_repeats_itself_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert curve() == curve()
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


class Watched(nn.Module):
    """Notes whether each product is of the weights as they are, in bf16."""

    fresh: ClassVar[list[bool]] = []

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 32 * 32, 4, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1).bfloat16()
        out: Tensor = self.linear(x)
        expected = nn.functional.linear(x, self.linear.weight.detach().bfloat16())
        self.fresh.append(torch.equal(out, expected))
        return out


def test_in_bf16_each_step_takes_the_weights_of_the_step_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config(runtime__precision="bf16")
    monkeypatch.setattr("cifar_cli.training.state.build_model", lambda *_: Watched())
    lr_range_test(config, SPLITS, on_cpu(config), num_iter=20, start_lr=1e-3, end_lr=1e-2)
    assert len(Watched.fresh) == 200
    assert all(Watched.fresh)


def test_muons_rates_rise_in_their_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        seen.append([group["lr"] for group in optimizer.param_groups])

    def watched(*arguments: object) -> torch.optim.Optimizer:
        optimizer = build_optimizer(*arguments)  # type: ignore[arg-type]
        optimizer.register_step_post_hook(note)
        return optimizer

    monkeypatch.setattr("cifar_cli.training.state.build_optimizer", watched)
    config = tiny_config(
        optim__name="muon", optim__max_lr=0.1, optim__head_lr=20, optim__bias_lr=3, **QUICK
    )
    found = lr_range_test(config, SPLITS, on_cpu(config), num_iter=20, start_lr=1e-6, end_lr=1e-4)
    assert len(seen) == 200
    for filters, head, biases in seen:
        assert head == pytest.approx(200 * filters)
        assert biases == pytest.approx(30 * filters)
    assert [filters for filters, _, _ in seen[:20]] == pytest.approx(list(found.lrs), rel=1e-6)


def test_progress_counts_the_steps() -> None:
    seen: list[tuple[int, int | None]] = []
    curve(num_iter=20, end_lr=1e-3, on_step=lambda what, done, total: seen.append((done, total)))
    assert seen == [(step, 200) for step in range(200)], "ten sweeps of 20 steps"


def test_a_range_that_makes_no_curve_is_refused() -> None:
    with pytest.raises(ConfigError, match="--start-lr"):
        curve(start_lr=1.0, end_lr=0.1)
    with pytest.raises(ConfigError, match="--num-iter"):
        curve(num_iter=5)


def test_a_loss_that_is_no_number_from_the_start_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cifar_cli.training.state.build_model", spoiled)
    with pytest.raises(DivergedError, match="after 0 steps"):
        curve()
