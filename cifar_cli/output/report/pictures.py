"""Images in a page, as `data:` URLs: misclassified ones, activation maps, a confusion matrix."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

PNG_UP_TO = 64
"""Longest side of an image that is stored without loss."""
LONGEST = 128
_MAP_SIDE, _MAP_LEVELS = 16, 24
_YELLOW, _RED = (255, 214, 10), (214, 20, 20)
_STRONGEST = 175  # of 255: the image stays visible below the map
_FADING = 1.7  # so that the places that speak most stand out
_BLUE, _ORANGE = (0, 114, 178), (213, 94, 0)


def image_url(image: Tensor) -> str:
    """An image, uint8 (S, S, 3), of at most 128 pixels: PNG if it is small, JPEG otherwise."""
    picture = Image.fromarray(image.numpy())
    if max(picture.size) <= PNG_UP_TO:
        return _url(picture, "png", optimize=True)
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return _url(picture, "jpeg", quality=85, optimize=True)


def map_url(activation: Tensor) -> str:
    """An activation map, float (S, S) in 0..1, as colours from transparent to red."""
    levels = Image.fromarray((activation.numpy() * 255).round().astype(np.uint8)).resize(
        (_MAP_SIDE, _MAP_SIDE), Image.Resampling.BOX
    )
    steps = np.asarray(levels, np.float64) / 255 * (_MAP_LEVELS - 1)
    share = np.linspace(0, 1, _MAP_LEVELS)[:, None]
    colours = (1 - share) * np.array(_YELLOW) + share * np.array(_RED)
    return _palette_url(
        steps.round().astype(np.uint8), colours, share[:, 0] ** _FADING * _STRONGEST
    )


def matrix_url(confusion: Sequence[Sequence[int]]) -> str:
    """Counts, row: true class, a pixel per cell: blue if correct, orange if not.

    The more of its row a cell has, the less transparent it is. A cell with any image is visible.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    levels = np.where(counts > 0, 1 + np.sqrt(share) * 126, 0).round().astype(np.uint8)
    levels[np.diag_indices(len(levels))] += 128
    colours = np.repeat(np.array([_ORANGE, _BLUE], np.float64), 128, axis=0)
    alpha = np.tile(np.concatenate([[0], np.linspace(100, 255, 127)]), 2)
    return _palette_url(levels, colours, alpha)


def _palette_url(
    levels: npt.NDArray[np.uint8],
    colours: npt.NDArray[np.float64],
    alpha: npt.NDArray[np.float64],
) -> str:
    """Levels (H, W) with a colour (0..255) and an opacity (0..255) for each."""
    picture = Image.fromarray(levels).convert("P")
    picture.putpalette(colours.round().astype(np.uint8).tobytes())
    return _url(picture, "png", transparency=alpha.round().astype(np.uint8).tobytes())


def _url(picture: Image.Image, form: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"
