"""Tests and intervals against published values, another library, and exact coverage."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cifar_cli.analysis.significance import (
    Difference,
    holm,
    mcnemar,
    paired_difference,
    tango_interval,
    welch,
)

counts = st.tuples(*[st.integers(0, 60)] * 2, st.integers(0, 3000))


def test_published_values_of_the_airway_reactivity_study() -> None:
    """Fagerland, Lydersen and Laake (2014): 21 children, 1 and 7 of whom changed."""
    low, high = tango_interval(1, 7, 21)
    assert (round(low, 3), round(high, 3)) == (-0.517, -0.026)
    assert round(mcnemar(1, 7), 4) == 0.0703
    assert mcnemar(1, 7) == 2 * (1 + 8) / 2**8  # by hand


def test_no_flip_at_all_leaves_an_interval_that_shrinks_with_the_images() -> None:
    z2 = 1.959963984540054**2  # Tango's equation has this solution by hand
    for total in (1, 44, 1000):
        end = z2 / (total + z2)
        assert tango_interval(0, 0, total) == pytest.approx((-end, end))
    assert mcnemar(0, 0) == 1
    assert tango_interval(0, 0, 0) == (-1, 1)
    assert tango_interval(30, 0, 30)[1] == pytest.approx(1)


@given(counts)
def test_swapping_the_networks_turns_the_sign_and_nothing_else(found: tuple[int, int, int]) -> None:
    gained, lost, same = found
    total = gained + lost + same
    one, other = paired_difference(gained, lost, total), paired_difference(lost, gained, total)
    assert one.difference == -other.difference
    assert one.interval == pytest.approx([-end for end in other.interval[::-1]], abs=1e-12)
    assert one.p_value == other.p_value == min(1, one.p_value)
    low, high = one.interval
    assert -1 <= low <= one.difference <= high <= 1


@given(counts)
def test_mcnemar_is_the_binomial_test_and_agrees_with_the_interval(
    found: tuple[int, int, int],
) -> None:
    gained, lost, same = found
    flipped = gained + lost
    p = mcnemar(gained, lost)
    assert p == pytest.approx(stats.binomtest(gained, flipped).pvalue if flipped else 1)
    if p < 0.05:  # the exact test is the stricter one
        low, high = tango_interval(gained, lost, flipped + same)
        assert low > 0 or high < 0


@pytest.mark.parametrize(
    ("total", "gains", "losses"),
    [(30, 0.02, 0.02), (30, 0.1, 0.05), (50, 0.02, 0.06), (100, 0.01, 0.01), (100, 0.05, 0.02)],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(
    total: int, gains: float, losses: float
) -> None:
    """Over all outcomes with their probabilities, so that nothing is left to chance."""
    shares = gains, losses, 1 - gains - losses
    covered = 0.0
    for gained in range(total + 1):
        for lost in range(total + 1 - gained):
            outcome = gained, lost, total - gained - lost
            logarithm = math.lgamma(total + 1) + sum(
                n * math.log(p) - math.lgamma(n + 1) for n, p in zip(outcome, shares, strict=True)
            )
            if logarithm > -16:
                low, high = tango_interval(gained, lost, total)
                covered += math.exp(logarithm) * (low <= gains - losses <= high)
    assert 0.93 < covered <= 1


def test_welch_is_that_of_scipy_and_takes_samples_without_spread() -> None:
    first, second = [0.90, 0.91, 0.905, 0.899], [0.92, 0.915, 0.93]
    found = welch(first, second)
    reference = stats.ttest_ind(second, first, equal_var=False)
    assert found.p_value == pytest.approx(reference.pvalue)
    assert found.interval == pytest.approx(tuple(reference.confidence_interval()))
    assert welch([0.5, 0.5], [0.5, 0.5]) == Difference(0, (0, 0), 1, 1)
    assert welch([0.5, 0.5], [0.75, 0.75]) == Difference(0.25, (0.25, 0.25), 0, 0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.2, 0.9]) == pytest.approx([0.4, 0.9])
    assert holm([0.3]) == [0.3]


def test_a_difference_is_clear_only_after_the_correction() -> None:
    assert paired_difference(40, 10, 1000).is_clear
    assert not Difference(0.03, (0.01, 0.05), 0.03, 0.06).is_clear
    assert not paired_difference(0, 0, 1000).is_clear
