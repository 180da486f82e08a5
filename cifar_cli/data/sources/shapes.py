"""`shapes`: ten classes of drawn figures, for trying everything without a download.

Each figure has its own colour, position, size, rotation and texture, on a background with its
own; contrast may be low and of either sign, so that single pixels say next to nothing about
the class and a linear model stays far below a network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cifar_cli.data.sources.format import Format
from cifar_cli.data.types import Dataset, ImageSet

Array = npt.NDArray[np.float32]
CLASS_NAMES = (
    "circle", "ring", "square", "frame", "triangle",
    "star", "cross", "crescent", "bar", "hourglass",
)  # fmt: skip


def load_shapes(
    n_train: int = 5_000, n_test: int = 1_000, size: int = 32, seed: int = 0
) -> Dataset:
    """Draw both splits, each class equally often; the same for the same arguments."""
    splits = []
    for stream, count in enumerate((n_train, n_test)):
        images, labels = draw_shapes(count, size, np.random.default_rng([seed, stream]))
        splits.append(
            ImageSet(torch.from_numpy(images), torch.from_numpy(labels), torch.arange(count))
        )
    return Dataset("shapes", CLASS_NAMES, splits[0], splits[1])


SHAPES = Format(
    "drawn shapes",
    load=lambda request: load_shapes(size=request.data.image_size),
    count_classes=lambda request: len(CLASS_NAMES),
    keyword="shapes",
)


def draw_shapes(
    count: int, size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Draw `count` images: uint8 (count, size, size, 3) and labels int64 (count,)."""
    labels = rng.permutation(np.arange(count) % len(CLASS_NAMES))
    images = np.empty((count, size, size, 3), np.uint8)
    for start in range(0, count, 500):
        part = slice(start, min(start + 500, count))
        images[part] = _draw(labels[part], size, rng)
    return images, labels.astype(np.int64)


def _draw(
    labels: npt.NDArray[np.int64], size: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    n = len(labels)

    def uniform(low: float, high: float, *shape: int) -> Array:
        return rng.uniform(low, high, (n, *shape)).astype(np.float32)

    # Pixel centres in -1..1, then in each figure's own moved, turned and scaled frame.
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    angle, radius = uniform(0, 2 * np.pi, 1, 1), uniform(0.42, 0.72, 1, 1)
    dx = axis[None, None, :] - uniform(-0.3, 0.3, 1, 1)
    dy = axis[None, :, None] - uniform(-0.3, 0.3, 1, 1)
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / radius
    v = (dy * np.cos(angle) - dx * np.sin(angle)) / radius

    inside = np.empty((n, size, size), np.float32)
    for label in range(len(CLASS_NAMES)):
        rows = labels == label
        # One pixel of soft edge: the signed depth in pixels, clipped to 0..1.
        depth = _depth(label, u[rows], v[rows]) * radius[rows] * (size / 2)
        inside[rows] = np.clip(depth + 0.5, 0, 1)

    background, colour = _two_colours(n, rng)
    ground = background[:, None, None, :] + _texture(n, axis, rng)
    figure = colour[:, None, None, :] + _texture(n, axis, rng)
    opacity = inside[..., None] * uniform(0.75, 1.0, 1, 1, 1)
    picture = ground + opacity * (figure - ground)
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    picture += uniform(0.01, 0.07, 1, 1, 1) * noise
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)


def _two_colours(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Two colours an image, at least 0.35 apart (RGB distance, channels in 0..1)."""
    first = rng.uniform(0.1, 0.9, (n, 3))
    second = rng.uniform(0.1, 0.9, (n, 3))
    for _ in range(20):
        close = np.linalg.norm(first - second, axis=1) < 0.35
        if not close.any():
            break
        second[close] = rng.uniform(0.1, 0.9, (int(close.sum()), 3))
    return first.astype(np.float32), second.astype(np.float32)


def _texture(n: int, axis: Array, rng: np.random.Generator) -> Array:
    """Stripes of random direction and width plus a slope of light, (n, size, size, 1)."""
    direction, phase = rng.uniform(0, 2 * np.pi, (2, n, 1, 1)).astype(np.float32)
    frequency = rng.uniform(2, 12, (n, 1, 1)).astype(np.float32)
    strength, slope = rng.uniform(0, 0.12, (2, n, 1, 1)).astype(np.float32)
    along = axis[None, None, :] * np.cos(direction) + axis[None, :, None] * np.sin(direction)
    texture: Array = strength * np.sin(frequency * along + phase) + slope * along
    return texture[..., None]


def _depth(label: int, u: Array, v: Array) -> Any:
    """Signed depth inside the figure in units of its radius: positive inside, 0 on the edge."""
    r = np.hypot(u, v)
    box = np.maximum(np.abs(u), np.abs(v))
    match CLASS_NAMES[label]:
        case "circle":
            return 0.85 - r
        case "ring":
            return 0.2 - np.abs(r - 0.72)
        case "square":
            return 0.72 - box
        case "frame":
            return 0.17 - np.abs(box - 0.62)
        case "triangle":
            return np.minimum(0.45 + v, 0.45 - v / 2 - np.abs(u) * np.float32(np.sqrt(3) / 2))
        case "star":
            # Fold the plane into one of ten sectors, then cut along one straight edge.
            sector = np.abs(np.remainder(np.arctan2(u, v) + np.pi / 5, 2 * np.pi / 5) - np.pi / 5)
            x, y = r * np.cos(sector), r * np.sin(sector)
            ix, iy = 0.42 * np.cos(np.pi / 5), 0.42 * np.sin(np.pi / 5)
            length = np.hypot(1 - ix, iy)
            return ((1 - x) * iy - y * (1 - ix)) / length
        case "cross":
            upright = np.minimum(0.25 - np.abs(u), 0.9 - np.abs(v))
            return np.maximum(upright, np.minimum(0.25 - np.abs(v), 0.9 - np.abs(u)))
        case "crescent":
            return np.minimum(0.9 - r, np.hypot(u - 0.42, v) - 0.68)
        case "bar":
            return np.minimum(0.24 - np.abs(v), 1.0 - np.abs(u))
        case _:
            return np.minimum(0.8 - np.abs(v), (np.abs(v) * 0.8 + 0.08 - np.abs(u)) * 0.78)
