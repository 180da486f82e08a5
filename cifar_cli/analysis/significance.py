"""Whether one accuracy is higher than another: tests, and 95% intervals of a difference."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.special import bdtr, stdtr, stdtrit

from cifar_cli.analysis.metrics import Z_95

LEVEL = 0.05
"""A difference is clear if its p-value is below this, and its interval does not contain 0."""
_HALVINGS = 60


@dataclass(frozen=True)
class Difference:
    """What B has more than A: of accuracy, as a fraction."""

    difference: float
    interval: tuple[float, float]
    """95% interval, not corrected for further comparisons."""
    p_value: float
    """Two-sided, not corrected."""
    p_value_holm: float
    """Corrected for all comparisons made together."""

    @property
    def is_clear(self) -> bool:
        """Whether chance alone would hardly give it."""
        low, high = self.interval
        return self.p_value_holm < LEVEL and not low <= 0 <= high


def paired_difference(gained: int, lost: int, total: int) -> Difference:
    """The difference of two accuracies on the same images.

    Args:
        gained: How many images only B classifies correctly.
        lost: How many only A does.
        total: All images.
    """
    share = (gained - lost) / total if total else 0.0
    p = mcnemar(gained, lost)
    return Difference(share, tango_interval(gained, lost, total), p, p)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test (McNemar 1947).

    If the networks were equally good, each image that only one of them classifies correctly would
    be either's with probability one half.
    """
    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def tango_interval(gained: int, lost: int, total: int) -> tuple[float, float]:
    """95% score interval of a difference of paired proportions, (gained - lost) / total.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions for
    the paired-sample design", Statistics in Medicine 17 (1998); recommended for few images, too, by
    Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014).
    """
    if total == 0:
        return -1.0, 1.0
    estimate = (gained - lost) / total

    def limit(end: float) -> float:
        """Where the score reaches the normal quantile, between the estimate and `end`."""
        inside, outside = estimate, end
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            if abs(_score(middle, gained, lost, total)) <= Z_95:
                inside = middle
            else:
                outside = middle
        return inside

    return limit(-1.0), limit(1.0)


def _score(delta: float, gained: int, lost: int, total: int) -> float:
    """The score statistic of the hypothesis that the difference is `delta`."""
    a = 2 * total
    b = (2 * total - gained + lost) * delta - gained - lost
    c = -lost * delta * (1 - delta)
    # Most likely probability of a loss under the hypothesis.
    loss = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = total * (2 * loss + delta * (1 - delta))
    distance = gained - lost - total * delta
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def welch(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The difference of the means of two samples of two values or more (Welch 1947).

    The interval and the two-sided p-value are those of Student's t, with Satterthwaite's degrees
    of freedom. Samples without any spread have an interval of no width.
    """
    difference = statistics.fmean(second) - statistics.fmean(first)
    errors = [statistics.variance(sample) / len(sample) for sample in (first, second)]
    squares = sum(e * e / (len(s) - 1) for e, s in zip(errors, (first, second), strict=True))
    if squares == 0:
        p = 1.0 if difference == 0 else 0.0
        return Difference(difference, (difference, difference), p, p)
    freedom, error = sum(errors) ** 2 / squares, math.sqrt(sum(errors))
    half = float(stdtrit(freedom, 0.975)) * error
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return Difference(difference, (difference - half, difference + half), p, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the same order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """The same, with p-values that allow for their number."""
    p_values = holm([one.p_value for one in differences])
    return [replace(one, p_value_holm=p) for one, p in zip(differences, p_values, strict=True)]
