"""Figures of an evaluation: the confusion matrix and the accuracy of each class."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np

from cifar_cli.analysis.metrics import ClassFigures, wilson_interval, worst_and_best
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

NUMBERS_UP_TO = 40
NAME_WIDTH = 120.0
"""Room for the name of a class, in points."""


def confusion(
    path: Path,
    counts: Sequence[Sequence[int]],
    names: Sequence[str],
    title: str,
    footer: str = "",
) -> Path:
    """Rows are true classes, columns predicted ones; cells in percent of the row.

    Errors have a colour scale of their own, up to the largest one; up to 40 classes have numbers.
    """
    matrix = np.asarray(counts, dtype=float)
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(len(names), dtype=bool)
    errors = share[~diagonal]
    largest = max(1.0, float(errors.max())) if errors.size else 1.0
    side = min(max(3.2, 0.48 * len(names)), 10.5)  # of the matrix, in inches
    cell = 72 * side / len(names)
    every = ceil(5.0 / cell)  # names below 5 points cannot be read
    size = min(10.0, max(5.0, 0.8 * cell * every))
    ticks = range(0, len(names), every)
    lines = 2 if cell * every > 2.6 * size else 1
    labels = [fitted(names[i], NAME_WIDTH, size, lines=lines) for i in ticks]
    with new_figure(path, side + 3.6, side + 2, title, footer) as figure:
        axis, *bars = figure.subplots(1, 3, width_ratios=[1, 0.035, 0.035])
        scales = (
            (diagonal, "Oranges", largest, "errors, % of the true class"),
            (~diagonal, "Blues", 100.0, "classified correctly, % of the true class"),
        )
        for bar, (hidden, colours, top, meaning) in zip(bars, scales, strict=True):
            shown = np.ma.masked_array(share, hidden)
            image = axis.imshow(shown, cmap=colours, vmin=0, vmax=top, interpolation="nearest")
            figure.colorbar(image, cax=bar, label=meaning)
        axis.grid(visible=False)
        axis.set(xlabel="predicted class", ylabel="true class")
        axis.set_xticks(ticks, labels, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(ticks, labels)
        axis.tick_params(length=0, labelsize=size)
        axis.spines[:].set_visible(False)
        if len(names) <= NUMBERS_UP_TO:
            for (row, column), value in np.ndenumerate(share):
                if matrix[row, column]:
                    dark = value > 0.68 * (100 if row == column else largest)
                    axis.text(
                        column,
                        row,
                        f"{value:.0f}" if value >= 0.95 else f"{value:.1f}",
                        ha="center",
                        va="center",
                        fontsize=min(8.5, 0.36 * cell),
                        color="white" if dark else "black",
                    )
    return path


def class_accuracy(
    path: Path, classes: Sequence[ClassFigures], title: str, footer: str = ""
) -> Path:
    """One bar per class with its 95% interval, the worst at the bottom; of many the ends only.

    Lines show the mean of the classes, and what guessing would get.
    """
    known = [c for c in classes if c.accuracy is not None]
    mean = 100 * sum(c.correct / c.num_images for c in known) / max(len(known), 1)
    worst, best = worst_and_best(known)
    if best:
        title += f"; the lowest {len(worst)} and the highest {len(best)} of {len(known)} classes"
    shown = [*worst, *best]
    # A gap where classes are left out.
    rows = [*range(len(worst)), *(len(worst) + 1 + i for i in range(len(best)))]
    with new_figure(path, 7.4, max(2.4, 0.32 * len(shown) + 1.4), title, footer) as figure:
        axis = figure.subplots()
        values = [100 * c.correct / c.num_images for c in shown]
        axis.barh(rows, values, color=SKY, height=0.7)
        intervals = [wilson_interval(c.correct, c.num_images) for c in shown]
        spans = [
            (value - 100 * low, 100 * high - value)
            for value, (low, high) in zip(values, intervals, strict=True)
        ]
        if shown:
            axis.errorbar(
                values,
                rows,
                xerr=np.clip(np.transpose(spans), 0, None),
                fmt="none",
                ecolor=BLACK,
                elinewidth=1,
                capsize=2.5,
                label="95% interval (Wilson)",
            )
        for row, value, one in zip(rows, values, shown, strict=True):
            axis.text(103, row, f"{value:.1f}   n = {one.num_images:,}", fontsize=8.5, va="center")
        axis.set_yticks(rows, [fitted(c.name, NAME_WIDTH, 9, lines=2) for c in shown], fontsize=9)
        if best:
            axis.text(0, len(worst), " ⋮", va="center", color=GREY)
        axis.axvline(mean, color=BLUE, linestyle="--", linewidth=1.2, label=f"mean {mean:.1f}%")
        chance = 100 / max(len(classes), 1)
        axis.axvline(
            chance, color=VERMILION, linestyle=":", linewidth=1.4, label=f"chance {chance:.3g}%"
        )
        axis.set(xlabel="images of the class classified correctly, %", xlim=(0, 101))
        axis.set_ylim(-0.6, (rows or [0])[-1] + 0.6)
        axis.set_xticks(range(0, 101, 20))
        axis.grid(visible=False, axis="y")
        legend_below(figure, ncols=3, fontsize=9)
    return path
