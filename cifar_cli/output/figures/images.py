"""Figures that show images: samples, augmentations, and what a network gets wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cifar_cli.output.figures.style import GREY, label, new_figure

Images = npt.NDArray[np.uint8]
CELL = 1.15


@dataclass(frozen=True)
class Caption:
    """Two lines under an image: the true class, and the predicted one with its confidence."""

    true: str
    predicted: str
    confidence: float


def sample_grid(
    path: Path, images: Images, title: str, labels: Sequence[str] | None = None
) -> Path:
    """Images (N, H, W, 3) in a grid, each with its label above, if there are labels."""
    columns = _columns(len(images))
    rows = math.ceil(len(images) / columns)
    cell = CELL + (0.22 if labels else 0)
    with new_figure(path, max(3.6, columns * CELL), rows * cell + 0.45) as figure:
        figure.suptitle(label(title, 90), fontsize=11, fontweight="bold")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        _show_all(axes, images)
        for axis, text in zip(axes, labels or (), strict=False):
            axis.set_title(label(text, 12), fontsize=8.5, fontweight="normal", pad=3)
    return path


def augmentation_grid(path: Path, rows: Sequence[Images], names: Sequence[str], title: str) -> Path:
    """One row per augmentation, its name on the left; each row's images (N, H, W, 3)."""
    columns = max(len(row) for row in rows)
    with new_figure(path, 1.7 + columns * CELL, len(rows) * (CELL + 0.05) + 0.45) as figure:
        figure.suptitle(label(title, 90), fontsize=11, fontweight="bold")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for row, images, name in zip(grid, rows, names, strict=True):
            _show_all(row, images)
            row[0].set_ylabel(
                name, rotation=0, ha="right", va="center", fontsize=9, labelpad=8, linespacing=1.3
            )
    return path


def mistake_gallery(path: Path, images: Images, captions: Sequence[Caption], title: str) -> Path:
    """Wrongly classified images, each with its true and its predicted class."""
    columns = min(5, max(1, len(images)))
    rows = max(1, math.ceil(len(images) / columns))
    with new_figure(path, max(4.2, columns * 1.75), rows * 2.2 + 0.5) as figure:
        figure.suptitle(label(title, 90), fontsize=11, fontweight="bold")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        _show_all(axes, images)
        for axis, caption in zip(axes, captions, strict=False):
            axis.set_title(f"true: {label(caption.true, 18)}", fontsize=9, fontweight="bold", pad=4)
            axis.set_xlabel(
                f"predicted: {label(caption.predicted, 18)}\n{caption.confidence:.0%} sure",
                fontsize=9,
                color="#A33B00",
                labelpad=3,
            )
        if len(images) == 0:
            axes[0].text(0.5, 0.5, "no mistakes", ha="center", va="center", color=GREY)
    return path


def _columns(count: int) -> int:
    """Columns of a grid a little wider than high; with full rows if a number nearby gives them."""
    best = min(count, max(4, math.ceil(math.sqrt(count * 1.6))))
    return next((c for c in (best, best - 1, best + 1) if c and count % c == 0), best)


def _show_all(axes: npt.NDArray[Any], images: Images) -> None:
    """One image per axis; axes without one stay empty."""
    for axis in axes[len(images) :]:
        axis.set_axis_off()
    for axis, image in zip(axes, images, strict=False):
        # Pixels as they are: enlarged squares, not smoothed ones.
        axis.imshow(image, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
