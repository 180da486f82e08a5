"""What `compare` prints: tables, and sentences that say what follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cifar_cli.output.console import counted, styled

if TYPE_CHECKING:
    from cifar_cli.analysis.paired import Comparison, Pair
    from cifar_cli.analysis.significance import Difference


def compared_table(comparison: Comparison) -> Table:
    """One row per network: its accuracy with its interval."""
    images = f"{len(comparison.images):,} images"
    table = _table(f"Runs on {images}", "Run", "Correct", "Accuracy %", "95% interval")
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
    table = _table(f"{pair.before.name} to {pair.after.name}", *headers, caption=caption)
    for one in shown:
        counts = [f"{number:,}" for number in (one.num_images, one.lost, one.gained)]
        table.add_row(one.name, *counts, _signed(one.difference or 0), _range(one.interval))
    return table


def setting_table(settings: Mapping[str, Sequence[Any]], names: Iterable[str]) -> Table:
    """The settings that differ: one row each, one column per run."""
    table = Table(title="Settings that differ", header_style="bold")
    for name in ("Setting", *names):
        table.add_column(name, overflow="fold")
    for key, values in settings.items():
        table.add_row(key, *("--" if value is None else str(value) for value in values))
    return table


def seed_table(accuracies: Mapping[str, Sequence[float]], intervals: Sequence[Any]) -> Table:
    """One row per recipe of a bench: the mean of its runs."""
    headers = "Recipe", "Runs", "Mean accuracy %", "95% interval", "Lowest", "Highest"
    table = _table("Recipes", *headers)
    for (name, values), spread in zip(accuracies.items(), intervals, strict=True):
        low, high = (f"{100 * end:.2f}" for end in spread.interval)
        ends = (f"{100 * end:.2f}" for end in (min(values), max(values)))
        mean = f"{100 * spread.mean:.2f}"
        table.add_row(name, str(len(values)), mean, f"{low} to {high}", *ends)
    return table


def verdict(before: str, after: str, difference: Difference, test: str) -> Text:
    """What follows from a difference, in a sentence.

    Args:
        before, after: Names of what is compared.
        difference: What `after` has more.
        test: Where the p-value comes from.
    """
    low, high = difference.interval
    tested = f"{test}, p {_p(difference.p_value)}"
    if difference.p_value_holm != difference.p_value:
        tested += f", corrected {_p(difference.p_value_holm)}"
    share = difference.difference
    if not difference.is_clear:
        if share == 0:
            found = f"{after} and {before} are equally accurate"
        else:
            word = "more" if share > 0 else "less"
            found = f"{after} has {_points(abs(share))} {word} accuracy than {before}"
        interval = f"95% interval {_range(difference.interval)}"
        return Text.assemble(styled("No clear difference"), f": {found} ({interval}; {tested}).")
    word = "better" if share > 0 else "worse"
    ends = sorted((100 * abs(low), 100 * abs(high)))
    interval = f"95% interval {ends[0]:.2f} to {ends[1]:.2f}"
    return Text.assemble(
        styled(f"{after} is {word}"),
        f" than {before} by {_points(abs(share))} of accuracy ({interval}; {tested}).",
    )


def pair_lines(pair: Pair) -> list[str | Text]:
    """The verdict on two networks, and how many images flipped."""
    names = pair.before.name, pair.after.name
    if pair.is_same_network:
        return [f"{names[1]} is the same network as {names[0]}: there is no difference."]
    return [
        verdict(*names, pair.difference, "McNemar's exact test"),
        f"From {names[0]} to {names[1]}, {counted(pair.gained, 'image')} changed from wrong to "
        f"right, and {counted(pair.lost, 'image')} from right to wrong.",
    ]


def correction_lines(comparisons: int) -> list[str]:
    """How several comparisons are allowed for."""
    if comparisons < 2:
        return []
    return [
        f"The p-values are corrected for {comparisons} comparisons (Holm). The intervals are not."
    ]


def _table(title: str, *headers: str, caption: str = "") -> Table:
    """A table whose first column holds names, and the others numbers."""
    table = Table(title=Text(title), caption=caption or None, header_style="bold")
    table.add_column(headers[0], overflow="fold")
    for header in headers[1:]:
        table.add_column(Text(header), justify="right", no_wrap=True)
    return table


def _points(share: float) -> str:
    return f"{100 * share:.2f} points"


def _signed(share: float) -> str:
    return f"{100 * share:+.2f}".replace("-", "−")


def _range(interval: tuple[float, float]) -> str:
    return " to ".join(map(_signed, interval))


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"
