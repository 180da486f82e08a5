"""Figures of an evaluation: the confusion matrix and the accuracy of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cifar_cli.output.figures.style import BLUE, GREY, label, new_figure

NUMBERS_UP_TO = 20
BARS_UP_TO = 60


def confusion(
    path: Path, counts: Sequence[Sequence[int]], names: Sequence[str], title: str
) -> Path:
    """Rows are true classes, columns predicted ones; cells in percent of the row."""
    matrix = np.asarray(counts, dtype=float)
    rows = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    share = 100 * matrix / rows
    size = min(max(5.2, 0.52 * len(names) + 2), 12.5)
    with new_figure(path, size + 0.8, size) as figure:
        axis = figure.subplots()
        image = axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
        axis.grid(visible=False)
        axis.set(title=title, xlabel="predicted class", ylabel="true class")
        ticks = range(len(names)) if len(names) <= 60 else range(0, len(names), len(names) // 30)
        axis.set_xticks(
            list(ticks),
            [label(names[i]) for i in ticks],
            rotation=45,
            ha="right",
            rotation_mode="anchor",
        )
        axis.set_yticks(list(ticks), [label(names[i]) for i in ticks])
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        if len(names) <= NUMBERS_UP_TO:
            for (row, column), value in np.ndenumerate(share):
                if matrix[row, column]:
                    axis.text(
                        column,
                        row,
                        f"{value:.0f}" if value >= 0.95 else f"{value:.1f}",
                        ha="center",
                        va="center",
                        fontsize=8.5,
                        color="white" if value > 55 else "black",
                    )
        figure.colorbar(image, ax=axis, shrink=0.8, label="% of the true class")
    return path


def class_accuracy(
    path: Path, names: Sequence[str], accuracies: Sequence[float | None], title: str
) -> Path:
    """One bar per class, the worst at the bottom (of many only the worst); a line at the mean."""
    known = sorted(
        ((n, 100 * a) for n, a in zip(names, accuracies, strict=True) if a is not None),
        key=lambda pair: pair[1],
    )
    mean = float(np.mean([value for _, value in known])) if known else 0.0
    if len(known) > BARS_UP_TO:
        title += f"\nthe lowest {BARS_UP_TO} of {len(known)} classes"
        known = known[:BARS_UP_TO]
    with new_figure(path, 6.4, max(2.4, 0.32 * len(known) + 1.1)) as figure:
        axis = figure.subplots()
        values = [value for _, value in known]
        bars = axis.barh(range(len(known)), values, color=BLUE, height=0.7)
        axis.set_yticks(range(len(known)), [label(name) for name, _ in known])
        # A white ground keeps the line of the mean from running through a number.
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=8.5, bbox=ground, zorder=3)
        axis.axvline(mean, color=GREY, linestyle="--", linewidth=1.2, label=f"mean {mean:.1f}%")
        axis.set(title=title, xlabel="images of the class classified correctly, %", xlim=(0, 109))
        axis.set_xticks(range(0, 101, 20))
        axis.grid(visible=False, axis="y")
        figure.legend(loc="outside lower center")
    return path
