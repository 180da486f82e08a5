"""What an LR range test measured, and the learning rates that may be read off it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cifar_cli.errors import DivergedError

# torch-lr-finder's own defaults for its suggestion.
SKIP_START, SKIP_END = 10, 5
SMOOTHING = 0.05
WIDTH = 0.7
"""Standard deviation of the smoothing, in decades of the learning rate."""
VALLEY = 0.2
"""The valley is where the smoothed loss is within this fraction of its fall from its minimum."""
SHOWN_WIDTH = 0.15
"""Standard deviation of the smoothing in the picture."""
BAND = 2
"""The band reaches from the suggestion divided by this to the suggestion times this."""
SHIFT, SHIFT_PER_DOUBLING = 0.05, 0.1
"""Decades from the middle of the valley to the suggestion: at the usual number of steps per decade
of the rate, and for each halving of it. A network that has had more steps bears a higher rate."""
USUAL_STEPS = 200
USUAL_PER_DECADE = 25
CEILING = 1.5
"""Losses count as this many times the first ones at most: an explosion says no more than that."""
SMALL_FALL = 0.02
SPREAD = 10
Array = NDArray[np.float64]


@dataclass(frozen=True)
class LrCurve:
    """Loss over the learning rate, and what may be read off it."""

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    """Of one batch each, the mean over all sweeps."""
    smoothed: tuple[float, ...]
    stopped_early: bool
    suggestion: float
    """Peak learning rate to train with."""
    band: tuple[float, float]
    """Rates that are about as good, as far as was measured (doc/learning_rate.md)."""
    suggestions: dict[str, float]
    """By rule: `middle`, the suggestion; `steepest`, `valley`, `minimum/10` for comparison."""
    warnings: tuple[str, ...]
    """Why the suggestion may be worse than usual."""


def read_curve(lrs: Sequence[float], sweeps: Sequence[Sequence[float]], num_iter: int) -> LrCurve:
    """Read learning rates off the losses of one or more sweeps.

    The suggestion lies above the middle of the valley, in the logarithm of the rate. How far was
    measured: see doc/learning_rate.md.

    Args:
        lrs: Of all steps, ascending.
        sweeps: Finite losses of each sweep; one that was stopped early has fewer.
        num_iter: Steps of a whole sweep.

    Raises:
        DivergedError: The loss never fell.
    """
    count = max(map(len, sweeps))
    measured = np.log10(np.asarray(lrs[:count]))
    # Where all sweeps had ended early, the loss counts as exploded up to the end of the range.
    spacing = measured[-1] - measured[-2]
    x = np.append(measured, measured[-1] + spacing * np.arange(1, num_iter - count + 1))
    per_decade = int((x > x[-1] - 1).sum())
    beginning = max(5, min(per_decade, num_iter // 8))
    first = np.median([loss for sweep in sweeps for loss in sweep[:beginning]])
    ceiling = CEILING * float(first)
    losses = np.mean([_padded(sweep, num_iter, ceiling) for sweep in sweeps], axis=0)
    wide = _smooth(x, losses, WIDTH)
    losses = losses[:count]
    start = float(np.median(losses[:beginning]))
    fall = start - float(wide.min())
    if fall <= 0:
        raise DivergedError(
            "The loss did not fall; nothing can be suggested.",
            "Widen the range (--start-lr, --end-lr) or raise --num-iter.",
        )
    shift = SHIFT + SHIFT_PER_DOUBLING * math.log2(USUAL_PER_DECADE / per_decade)
    middle = sum(_valley(x, wide, start)) / 2 + shift
    suggestion = float(10 ** np.clip(middle, measured[0], measured[-1]))
    others = other_rules(lrs, _exponential_mean(sweeps[0]))
    stopped_early = count < num_iter
    warnings = _warnings(wide, others, suggestion, num_iter, stopped_early)
    if fall < SMALL_FALL * start:
        warnings = (
            f"The loss fell by {fall / start:.1%} only: the suggestion is a guess.",
            *warnings,
        )
    return LrCurve(
        lrs=tuple(lrs[:count]),
        losses=tuple(map(float, losses)),
        smoothed=tuple(map(float, _smooth(measured, losses, SHOWN_WIDTH))),
        stopped_early=stopped_early,
        suggestion=suggestion,
        band=(suggestion / BAND, suggestion * BAND),
        suggestions={"middle": suggestion, **others},
        warnings=warnings,
    )


def _padded(sweep: Sequence[float], count: int, ceiling: float) -> Array:
    """Losses with a ceiling, which a sweep that was stopped early has reached."""
    return np.minimum([*sweep, *[ceiling] * (count - len(sweep))], ceiling)


def _smooth(x: Array, losses: Array, width: float) -> Array:
    """Gaussian mean over `x`."""
    weights = np.exp(-(((x[:, None] - x) / width) ** 2) / 2)
    smoothed: Array = (weights * losses).sum(1) / weights.sum(1)
    return smoothed


def _valley(x: Array, smoothed: Array, start: float) -> tuple[float, float]:
    """Both ends of the valley around the minimum."""
    low = high = int(smoothed.argmin())
    limit = smoothed[low] + VALLEY * (start - smoothed[low])
    while low > 0 and smoothed[low - 1] <= limit:
        low -= 1
    while high < len(x) - 1 and smoothed[high + 1] <= limit:
        high += 1
    return float(x[low]), float(x[high])


def _exponential_mean(losses: Sequence[float]) -> list[float]:
    """Smoothed as torch-lr-finder does."""
    smoothed = [losses[0]]
    for loss in losses[1:]:
        smoothed.append(SMOOTHING * loss + (1 - SMOOTHING) * smoothed[-1])
    return smoothed


def other_rules(lrs: Sequence[float], losses: Sequence[float]) -> dict[str, float]:
    """Rules of other programs, on smoothed losses.

    `steepest` is torch-lr-finder's, the steepest fall of the loss, ends left out; here only before
    the minimum, since a loss that has exploded falls steeper than any that learns. `valley` is
    fastai's: two thirds into the longest fall. `minimum/10` is a tenth of the rate of the minimum.
    """
    least = int(np.argmin(losses))
    falling = np.asarray(losses[SKIP_START : min(least + 1, len(losses) - SKIP_END)])
    steepest = int(np.gradient(falling).argmin()) + SKIP_START if len(falling) > 1 else least
    # Longest run of falling loss, as fastai's `valley` finds it.
    longest = [1] * len(losses)
    for i in range(1, len(losses)):
        for j in range(i):
            if losses[i] < losses[j]:
                longest[i] = max(longest[i], longest[j] + 1)
    end = max(range(len(losses)), key=longest.__getitem__)
    begin = end - longest[end]
    section = (end - begin) / 3
    valley = max(0, min(len(lrs) - 1, begin + int(section) + int(section / 2)))
    return {"steepest": lrs[steepest], "valley": lrs[valley], "minimum/10": lrs[least] / 10}


def _warnings(
    smoothed: Array,
    others: dict[str, float],
    suggestion: float,
    num_iter: int,
    stopped_early: bool,
) -> tuple[str, ...]:
    warnings = []
    if num_iter < USUAL_STEPS // 2:
        warnings.append(
            f"{num_iter} steps are few for this range: --num-iter {USUAL_STEPS} is more reliable."
        )
    if not stopped_early and smoothed.argmin() >= len(smoothed) - 1:
        warnings.append("The loss still fell at the end of the range: raise --end-lr.")
    far = [
        f"{name} {rate:.1e}"
        for name, rate in others.items()
        if not 1 / SPREAD <= rate / suggestion <= SPREAD
    ]
    if far:
        warnings.append(
            f"Other rules differ from it by more than {SPREAD} times: {', '.join(far)}."
        )
    return tuple(warnings)
