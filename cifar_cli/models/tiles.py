"""Moving Winograd's tiles out of images and back, by torch's own operations.

`compiled_winograd.py` does the same by compiled code, where there is a compiler.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from cifar_cli.models.toom_cook import SIDES, Line, lines

TILES = 256  # handled at a time, at least: few enough for the caches, enough for the products


@dataclass(frozen=True)
class Transforms:
    """The three transforms of F(m x m, 3 x 3), each for both dimensions at once, float32."""

    image: Tensor
    """(n^2, n^2), n = m + 2: an input tile to where products are taken."""
    kernel: Tensor
    """(n^2, 9): a filter to there."""
    output: Tensor
    """(m^2, n^2): the sums of products to an output tile."""


@lru_cache(maxsize=len(SIDES))
def transforms(side: int) -> Transforms:
    """Of output tiles of `side` x `side` pixels."""
    with torch.inference_mode(False):
        image, kernel, output = (_both_ways(matrix) for matrix in lines(side))
        return Transforms(image, kernel, output)


def _both_ways(matrix: list[Line]) -> Tensor:
    rows = [[float(value) for value in row] for row in matrix]
    one = torch.tensor(rows, dtype=torch.float32, device="cpu")
    return torch.kron(one, one)


_kept = threading.local()


def scratch(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Uninitialised float32 tensors, in one piece of memory that each thread keeps and reuses.

    Fresh memory would have to be mapped page by page in every layer of every step.
    """
    sizes = [math.prod(shape) for shape in shapes]
    memory: Tensor | None = getattr(_kept, "memory", None)
    if memory is None or len(memory) < sum(sizes):
        memory = _kept.memory = None  # before there is more of it
        with torch.inference_mode(False):  # what is made in that mode cannot be used out of it
            memory = _kept.memory = torch.empty(sum(sizes), dtype=torch.float32, device="cpu")
    parts = torch.split(memory[: sum(sizes)], sizes)
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def padded(channels: int, together: int) -> int:
    """So many channels and those that fill the last group of `together`."""
    return -(-channels // together) * together


@dataclass(frozen=True)
class Layer:
    """What is the same for all images of a convolution with a border of one pixel."""

    batch: int
    height: int
    width: int
    inputs: int
    outputs: int
    side: int
    """Of an output tile, one of `SIDES`."""
    reflect: bool
    """Whether the border holds the image's own pixels, or zeros."""
    pool: bool
    """Whether what comes out is max-pooled, 2x2."""


class TorchTiles:
    """Transformed tiles of a few images at a time.

    Images are (B, C, H, W), channels last; outputs and gradients (B, H, W, channels). Nothing of it
    outlives the next one in the same thread: all share one memory.
    """

    def __init__(self, layer: Layer) -> None:
        self.height, self.width = layer.height, layer.width
        self.side, self.spread, self.reflect = layer.side, layer.side + 2, layer.reflect
        self.down, self.across = -(-self.height // self.side), -(-self.width // self.side)
        self.tiles = self.down * self.across
        """Of an image."""
        self.transforms = transforms(self.side)
        wanted = max(TILES, min(layer.inputs, layer.outputs))
        self.images = min(layer.batch, max(1, wanted // self.tiles))
        """How many can be handled at a time."""
        tiles = self.images * self.tiles
        rows, columns = self.down * self.side, self.across * self.side
        self.is_whole = (rows, columns) == (self.height, self.width)
        pooled = self.images if layer.pool else 0
        parts = scratch(
            (self.images, rows + 2, columns + 2, layer.inputs),
            (0 if self.is_whole else self.images, rows, columns, layer.outputs),
            (tiles, self.spread**2, layer.inputs),
            (tiles, self.spread**2, layer.inputs),
            (tiles, self.spread**2, layer.outputs),
            (tiles, self.side**2, layer.outputs),
            (pooled, self.height, self.width, layer.outputs),
        )
        self.padded, self.whole, self.pixels, self.inputs, self.sums, self.out, self.between = parts
        self.padded.zero_()
        self.whole.zero_()

    def read_images(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to transformed tiles, (n^2, tiles, C)."""
        padded, (h, w) = self.padded[: len(x)], (self.height, self.width)
        padded[:, 1 : h + 1, 1 : w + 1] = x.permute(0, 2, 3, 1)
        if self.reflect:
            padded[:, 0], padded[:, h + 1] = padded[:, 2], padded[:, h - 1]
            padded[:, :, 0], padded[:, :, w + 1] = padded[:, :, 2], padded[:, :, w - 1]
        pixels = self._pixels(len(x))
        pixels.copy_(self._windows(padded, 0, 0, self.spread, self.spread))
        flat = pixels.flatten(0, 2).flatten(1, 2)
        return _transformed(self.transforms.image, flat, self.inputs).transpose(0, 1)

    def room(self, images: int) -> Tensor:
        """For the sums of products of so many images, (n^2, tiles, K)."""
        return self.sums[: images * self.tiles].transpose(0, 1)

    def write_outputs(self, sums: Tensor, out: Tensor, places: Tensor | None) -> None:
        """Sums to outputs (B, H, W, K), or pooled ones where there are `places` to write too."""
        pixels = out if places is None else self.between[: len(out)]
        whole = pixels if self.is_whole else self.whole[: len(out)]
        _transformed(self.transforms.output, sums.transpose(0, 1), self.out)
        self._blocks(whole).copy_(self._outputs(len(out)))
        if not self.is_whole:
            pixels.copy_(whole[:, : self.height, : self.width])
        if places is not None:
            pool_into(pixels, out, places)

    def read_gradients(self, gradient: Tensor, places: Tensor | None) -> Tensor:
        """The gradient of outputs to that of the sums; `write_outputs` transposed."""
        if places is not None:
            gradient = unpooled(gradient, places, (self.height, self.width))
        whole = gradient
        if not self.is_whole:
            whole = self.whole[: len(gradient)]
            whole[:, : self.height, : self.width] = gradient
        out = self._outputs(len(gradient))
        out.copy_(self._blocks(whole))
        flat = out.flatten(0, 2).flatten(1, 2)
        return _transformed(self.transforms.output.T, flat, self.sums).transpose(0, 1)

    def write_gradients(self, tiles: Tensor, of_x: Tensor) -> None:
        """The gradient of transformed tiles to that of the images; `read_images` transposed."""
        padded, m, (h, w) = self.padded[: len(of_x)], self.side, (self.height, self.width)
        _transformed(self.transforms.image.T, tiles.transpose(0, 1), self.pixels)
        pixels = self._pixels(len(of_x))
        # A tile's first m rows and columns are its own, the last two are also its neighbour's.
        padded[:, m * self.down :] = 0
        padded[:, :, m * self.across :] = 0
        self._windows(padded, 0, 0, m, m).copy_(pixels[:, :, :, :m, :m])
        self._windows(padded, m, 0, 2, m).add_(pixels[:, :, :, m:, :m])
        self._windows(padded, 0, m, m, 2).add_(pixels[:, :, :, :m, m:])
        self._windows(padded, m, m, 2, 2).add_(pixels[:, :, :, m:, m:])
        if self.reflect:
            padded[:, :, 2] += padded[:, :, 0]
            padded[:, :, w - 1] += padded[:, :, w + 1]
            padded[:, 2] += padded[:, 0]
            padded[:, h - 1] += padded[:, h + 1]
        of_x.copy_(padded[:, 1 : h + 1, 1 : w + 1])
        padded[:, 0], padded[:, h + 1 :] = 0, 0
        padded[:, :, 0], padded[:, :, w + 1 :] = 0, 0

    def _windows(self, padded: Tensor, row: int, column: int, height: int, width: int) -> Tensor:
        """View of a window in each tile, (B, down, across, height, width, C)."""
        batch, across, along, one = padded.stride()
        m, channels = self.side, padded.shape[3]
        return padded.as_strided(
            (len(padded), self.down, self.across, height, width, channels),
            (batch, m * across, m * along, across, along, one),
            padded.storage_offset() + row * across + column * along,
        )

    def _pixels(self, images: int) -> Tensor:
        shape = (images, self.down, self.across, self.spread, self.spread, -1)
        return self.pixels[: images * self.tiles].view(shape)

    def _outputs(self, images: int) -> Tensor:
        shape = (images, self.down, self.across, self.side, self.side, -1)
        return self.out[: images * self.tiles].view(shape)

    def _blocks(self, whole: Tensor) -> Tensor:
        """Outputs (B, H, W, K) by tile: (B, down, across, m, m, K), a view."""
        shape = (len(whole), self.down, self.side, self.across, self.side, -1)
        return whole.view(shape).transpose(2, 3)


def _transformed(matrix: Tensor, tiles: Tensor, out: Tensor) -> Tensor:
    """`matrix` applied to the pixels of each tile, written into the first rows of `out`."""
    out = out[: len(tiles)]
    torch.bmm(matrix.expand(len(tiles), -1, -1), tiles, out=out)
    return out


def pool_into(pixels: Tensor, out: Tensor, places: Tensor) -> None:
    """Max-pool (B, H, W, K) into `out`, with the places of the maxima, both (B, H//2, W//2, K)."""
    pixels, out, places = (t.permute(0, 3, 1, 2) for t in (pixels, out, places))
    torch.ops.aten.max_pool2d_with_indices(pixels, [2, 2], out=out, indices=places)


def unpooled(gradient: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """The gradient of what `pool_into` had pooled, (B, H, W, K)."""
    gradient, places = gradient.permute(0, 3, 1, 2), places.permute(0, 3, 1, 2)
    pixels = gradient.new_empty(len(gradient), *size, gradient.shape[1]).permute(0, 3, 1, 2)
    two, one = [2, 2], [1, 1]
    found: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
        gradient, pixels, two, two, [0, 0], one, False, places
    )
    return found.permute(0, 2, 3, 1)
