"""Winograd's minimal filtering by torch's own operations, for machines without a C compiler.

An output tile of m x m pixels takes (m + 2)^2 products per pair of channels in place of 9 m^2, a
quarter for m = 4, at the price of a linear transform of each input tile, filter, and output tile
(A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015,
https://arxiv.org/abs/1509.09308). The products of all tiles are one batched GEMM, and so are both
gradients. The result equals direct convolution up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cifar_cli.kernels.layer import Layer, scratch
from cifar_cli.kernels.transforms import transforms

TILES = 256  # handled at a time, at least: few enough for the caches, enough for the GEMMs


def _filters(weight: Tensor, m: int) -> Tensor:
    """Filters (K, C, 3, 3) where products are taken: (n^2, C, K)."""
    outputs, inputs = weight.shape[:2]
    flat = weight.permute(2, 3, 1, 0).reshape(9, inputs * outputs)
    return (transforms(m).kernel @ flat).view(-1, inputs, outputs)


class Winograd:
    """A convolution, and its gradients, for a few images at a time.

    Images are (B, C, H, W), channels last; outputs and gradients (B, H, W, channels).

    Args:
        layer: Its sizes.
        weight: float32 (K, C, 3, 3).
    """

    def __init__(self, layer: Layer, weight: Tensor) -> None:
        self.filters = _filters(weight, layer.m)
        self.filter_gradients: Tensor | None = None
        self.kernel = transforms(layer.m).kernel
        self.tiles = TorchTiles(layer)
        self.images = self.tiles.images
        """How many can be handled at a time."""

    def forward(self, x: Tensor, out: Tensor, argmax: Tensor | None) -> None:
        """Convolve up to `images` images into `out`, pooled if there is `argmax` to write too."""
        products = self.tiles.products_of(len(x))
        torch.bmm(self.tiles.read_images(x), self.filters, out=products)
        self.tiles.write_outputs(products, out, argmax)

    def backward(
        self, x: Tensor, gradient: Tensor, argmax: Tensor | None, x_gradient: Tensor | None
    ) -> None:
        """Add to the filters' gradient, and write the images' if it is wanted."""
        tiles = self.tiles.read_images(x)
        products = self.tiles.read_gradients(gradient, argmax)
        if self.filter_gradients is None:
            self.filter_gradients = torch.zeros_like(self.filters)
        count = len(x) * self.tiles.tiles
        self.filter_gradients.baddbmm_(tiles[:, :count].transpose(1, 2), products[:, :count])
        if x_gradient is not None:
            torch.bmm(products, self.filters.transpose(1, 2), out=tiles)
            self.tiles.write_gradients(tiles, x_gradient)

    def weight_gradient(self) -> Tensor:
        """The gradient of `weight` over all calls of `backward`."""
        assert self.filter_gradients is not None
        _, inputs, outputs = self.filters.shape
        flat = self.kernel.T @ self.filter_gradients.flatten(1)
        return flat.view(3, 3, inputs, outputs).permute(3, 2, 0, 1)


class TorchTiles:
    """Transformed tiles of a few images at a time.

    Images are (B, C, H, W), channels last; outputs and gradients (B, H, W, channels). Nothing of it
    outlives the next one in the same thread: all share one memory.
    """

    def __init__(self, layer: Layer) -> None:
        self.height, self.width = layer.height, layer.width
        self.m, self.tile, self.reflect = layer.m, layer.m + 2, layer.reflect
        self.down, self.across = -(-self.height // self.m), -(-self.width // self.m)
        self.tiles = self.down * self.across
        """Of an image."""
        self.transforms = transforms(layer.m)
        wanted = max(TILES, min(layer.inputs, layer.outputs))
        self.images = min(layer.batch, max(1, wanted // self.tiles))
        """How many can be handled at a time."""
        tiles = self.images * self.tiles
        rows, columns = self.down * self.m, self.across * self.m
        self.is_whole = (rows, columns) == (self.height, self.width)
        pooled = self.images if layer.pool else 0
        parts = scratch(
            (self.images, rows + 2, columns + 2, layer.inputs),
            (0 if self.is_whole else self.images, rows, columns, layer.outputs),
            (tiles, self.tile**2, layer.inputs),
            (tiles, self.tile**2, layer.inputs),
            (tiles, self.tile**2, layer.outputs),
            (tiles, self.m**2, layer.outputs),
            (pooled, self.height, self.width, layer.outputs),
        )
        self.padded, self.whole, self.pixels, self.inputs, *rest = parts
        self.products, self.out, self.between = rest
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
        pixels.copy_(self._windows(padded, 0, 0, self.tile, self.tile))
        flat = pixels.flatten(0, 2).flatten(1, 2)
        return _transformed(self.transforms.image, flat, self.inputs).transpose(0, 1)

    def products_of(self, images: int) -> Tensor:
        """Memory for the products of so many images, summed over inputs: (n^2, tiles, K)."""
        return self.products[: images * self.tiles].transpose(0, 1)

    def write_outputs(self, products: Tensor, out: Tensor, argmax: Tensor | None) -> None:
        """Products to outputs (B, H, W, K), pooled if there is `argmax` to write too."""
        pixels = out if argmax is None else self.between[: len(out)]
        whole = pixels if self.is_whole else self.whole[: len(out)]
        _transformed(self.transforms.output, products.transpose(0, 1), self.out)
        self._blocks(whole).copy_(self._outputs(len(out)))
        if not self.is_whole:
            pixels.copy_(whole[:, : self.height, : self.width])
        if argmax is not None:
            pool_into(pixels, out, argmax)

    def read_gradients(self, gradient: Tensor, argmax: Tensor | None) -> Tensor:
        """The gradient of outputs to that of the products; `write_outputs` transposed."""
        if argmax is not None:
            gradient = unpool(gradient, argmax, (self.height, self.width))
        whole = gradient
        if not self.is_whole:
            whole = self.whole[: len(gradient)]
            whole[:, : self.height, : self.width] = gradient
        out = self._outputs(len(gradient))
        out.copy_(self._blocks(whole))
        flat = out.flatten(0, 2).flatten(1, 2)
        return _transformed(self.transforms.output.T, flat, self.products).transpose(0, 1)

    def write_gradients(self, tiles: Tensor, x_gradient: Tensor) -> None:
        """The gradient of transformed tiles to that of the images; `read_images` transposed."""
        padded, m, (h, w) = self.padded[: len(x_gradient)], self.m, (self.height, self.width)
        _transformed(self.transforms.image.T, tiles.transpose(0, 1), self.pixels)
        pixels = self._pixels(len(x_gradient))
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
        x_gradient.copy_(padded[:, 1 : h + 1, 1 : w + 1])
        padded[:, 0], padded[:, h + 1 :] = 0, 0
        padded[:, :, 0], padded[:, :, w + 1 :] = 0, 0

    def _windows(self, padded: Tensor, row: int, column: int, height: int, width: int) -> Tensor:
        """View of a window in each tile, (B, down, across, height, width, C)."""
        batch, across, along, one = padded.stride()
        m, channels = self.m, padded.shape[3]
        return padded.as_strided(
            (len(padded), self.down, self.across, height, width, channels),
            (batch, m * across, m * along, across, along, one),
            padded.storage_offset() + row * across + column * along,
        )

    def _pixels(self, images: int) -> Tensor:
        shape = (images, self.down, self.across, self.tile, self.tile, -1)
        return self.pixels[: images * self.tiles].view(shape)

    def _outputs(self, images: int) -> Tensor:
        shape = (images, self.down, self.across, self.m, self.m, -1)
        return self.out[: images * self.tiles].view(shape)

    def _blocks(self, whole: Tensor) -> Tensor:
        """Outputs (B, H, W, K) by tile: (B, down, across, m, m, K), a view."""
        shape = (len(whole), self.down, self.m, self.across, self.m, -1)
        return whole.view(shape).transpose(2, 3)


def _transformed(matrix: Tensor, tiles: Tensor, out: Tensor) -> Tensor:
    """`matrix` applied to the pixels of each tile, written into the first rows of `out`."""
    out = out[: len(tiles)]
    torch.bmm(matrix.expand(len(tiles), -1, -1), tiles, out=out)
    return out


def pool_into(pixels: Tensor, out: Tensor, argmax: Tensor) -> None:
    """Max-pool (B, H, W, K) into `out`, with the indices of the maxima, both (B, H//2, W//2, K)."""
    pixels, out, argmax = (t.permute(0, 3, 1, 2) for t in (pixels, out, argmax))
    torch.ops.aten.max_pool2d_with_indices(pixels, [2, 2], out=out, indices=argmax)


def unpool(gradient: Tensor, argmax: Tensor, size: tuple[int, int]) -> Tensor:
    """The gradient of what `pool_into` had pooled, (B, H, W, K)."""
    gradient, argmax = gradient.permute(0, 3, 1, 2), argmax.permute(0, 3, 1, 2)
    pixels = gradient.new_empty(len(gradient), *size, gradient.shape[1]).permute(0, 3, 1, 2)
    two, one = [2, 2], [1, 1]
    unpooled: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
        gradient, pixels, two, two, [0, 0], one, False, argmax
    )
    return unpooled.permute(0, 2, 3, 1)
