"""What both implementations of Winograd's filtering share: sizes, choice of tiles, memory."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from cifar_cli.kernels.transforms import SIZES

MAX_TILES = 1024  # of an image; with more, the memory for them would outgrow the caches
TORCH_MOVES = 70
"""By torch, moving an element to and from a tile costs about as much as so many multiply-adds, and
one more for each other element of the tile. With it, no layer is picked that was slower."""
LANES, PANEL = 8, 32
"""Channels that compiled code moves, and outputs that it computes, together."""


@dataclass(frozen=True)
class Layer:
    """The sizes of a convolution 3x3 of channels-last images, with a border of one pixel."""

    batch: int
    height: int
    width: int
    inputs: int
    outputs: int
    m: int
    """Output tiles have m x m pixels."""
    reflect: bool
    """Whether the border is reflected; else it is zero."""
    pool: bool
    """Whether the outputs are max-pooled, 2x2."""


@lru_cache(maxsize=256)
def best_m(
    height: int,
    width: int,
    inputs: int,
    outputs: int,
    *,
    compiled: bool = False,
    pool: bool = False,
) -> int | None:
    """The m of the tiles that are estimated to cost least; None: direct convolution costs less.

    Compiled code (`compiled`) pools within a tile, if at all.
    """
    if min(height, width) < 2:
        return None
    in_tiles = compiled and pool
    rows, columns = (n - n % 2 if in_tiles else n for n in (height, width))

    def tiles(m: int) -> int:
        return -(-rows // m) * -(-columns // m)

    def cost(m: int) -> int:
        tile_area = (m + 2) ** 2
        products, moves = inputs * outputs, (TORCH_MOVES + tile_area) * (inputs + outputs)
        if compiled:
            products = inputs * padded(outputs, PANEL)
            moved = padded(inputs, LANES) + padded(outputs, LANES)
            moves = (32 + tile_area) * moved // 8
        return tiles(m) * tile_area * (products + moves)

    best = min((m for m in SIZES if not (in_tiles and m % 2)), key=cost)
    fits = tiles(best) <= MAX_TILES
    return best if fits and cost(best) < 9 * height * width * inputs * outputs else None


def padded(channels: int, together: int) -> int:
    """So many channels and those that fill the last group of `together`."""
    return -(-channels // together) * together


_kept = threading.local()


def scratch(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Uninitialised float32 tensors, in one piece of memory that each thread keeps and reuses.

    Fresh memory would have to be mapped page by page in every layer of every step.
    """
    sizes = [math.prod(shape) for shape in shapes]
    memory: Tensor | None = getattr(_kept, "memory", None)
    if memory is None or len(memory) < sum(sizes):
        memory = _kept.memory = None  # freed before more is allocated
        with torch.inference_mode(False):  # its tensors could not be used outside of that mode
            memory = _kept.memory = torch.empty(sum(sizes), dtype=torch.float32, device="cpu")
    parts = torch.split(memory[: sum(sizes)], sizes)
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
