"""Convolutions 3x3 with a fraction of the multiplications: Winograd's minimal filtering.

An output tile of m x m pixels takes (m + 2)^2 products a pair of channels instead of 9 m^2, a
quarter for m = 4, at the price of a linear transform of each input tile, filter, and output tile
(A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015,
https://arxiv.org/abs/1509.09308). The products of all tiles are one batched matrix product, and so
are both gradients. The result is that of the direct way up to rounding.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from cifar_cli.models.tiles import Layer, TorchTiles, padded, transforms
from cifar_cli.models.toom_cook import SIDES

MOST_TILES = 1024  # of one image; with more, the memory for them would grow beyond the caches
MOVES = 24
"""Moving an element to and from a tile costs about as much as so many multiply-adds, and torch's
transforms take one for each other element of the tile besides. Compiled, it is a sixth of `MOVES`
and an eighth of the elements of a tile."""
LANES, PANEL = 8, 32
"""Channels that compiled code moves, and outputs that it computes, together."""


@lru_cache(maxsize=256)
def best_side(
    height: int,
    width: int,
    inputs: int,
    outputs: int,
    *,
    compiled: bool = False,
    pool: bool = False,
) -> int | None:
    """Side of the output tiles that are estimated to cost least; None: the direct way does.

    `compiled` says whether it is done by compiled code, which pools within a tile, if at all.
    """
    if min(height, width) < 2:
        return None
    in_tiles = compiled and pool
    rows, columns = (n - n % 2 if in_tiles else n for n in (height, width))

    def tiles(side: int) -> int:
        return -(-rows // side) * -(-columns // side)

    def cost(side: int) -> int:
        spread = (side + 2) ** 2
        products, moves = inputs * outputs, (MOVES + spread) * (inputs + outputs)
        if compiled:
            products = inputs * padded(outputs, PANEL)
            moved = padded(inputs, LANES) + padded(outputs, LANES)
            moves = (4 * MOVES + 3 * spread) * moved // 24
        return tiles(side) * spread * (products + moves)

    best = min((side for side in SIDES if not (in_tiles and side % 2)), key=cost)
    fits = tiles(best) <= MOST_TILES
    return best if fits and cost(best) < 9 * height * width * inputs * outputs else None


def _filters(weight: Tensor, side: int) -> Tensor:
    """Filters (K, C, 3, 3) where products are taken: (n^2, C, K)."""
    outputs, inputs = weight.shape[:2]
    flat = weight.permute(2, 3, 1, 0).reshape(9, inputs * outputs)
    return (transforms(side).kernel @ flat).view(-1, inputs, outputs)


class Winograd:
    """A convolution, and its gradients, for a few images at a time.

    Images are (B, C, H, W), channels last; outputs and gradients (B, H, W, channels).

    Args:
        layer: Its sizes.
        weight: float32 (K, C, 3, 3).
    """

    def __init__(self, layer: Layer, weight: Tensor) -> None:
        self.filters = _filters(weight, layer.side)
        self.of_filters: Tensor | None = None
        self.kernel = transforms(layer.side).kernel
        self.tiles = TorchTiles(layer)
        self.images = self.tiles.images
        """How many can be handled at a time."""

    def forward(self, x: Tensor, out: Tensor, places: Tensor | None) -> None:
        """Convolve up to `images` of the images into `out`, pooled where there are `places`."""
        sums = self.tiles.room(len(x))
        torch.bmm(self.tiles.read_images(x), self.filters, out=sums)
        self.tiles.write_outputs(sums, out, places)

    def backward(
        self, x: Tensor, gradient: Tensor, places: Tensor | None, of_x: Tensor | None
    ) -> None:
        """Add to the filters' gradient, and write the images' where it is wanted."""
        tiles = self.tiles.read_images(x)
        sums = self.tiles.read_gradients(gradient, places)
        if self.of_filters is None:
            self.of_filters = torch.zeros_like(self.filters)
        count = len(x) * self.tiles.tiles
        self.of_filters.baddbmm_(tiles[:, :count].transpose(1, 2), sums[:, :count])
        if of_x is not None:
            torch.bmm(sums, self.filters.transpose(1, 2), out=tiles)
            self.tiles.write_gradients(tiles, of_x)

    def of_weight(self) -> Tensor:
        """The gradient of `weight` over all calls of `backward`."""
        assert self.of_filters is not None
        _, inputs, outputs = self.filters.shape
        flat = self.kernel.T @ self.of_filters.flatten(1)
        return flat.view(3, 3, inputs, outputs).permute(3, 2, 0, 1)
