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
from cifar_cli.models import build_model
from cifar_cli.training.lr_search import LrCurve, lr_range_test, suggest
from cifar_cli.training.optim import build_optimizer

CPU = torch.device("cpu")
IMAGES = random_images(100, classes=4)
SPLITS = Splits(IMAGES, IMAGES, tuple("abcd"), val_from="test")


def curve(num_iter: int = 40, **options: object) -> LrCurve:
    config = tiny_config()
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
    assert len(Watched.fresh) == 20
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
    config = tiny_config(optim__name="muon", optim__max_lr=0.1, optim__head_lr=20, optim__bias_lr=3)
    found = lr_range_test(config, SPLITS, on_cpu(config), num_iter=20, start_lr=1e-6, end_lr=1e-4)
    assert len(seen) == 20
    for filters, head, biases in seen:
        assert head == pytest.approx(200 * filters)
        assert biases == pytest.approx(30 * filters)
    assert [filters for filters, _, _ in seen] == pytest.approx(list(found.lrs), rel=1e-6)


def test_progress_counts_the_steps() -> None:
    seen: list[tuple[int, int | None]] = []
    curve(num_iter=20, end_lr=1e-3, on_step=lambda what, done, total: seen.append((done, total)))
    assert seen == [(step, 20) for step in range(20)]


def test_suggestions_by_hand() -> None:
    lrs = tuple(10.0 ** (i / 10) for i in range(40))
    # Flat, then falling from step 15 to 25 and fastest at 20, then rising.
    losses = [2.0] * 15
    for drop in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.2, 0.1, 0.05, 0.02):
        losses.append(losses[-1] - drop)
    losses += [losses[-1] + 0.1 * i for i in range(1, 16)]
    found = suggest(lrs, tuple(losses))
    assert found["steepest"] in lrs[19:22]
    assert found["minimum/10"] == pytest.approx(lrs[24] / 10)
    assert lrs[14] < found["valley"] < lrs[24]


def test_a_fall_after_the_explosion_is_no_suggestion() -> None:
    lrs = tuple(10.0 ** (i / 10) for i in range(40))
    losses = [2.0 - 0.01 * i for i in range(20)] + [2.0, 9.0, 3.0] + [4.0] * 17
    found = suggest(lrs, tuple(losses))
    assert max(found.values()) <= lrs[19]


def test_a_loss_that_is_least_within_the_points_left_out_is_the_steepest_there_is() -> None:
    lrs = tuple(10.0 ** (i / 10) for i in range(20))
    found = suggest(lrs, tuple(abs(i - 5.0) for i in range(20)))
    assert found["steepest"] == lrs[5]
    assert found["minimum/10"] == lrs[5] / 10


def test_a_loss_that_only_rises_gives_no_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    rising = ([1e-3 * 1.1**i for i in range(30)], [1.0 + i for i in range(30)])
    monkeypatch.setattr("cifar_cli.training.lr_search._range_test", lambda *_: rising)
    with pytest.raises(DivergedError, match="never fell"):
        curve()


def test_the_steepest_suggestion_is_torch_lr_finders_own_on_a_falling_curve() -> None:
    import warnings

    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_lr_finder import LRFinder
    found = curve(num_iter=60, start_lr=1e-4)
    model = build_model(tiny_config().model, 4, 32)
    finder = LRFinder(model, torch.optim.Adam(model.parameters()), torch.nn.CrossEntropyLoss())
    # Up to the least loss; torch-lr-finder leaves five points at the end out.
    falling = found.losses.index(min(found.losses)) + 1
    assert falling > 20
    finder.history = {
        "lr": list(found.lrs[:falling]) + [1.0] * 5,
        "loss": list(found.losses[:falling]) + [0.0] * 5,
    }
    _, theirs = finder.plot(suggest_lr=True)
    plt.close("all")
    assert found.suggestions["steepest"] == theirs


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
