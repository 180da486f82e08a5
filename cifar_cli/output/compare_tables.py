"""What `compare` prints: tables, and sentences that say what follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cifar_cli.output.console import counted
from cifar_cli.output.tables import new_table

if TYPE_CHECKING:
    from cifar_cli.analysis.paired import Comparison, Pair
    from cifar_cli.analysis.significance import Difference


def compared_table(comparison: Comparison) -> Table:
    """One row per network: its accuracy with its interval."""
    images = f"{len(comparison.images):,} images"
    headers = "Run", "Correct", "Accuracy %", "95% interval"
    table = new_table(f"Runs on {images}", *headers, names=headers[:1])
    for run in comparison.runs:
        low, high = (f"{100 * end:.2f}" for end in run.interval)
        correct, accuracy = f"{run.correct:,}", f"{100 * run.accuracy:.2f}"
        table.add_row(run.name, correct, accuracy, f"{low} to {high}")
    return table


def difference_table(pair: Pair) -> Table:
    """One row per class, the largest loss first; of many classes the ends only."""
    from cifar_cli.output.figures.differences import ranked

    shown, left_out = ranked(pair.per_class)
    caption = "Points: change of the percentage that is correct."
    if left_out:
        caption += f" {left_out:,} classes in between."
    headers = "Class", "Images", "Lost", "Gained", "Points", "95% interval"
    title = f"Classes, from {pair.before.name} to {pair.after.name}"
    table = new_table(title, *headers, names=headers[:1], caption=caption)
    for one in shown:
        counts = [f"{number:,}" for number in (one.num_images, one.lost, one.gained)]
        table.add_row(one.name, *counts, _signed(one.difference or 0), _range(one.interval))
    return table


def setting_table(settings: Mapping[str, Sequence[Any]], names: Iterable[str]) -> Table:
    """The settings that differ: one row each, one column per run."""
    headers = "Setting", *names
    table = new_table("Settings that differ", *headers, names=headers)
    for key, values in settings.items():
        table.add_row(key, *("--" if value is None else str(value) for value in values))
    return table


def seed_table(accuracies: Mapping[str, Sequence[float]], intervals: Sequence[Any]) -> Table:
    """One row per recipe of a bench: the mean of its runs."""
    headers = "Recipe", "Runs", "Mean accuracy %", "95% interval", "Lowest", "Highest"
    table = new_table("Recipes", *headers, names=headers[:1])
    for (name, values), spread in zip(accuracies.items(), intervals, strict=True):
        low, high = (f"{100 * end:.2f}" for end in spread.interval)
        ends = (f"{100 * end:.2f}" for end in (min(values), max(values)))
        mean = f"{100 * spread.mean:.2f}"
        table.add_row(name, str(len(values)), mean, f"{low} to {high}", *ends)
    return table


def verdict(before: str, after: str, difference: Difference, tests: tuple[str, str]) -> list[str]:
    """What follows from a difference: a sentence, and the figures that it rests on.

    Args:
        before, after: Names of what is compared.
        difference: What `after` has more.
        tests: Where the interval and the p-value come from.
    """
    share, (low, high) = difference.difference, difference.interval
    points = f"{100 * abs(share):.2f} points"
    interval = f"{_signed(low)} to {_signed(high)}"
    if difference.is_clear:
        word = "better" if share > 0 else "worse"
        found = f"{after} is {word} than {before} by {points} of accuracy."
        ends = sorted((abs(low), abs(high)))
        interval = " to ".join(f"{100 * end:.2f}" for end in ends)
    elif share == 0:
        found = f"No difference: {after} and {before} are equally accurate."
    else:
        word = "more" if share > 0 else "less"
        found = f"No clear difference: {after} has {points} {word} accuracy than {before}."
    tested = f"p {_p(difference.p_value)}"
    if difference.p_value_holm != difference.p_value:
        tested += f", corrected p {_p(difference.p_value_holm)}"
    return [found, f"  95% interval {interval} ({tests[0]}); {tested} ({tests[1]})"]


def pair_lines(pair: Pair) -> list[str]:
    """The verdict on two networks, and how many images flipped."""
    names = pair.before.name, pair.after.name
    if pair.is_same_network:
        return [f"{names[1]} is the same network as {names[0]}: there is no difference."]
    flipped = (counted(number, "image") for number in (pair.lost, pair.gained))
    return [
        *verdict(*names, pair.difference, ("Tango", "McNemar's exact test")),
        "  {} from right to wrong, {} from wrong to right".format(*flipped),
    ]


def correction_lines(comparisons: int) -> list[str]:
    """How several comparisons are allowed for."""
    if comparisons < 2:
        return []
    return [
        f"The p-values are corrected for {comparisons} comparisons (Holm). The intervals are not."
    ]


def _signed(share: float) -> str:
    """In percentage points, with a sign unless they are 0."""
    text = f"{100 * share:+.2f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def _range(interval: tuple[float, float]) -> str:
    return " to ".join(map(_signed, interval))


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"
