"""Convolutions 3x3 with a fraction of the multiplications: Winograd's minimal filtering.

An output tile of m x m pixels takes (m + 2)^2 products a pair of channels instead of 9 m^2, a
quarter for m = 4, at the price of a linear transform of each input tile, filter, and output tile
(A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015,
https://arxiv.org/abs/1509.09308). The products of all tiles are one batched matrix product, and so
are both gradients. The result is that of the direct way up to rounding.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

MOST_TILES = 1024  # of one image; with more, the memory for them would grow beyond the caches
TILES = 256  # handled at a time, at least: few enough for the caches, enough for the products
POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))
SIDES = (2, 3, 4, 5, 6)  # of an output tile; beyond them, rounding grows
MOVES = 24  # moving an element to and from a tile costs about as much as so many multiply-adds


@lru_cache(maxsize=256)
def best_side(height: int, width: int, inputs: int, outputs: int) -> int | None:
    """Side of the output tiles that are estimated to cost least; None: the direct way does."""
    if min(height, width) < 2:
        return None

    def tiles(side: int) -> int:
        return -(-height // side) * -(-width // side)

    def cost(side: int) -> int:
        spread = (side + 2) ** 2
        return tiles(side) * spread * (inputs * outputs + (spread + MOVES) * (inputs + outputs))

    best = min(SIDES, key=cost)
    fits = tiles(best) <= MOST_TILES
    return best if fits and cost(best) < 9 * height * width * inputs * outputs else None


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
    """Toom and Cook's: polynomials are evaluated at `POINTS` and infinity, and interpolated."""
    n = side + 2
    points = [Fraction(p) for p in POINTS[: n - 1]]
    interpolation = _inverse([_powers(p, n) for p in points] + [_powers(None, n)])
    image, kernel, output = [], [], []
    for index, point in enumerate([*points, None]):
        row = [interpolation[power][index] for power in range(n)]
        denominator = Fraction(1, max(value.denominator for value in row))
        image.append([value / denominator for value in row])  # small whole numbers, exact
        kernel.append([value * denominator for value in _powers(point, 3)])
        output.append(_powers(point, side))
    with torch.inference_mode(False):
        one = [
            torch.tensor([[float(v) for v in row] for row in m]) for m in (image, kernel, output)
        ]
        image2d, kernel2d, output2d = (torch.kron(m, m) for m in one)
        return Transforms(image2d, kernel2d, output2d.T.contiguous())


