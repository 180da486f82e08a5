"""How much better one network is than another, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cifar_cli.analysis.metrics import MANY_CLASSES
from cifar_cli.analysis.paired import ClassDifference, Pair
from cifar_cli.output.figures.lettering import fitted
from cifar_cli.output.figures.style import (
    BLACK,
    BLUE,
    GREY,
    SKY,
    VERMILION,
    legend_below,
    new_figure,
)

NAME_WIDTH = 120.0
"""Room for the name of a class, in points."""
LOSS = "#F0B08A"


def class_differences(path: Path, pair: Pair, title: str, footer: str = "") -> Path:
    """One bar per class with its 95% interval, the largest loss at the bottom.

    Of more than 40 classes the twenty with the largest losses and the twenty with the largest
    gains.
    """
    shown, left_out = ranked(pair.per_class)
    rows = range(len(shown))
    with new_figure(path, 7.4, max(2.4, 0.32 * len(shown) + 1.4), title, footer) as figure:
        axis = figure.subplots()
        values = [100 * (one.difference or 0) for one in shown]
        colours = [SKY if value >= 0 else LOSS for value in values]
        axis.barh(rows, values, color=colours, height=0.7)
        if shown:
            spans = [
                (value - 100 * one.interval[0], 100 * one.interval[1] - value)
                for value, one in zip(values, shown, strict=True)
            ]
            axis.errorbar(
                values,
                rows,
                xerr=list(zip(*spans, strict=True)),
                fmt="none",
                ecolor=BLACK,
                elinewidth=1,
                capsize=2.5,
                label="95% interval (Tango)",
            )
        ends = [100 * abs(end) for one in shown for end in one.interval]
        most = 1.08 * max(ends, default=1.0)
        for row, one in zip(rows, shown, strict=True):
            counts = f"{one.gained:,} gained, {one.lost:,} lost of {one.num_images:,}"
            axis.text(1.03 * most, row, counts, fontsize=8.5, va="center")
        axis.set_yticks(rows, [fitted(c.name, NAME_WIDTH, 9, lines=2) for c in shown], fontsize=9)
        axis.axvline(0, color=GREY, linewidth=1)
        overall = 100 * pair.difference.difference
        label = f"all images: {overall:+.2f} points".replace("-", "−")
        colour = BLUE if overall >= 0 else VERMILION
        axis.axvline(overall, color=colour, linestyle="--", linewidth=1.2, label=label)
        axis.set(xlabel=_axis_label(pair, left_out), xlim=(-most, most))
        axis.set_ylim(-0.6, max(len(shown) - 0.4, 0.6))
        axis.grid(visible=False, axis="y")
        legend_below(figure, ncols=2, fontsize=9)
    return path


def ranked(classes: Sequence[ClassDifference]) -> tuple[list[ClassDifference], int]:
    """The classes by difference, the largest loss first, and how many in the middle are left out;
    classes without images are left out, too."""
    known = [one for one in classes if one.difference is not None]
    known.sort(key=lambda one: one.difference or 0)
    half = MANY_CLASSES // 2
    if len(known) <= MANY_CLASSES:
        return known, 0
    return known[:half] + known[-half:], len(known) - MANY_CLASSES


def _axis_label(pair: Pair, left_out: int) -> str:
    names = (fitted(run.name, 130, 10) for run in (pair.after, pair.before))
    middle = f"; {left_out:,} classes in between are left out" if left_out else ""
    return f"recall of {' minus '.join(names)}, in percentage points{middle}"
