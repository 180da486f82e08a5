"""Learning rates read off curves that are made up, and one that is trained with."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_cli import load_config, train
from cifar_cli.errors import DivergedError
from cifar_cli.training.lr_curve import BAND, LrCurve, other_rules, read_curve


def made_up(
    num_iter: int, valley: float = -3.0, noise: float = 0.0, end: float = 1.0, seed: int = 0
) -> tuple[list[float], list[float]]:
    """A loss that is flat, falls a decade before `valley`, and explodes two decades after it."""
    x = np.linspace(-7, end, num_iter)
    fall = 1 / (1 + np.exp(-(x - valley + 1) * 6))
    rise = np.exp(np.clip((x - valley - 1) * 6, -50, 9))
    rng = np.random.default_rng(seed)
    losses = 3 - fall + rise + noise * rng.standard_normal(num_iter)
    return list(map(float, 10**x)), list(map(float, losses))


def read(num_iter: int = 200, **options: float) -> LrCurve:
    lrs, losses = made_up(num_iter, **options)  # type: ignore[arg-type]
    return read_curve(lrs, [losses], num_iter)


@given(st.floats(-4.5, -1.5), st.integers(50, 400), st.integers(0, 99))
def test_the_suggestion_follows_the_valley_whatever_the_steps(
    valley: float, num_iter: int, seed: int
) -> None:
    found = read(num_iter, valley=valley, noise=0.05, seed=seed)
    assert abs(math.log10(found.suggestion) - valley) < 0.5
    assert found.band == (found.suggestion / BAND, found.suggestion * BAND)
    assert found.suggestions["middle"] == found.suggestion


def test_several_noisy_sweeps_are_as_good_as_one_without_noise() -> None:
    lrs, _ = made_up(50)
    sweeps = [made_up(50, noise=0.3, seed=seed)[1] for seed in range(8)]
    clean = read(50).suggestion
    assert abs(math.log10(read_curve(lrs, sweeps, 50).suggestion / clean)) < 0.15


def test_a_sweep_that_ended_early_counts_as_exploded_there() -> None:
    lrs, losses = made_up(200)
    whole = read_curve(lrs, [losses], 200)
    short = read_curve(lrs, [losses[:160], losses], 200)
    assert short.suggestion == pytest.approx(whole.suggestion, rel=0.2)
    assert not short.stopped_early
    assert read_curve(lrs[:160], [losses[:160]], 200).stopped_early


def test_how_high_the_explosion_goes_makes_no_difference() -> None:
    lrs, losses = made_up(200)
    higher = [loss if loss < 5 else 1e6 for loss in losses]
    one, other = (read_curve(lrs, [values], 200) for values in (losses, higher))
    assert one.suggestion == other.suggestion


def test_a_loss_that_never_falls_suggests_nothing() -> None:
    lrs, _ = made_up(100)
    with pytest.raises(DivergedError, match="did not fall"):
        read_curve(lrs, [[2.0 + lr for lr in lrs]], 100)


def test_what_makes_a_suggestion_doubtful_is_said() -> None:
    assert any("50 steps are few" in w for w in read(50).warnings)
    assert not any("steps are few" in w for w in read(200).warnings)
    assert any("still fell at the end" in w for w in read(200, end=-3.5).warnings)
    lrs, losses = made_up(200)
    losses[:30] = [9.0 - 0.1 * i for i in range(30)]  # the steepest fall is at the very start
    (warning,) = [w for w in read_curve(lrs, [losses], 200).warnings if "Other rules" in w]
    assert "more than 10 times" in warning


def test_other_rules_by_hand() -> None:
    lrs = tuple(10.0 ** (i / 10) for i in range(40))
    # Flat, then falling from step 15 to 25 and fastest at 20, then rising.
    losses = [2.0] * 15
    for drop in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.2, 0.1, 0.05, 0.02):
        losses.append(losses[-1] - drop)
    losses += [losses[-1] + 0.1 * i for i in range(1, 16)]
    found = other_rules(lrs, losses)
    assert found["steepest"] in lrs[19:22]
    assert found["minimum/10"] == pytest.approx(lrs[24] / 10)
    assert lrs[14] < found["valley"] < lrs[24]


def test_a_fall_after_the_explosion_is_no_suggestion() -> None:
    lrs = tuple(10.0 ** (i / 10) for i in range(40))
    losses = [2.0 - 0.01 * i for i in range(20)] + [2.0, 9.0, 3.0] + [4.0] * 17
    assert max(other_rules(lrs, losses).values()) <= lrs[19]


def test_a_loss_that_is_least_within_the_points_left_out_is_the_steepest_there_is() -> None:
    lrs = tuple(10.0 ** (i / 10) for i in range(20))
    found = other_rules(lrs, [abs(i - 5.0) for i in range(20)])
    assert found["steepest"] == lrs[5]
    assert found["minimum/10"] == lrs[5] / 10


def test_the_steepest_rule_is_torch_lr_finders_own_on_a_falling_curve() -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_lr_finder import LRFinder
    lrs, losses = made_up(120, end=-3.5)
    falling = losses.index(min(losses)) + 1
    model = torch.nn.Linear(1, 1)
    finder = LRFinder(model, torch.optim.Adam(model.parameters()), torch.nn.CrossEntropyLoss())
    # Up to the least loss; torch-lr-finder leaves five points at the end out.
    finder.history = {"lr": lrs[:falling] + [1.0] * 5, "loss": losses[:falling] + [0.0] * 5}
    _, theirs = finder.plot(suggest_lr=True)
    plt.close("all")
    assert other_rules(lrs, losses)["steepest"] == theirs


def test_a_training_with_the_suggestion_learns(in_tmp: Path) -> None:
    small = {"train.epochs": 6, "model.width": 8, "data.limit_val": 500, "optim.max_lr": "auto"}
    found = train(load_config("demo", env={}, settings=small), "auto")
    assert found.val_accuracy > 0.4