def _powers(point: Fraction | None, count: int) -> list[Fraction]:
    """1, p, p^2, ...; at infinity the highest one alone."""
    if point is None:
        return [Fraction(0)] * (count - 1) + [Fraction(1)]
    return [point**power for power in range(count)]


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """Of a square matrix, exactly (Gauss and Jordan)."""
    size = len(matrix)
    rows = [[*row, *(Fraction(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = next(k for k in range(i, size) if rows[k][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for k in range(size):
            if k != i:
                factor = rows[k][i]
                rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    return [row[size:] for row in rows]


def _filters(weight: Tensor, side: int) -> Tensor:
    """Filters (K, C, 3, 3) where products are taken: (n^2, C, K)."""
    outputs, inputs = weight.shape[:2]
    flat = weight.permute(2, 3, 1, 0).reshape(9, inputs * outputs)
    return (transforms(side).kernel @ flat).view(-1, inputs, outputs)


_kept = threading.local()


def _scratch(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Uninitialised float32 tensors, in one piece of memory that each thread keeps and reuses.

    Fresh memory would have to be mapped page by page in every layer of every step.
    """
    sizes = [math.prod(shape) for shape in shapes]
    memory: Tensor | None = getattr(_kept, "memory", None)
    if memory is None or len(memory) < sum(sizes):
        memory = _kept.memory = None  # before there is more of it
        with torch.inference_mode(False):  # what is made in that mode cannot be used out of it
            memory = _kept.memory = torch.empty(sum(sizes))
    parts = torch.split(memory[: sum(sizes)], sizes)
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


class Winograd:
    """Convolution with a border of one pixel, and its gradients, for a few images at a time.

    Images and outputs are (B, H, W, channels) here, and tiles (tiles, pixels, channels). Nothing of
    it outlives the next one in the same thread: all share one piece of memory.

    Args:
        x: float32 (B, C, H, W), channels last, on a CPU: all images.
        weight: float32 (K, C, 3, 3).
        side: Of an output tile, one of `SIDES`.
        reflect: Whether the border holds the image's own pixels, or zeros.
    """

    def __init__(self, x: Tensor, weight: Tensor, side: int, reflect: bool) -> None:
        batch, channels, self.height, self.width = x.shape
        self.side, self.spread, self.reflect = side, side + 2, reflect
        self.down, self.across = -(-self.height // side), -(-self.width // side)
        self.filters = _filters(weight, side)
        self.of_filters: Tensor | None = None
        self.transforms = transforms(side)
        wanted = max(TILES, min(channels, len(weight)))
        self.images = min(batch, max(1, wanted // (self.down * self.across)))
        """How many can be handled at a time."""
        tiles = self.images * self.down * self.across
        rows, columns = self.down * side, self.across * side
        self.is_whole = (rows, columns) == (self.height, self.width)
        self.padded, self.whole, self.pixels, self.tiles, self.sums, self.out = _scratch(
            (self.images, rows + 2, columns + 2, channels),
            (0 if self.is_whole else self.images, rows, columns, len(weight)),
            (tiles, self.spread**2, channels),
            (tiles, self.spread**2, channels),
            (tiles, self.spread**2, len(weight)),
            (tiles, side**2, len(weight)),
        )
        self.padded.zero_()
        self.whole.zero_()

    def forward(self, x: Tensor, out: Tensor) -> None:
        """Convolve up to `images` of the images into `out`, (B, H, W, K)."""
        tiles = self._image_tiles(x)
        sums = self.sums[: len(tiles)]
        torch.bmm(tiles.transpose(0, 1), self.filters, out=sums.transpose(0, 1))
        self._write_output(sums, out)

    def backward(self, x: Tensor, gradient: Tensor, of_x: Tensor | None) -> None:
        """Add to the filters' gradient, and write the images' where it is wanted."""
        tiles = self._image_tiles(x)
        sums = self._read_output(gradient).transpose(0, 1)
        if self.of_filters is None:
            self.of_filters = torch.zeros_like(self.filters)
        self.of_filters.baddbmm_(tiles.permute(1, 2, 0), sums)
        if of_x is not None:
            torch.bmm(sums, self.filters.transpose(1, 2), out=tiles.transpose(0, 1))
            self._write_image(tiles, of_x)

    def of_weight(self) -> Tensor:
        """The gradient of `weight` over all calls of `backward`."""
        assert self.of_filters is not None
        _, inputs, outputs = self.filters.shape
        flat = self.transforms.kernel.T @ self.of_filters.flatten(1)
        return flat.view(3, 3, inputs, outputs).permute(3, 2, 0, 1)

    def _image_tiles(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to transformed tiles, (tiles, n^2, C)."""
        padded, (h, w) = self.padded[: len(x)], (self.height, self.width)
        padded[:, 1 : h + 1, 1 : w + 1] = x.permute(0, 2, 3, 1)
        if self.reflect:
            padded[:, 0], padded[:, h + 1] = padded[:, 2], padded[:, h - 1]
            padded[:, :, 0], padded[:, :, w + 1] = padded[:, :, 2], padded[:, :, w - 1]
        pixels = self._pixels(len(x))
        pixels.copy_(self._windows(padded, 0, 0, self.spread, self.spread))
        return _transformed(self.transforms.image, pixels.flatten(0, 2).flatten(1, 2), self.tiles)

    def _write_image(self, tiles: Tensor, of_x: Tensor) -> None:
        """The gradient of transformed tiles to that of the images; `_image_tiles` transposed."""
        padded, m, (h, w) = self.padded[: len(of_x)], self.side, (self.height, self.width)
        _transformed(self.transforms.image.T, tiles, self.pixels)
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

    def _write_output(self, sums: Tensor, out: Tensor) -> None:
        """Sums of products (tiles, n^2, K) to outputs (B, H, W, K)."""
        whole = out if self.is_whole else self.whole[: len(out)]
        _transformed(self.transforms.output, sums, self.out)
        self._blocks(whole).copy_(self._outputs(len(out)))
        if not self.is_whole:
            out.copy_(whole[:, : self.height, : self.width])

    def _read_output(self, gradient: Tensor) -> Tensor:
        """The gradient of outputs (B, H, W, K) to that of the sums; `_write_output` transposed."""
        whole = gradient
        if not self.is_whole:
            whole = self.whole[: len(gradient)]
            whole[:, : self.height, : self.width] = gradient
        out = self._outputs(len(gradient))
        out.copy_(self._blocks(whole))
        return _transformed(self.transforms.output.T, out.flatten(0, 2).flatten(1, 2), self.sums)

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
        return self.pixels[: images * self.down * self.across].view(shape)

    def _outputs(self, images: int) -> Tensor:
        shape = (images, self.down, self.across, self.side, self.side, -1)
        return self.out[: images * self.down * self.across].view(shape)

    def _blocks(self, whole: Tensor) -> Tensor:
        """Outputs (B, H, W, K) by tile: (B, down, across, m, m, K), a view."""
        shape = (len(whole), self.down, self.side, self.across, self.side, -1)
        return whole.view(shape).transpose(2, 3)


def _transformed(matrix: Tensor, tiles: Tensor, out: Tensor) -> Tensor:
    """`matrix` applied to the pixels of each tile, written into the first rows of `out`."""
    out = out[: len(tiles)]
    torch.bmm(matrix.expand(len(tiles), -1, -1), tiles, out=out)
    return out
