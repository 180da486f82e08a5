"""Winograd's convolutions by compiled code: transforms and products of a few images in one go.

torch can only transform tiles by matrix products, most of whose factors are zeros and ones; that
takes as long as the products of the convolution themselves. `tiles.c` has the same as straight
lines of vector operations, and `winograd.c` takes them together with the products, for so few
images that the tiles never leave the caches.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor
from torch.nn import functional as F

from cifar_cli.models import native
from cifar_cli.models.tiles import Layer, scratch, transforms

TILES = 32  # of a block of images, at least; many for wide layers, whose filters are large
SUMS = 128  # output channels whose sums are taken together, at most; a whole number of panels


class _Sizes(ctypes.Structure):
    """`layer` of `tiles.h`."""

    _fields_ = [
        (name, ctypes.c_long)
        for name in (
            *("images", "height", "width", "inputs", "outputs", "reflect", "down", "across"),
            *("threads", "blocks", "rows", "input_row", "sum_row", "room"),
        )
    ]


class CompiledWinograd:
    """`Winograd` by compiled code, which must have been loaded; pooled, sides must be even.

    Args:
        layer: Its sizes.
        weight: float32 (K, C, 3, 3).
    """

    def __init__(self, layer: Layer, weight: Tensor) -> None:
        assert not (layer.pool and layer.side % 2)
        self.layer, self.weight, self.library = layer, weight, native.library()
        self.panel = ctypes.c_long.in_dll(self.library, "panel").value
        self.images = layer.batch
        """How many can be handled at a time."""
        self.spread, self.kernel = (layer.side + 2) ** 2, transforms(layer.side).kernel
        # A last row or column that no pooling takes in is not computed.
        rows, columns = ((n - n % 2 if layer.pool else n) for n in (layer.height, layer.width))
        self.grid = -(-rows // layer.side), -(-columns // layer.side)
        self.of_filters: Tensor | None = None

    def forward(self, x: Tensor, out: Tensor, places: Tensor | None) -> None:
        """Convolve images (B, C, H, W), channels last, into `out`, (B, H, W, K), pooled where there
        are `places`, uint8, to write too."""
        sizes, memory = self._sizes(min(SUMS, self._whole(self.layer.outputs)))
        filters = self._filters(self.weight.permute(2, 3, 1, 0))
        self._call("forward", sizes, x, filters, out, places, memory)

    def backward(
        self, x: Tensor, gradient: Tensor, places: Tensor | None, of_x: Tensor | None
    ) -> None:
        """Add to the filters' gradient, and write the images' where it is wanted."""
        sizes, memory = self._sizes(self._whole(self.layer.outputs))
        filters = None if of_x is None else self._filters(self.weight.permute(2, 3, 0, 1))
        if self.of_filters is None:
            of_one = self.spread, self.layer.inputs * self._whole(self.layer.outputs)
            self.of_filters = memory.new_zeros(sizes.threads, *of_one)
        tensors = x, gradient, places, filters, of_x, self.of_filters, memory
        self._call("backward", sizes, *tensors)

    def of_weight(self) -> Tensor:
        """The gradient of `weight` over all calls of `backward`."""
        assert self.of_filters is not None
        inputs, outputs = self.layer.inputs, self.layer.outputs
        flat = (self.kernel.T @ self.of_filters).sum(0)
        return flat.view(3, 3, inputs, -1)[..., :outputs].permute(3, 2, 0, 1)

    def _sizes(self, sums: int) -> tuple[_Sizes, Tensor]:
        """With `sums` sums at a time, and scratch memory for the tiles of all threads."""
        layer, (down, across) = self.layer, self.grid
        tiles, most = down * across, torch.get_num_threads()
        # Gradients of filters go through the caches once for a block.
        wanted = max(TILES, min(layer.inputs, layer.outputs) // 2)
        threads = max(1, min(most, layer.batch, layer.batch * tiles // TILES))
        blocks = -(-layer.batch // max(1, round(wanted / tiles)))
        blocks = min(layer.batch, -(-blocks // threads) * threads)
        # An odd number: else the places of a tile, which are written in turn, would lie a power of
        # two apart, and share a few lines of the cache.
        rows = -(-layer.batch // blocks) * tiles | 1
        input_row = self._whole(layer.inputs)
        room = self.spread * rows * (input_row + sums)
        (memory,) = scratch((threads * room,))
        sizes = (layer.batch, layer.height, layer.width, layer.inputs, layer.outputs, layer.reflect)
        return _Sizes(*sizes, *self.grid, threads, blocks, rows, input_row, sums, room), memory

    def _filters(self, weight: Tensor) -> Tensor:
        """Filters (3, 3, depth, columns) where products are taken, in panels of columns.

        Returns:
            (n^2, panels * depth * panel).
        """
        depth, columns = weight.shape[2:]
        whole = F.pad(weight, (0, self._whole(columns) - columns))
        panels = whole.reshape(9, depth, -1, self.panel).transpose(1, 2)
        return self.kernel @ panels.reshape(9, -1)

    def _whole(self, columns: int) -> int:
        """Columns of whole panels."""
        return -(-columns // self.panel) * self.panel

    def _call(self, name: str, sizes: _Sizes, *tensors: Tensor | None) -> None:
        pointers = [None if t is None else t.data_ptr() for t in tensors]
        function = getattr(self.library, f"{name}_{self.layer.side}")
        function(ctypes.byref(sizes), *map(ctypes.c_void_p, pointers))
