"""Figures that show images: samples, augmentations, and what a network gets wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cifar_cli.output.figures.lettering import fitted
from cifar_cli.output.figures.style import GREEN, GREY, VERMILION, new_figure

Images = npt.NDArray[np.uint8]
CELL = 1.15
WIDEST, PICTURE = 5, 1.8
"""Images in a row of a gallery, and the width of each with its caption, in inches."""


@dataclass(frozen=True)
class Caption:
    """Lines around an image: the true class above; below the prediction, and the file's name."""

    true: str
    predicted: str
    confidence: float
    name: str = ""
    """Of its file, or its position; empty: none is shown."""


def sample_grid(
    path: Path,
    images: Images,
    title: str,
    labels: Sequence[str] | None = None,
    footer: str = "",
) -> Path:
    """Images (N, H, W, 3) in a grid, each with its label above, if there are labels."""
    columns = _columns(len(images))
    rows = math.ceil(len(images) / columns)
    labels = [fitted(text, 72 * CELL - 4, 8.5, lines=2) for text in labels or ()]
    lines = max((text.count("\n") + 1 for text in labels), default=0)
    width = max(3.6, columns * CELL)
    with new_figure(path, width, rows * (CELL + 0.17 * lines) + 0.45, title, footer) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        _show_all(axes, images)
        for axis, text in zip(axes, labels, strict=False):
            axis.set_title(text, fontsize=8.5, fontweight="normal", pad=3)
    return path


def augmentation_grid(
    path: Path, rows: Sequence[Images], names: Sequence[str], title: str, footer: str = ""
) -> Path:
    """One row per augmentation, its name on the left; each row's images (N, H, W, 3)."""
    columns = max(len(row) for row in rows)
    width, height = 1.7 + columns * CELL, len(rows) * (CELL + 0.05) + 0.45
    with new_figure(path, width, height, title, footer) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for row, images, name in zip(grid, rows, names, strict=True):
            _show_all(row, images)
            row[0].set_ylabel(
                name, rotation=0, ha="right", va="center", fontsize=9, labelpad=8, linespacing=1.3
            )
    return path


def mistake_gallery(
    path: Path, images: Images, captions: Sequence[Caption], title: str, footer: str = ""
) -> Path:
    """Wrongly classified images, each with its true and its predicted class."""
    columns = min(WIDEST, max(1, len(images)))
    width = max(4.6, columns * PICTURE)
    room = 72 * width / columns - 10
    above = [fitted(f"true: {c.true}", room, 9, lines=3, bold=True) for c in captions]
    below = [
        f"{fitted(f'predicted: {c.predicted}', room, 9, lines=3)}\n{c.confidence:.0%} sure"
        + (f"\n{fitted(c.name, room, 9)}" if c.name else "")
        for c in captions
    ]
    rows, height = (
        max(1, math.ceil(len(images) / columns)),
        _row_height(width / columns, above, below),
    )
    with new_figure(path, width, rows * height + 0.5, title, footer) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        _show_captioned(axes, images, above, below, "#A33B00")
        if len(images) == 0:
            axes[0].text(0.5, 0.5, "no mistakes", ha="center", va="center", color=GREY)
    return path


@dataclass(frozen=True)
class FlipSection:
    """Images that two networks classify differently, all in the same direction."""

    heading: str
    is_gain: bool
    """Whether the second network is the one that is right."""
    images: Images
    captions: Sequence[tuple[str, str, str, str]]
    """Of each image: the true class, what either network says, and its file or position."""


def flip_gallery(path: Path, sections: Sequence[FlipSection], title: str, footer: str = "") -> Path:
    """Images that one network classifies correctly and another one does not, in sections."""
    width = WIDEST * PICTURE
    room = 72 * PICTURE - 10
    texts = []
    for section in sections:
        above = [
            fitted(f"true: {true}", room, 9, lines=2, bold=True) for true, *_ in section.captions
        ]
        below = ["\n".join(fitted(line, room, 8.5) for line in own) for _, *own in section.captions]
        texts.append((above, below, max(1, math.ceil(len(section.images) / WIDEST))))
    heights = [0.2 + rows * _row_height(PICTURE, above, below) for above, below, rows in texts]
    with new_figure(path, width, sum(heights) + 0.5, title, footer) as figure:
        parts = figure.subfigures(len(sections), 1, height_ratios=heights, squeeze=False).ravel()
        for part, section, (above, below, rows) in zip(parts, sections, texts, strict=True):
            colour = GREEN if section.is_gain else VERMILION
            part.suptitle(section.heading, x=0.01, ha="left", fontsize=10.5, color=colour)
            axes = part.subplots(rows, WIDEST, squeeze=False).ravel()
            _show_captioned(axes, section.images, above, below, "#222222")
    return path


def _row_height(cell: float, above: Sequence[str], below: Sequence[str]) -> float:
    """Of images with their captions, in inches."""
    lines = sum(max((t.count("\n") + 1 for t in texts), default=1) for texts in (above, below))
    return min(cell, 2.3) + 0.18 * lines


def _show_captioned(
    axes: npt.NDArray[Any], images: Images, above: Sequence[str], below: Sequence[str], colour: str
) -> None:
    _show_all(axes, images)
    for axis, over, under in zip(axes, above, below, strict=False):
        axis.set_title(over, fontsize=9, fontweight="bold", pad=4)
        axis.set_xlabel(under, fontsize=9, color=colour, labelpad=3)


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
