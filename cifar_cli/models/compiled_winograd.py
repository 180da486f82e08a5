"""Winograd's convolutions by compiled code: transforms and products of a few images in one go.

torch can only transform tiles by matrix products, most of whose factors are zeros and ones; that
takes as long as the products of the convolution themselves. `tiles.c` has the same as straight
lines of vector operations, and `winograd.c` takes them together with the products, a few images a
thread at a time: unless a layer is wide, their tiles never leave the caches.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor
from torch.nn import functional as F

from cifar_cli.models import native
from cifar_cli.models.tiles import Layer, padded, scratch, transforms

TILES = 32  # of a block of images, at least; more for wide layers, whose filters are large
SUMS = 128  # output channels whose sums are taken together, at most; a whole number of panels
MOST_SUMS = 2**27  # numbers in the filters' gradients of all threads: 512 MiB


class CLayer(ctypes.Structure):
    """`layer` of `tiles.h`."""

    _fields_ = [
        (name, ctypes.c_long)
        for name in (
            *("images", "height", "width", "inputs", "outputs", "reflect", "down", "across"),
            *("threads", "blocks", "rows", "input_row", "sum_row", "room"),
        )
    ]


class CompiledWinograd:
    """`Winograd` by compiled code, which must have been loaded, for all images of a batch at once.

    Args:
        layer: Its sizes.
        weight: float32 (K, C, 3, 3).

    Raises:
        ValueError: The tiles of a pooled layer have odd sides.
    """

    def __init__(self, layer: Layer, weight: Tensor) -> None:
        if layer.pool and layer.side % 2:
            raise ValueError(f"tiles of {layer.side} x {layer.side} pixels cannot be pooled")
        self.layer, self.weight, self.library = layer, weight, native.library()
        self.panel = ctypes.c_long.in_dll(self.library, "panel").value
        self.images = layer.batch
        """How many can be handled at a time: all."""
        self.spread, self.kernel = (layer.side + 2) ** 2, transforms(layer.side).kernel
        # A last row or column that no pooling takes in is not computed.
        rows, columns = ((n - n % 2 if layer.pool else n) for n in (layer.height, layer.width))
        self.grid = -(-rows // layer.side), -(-columns // layer.side)
        self.tiles = self.grid[0] * self.grid[1]
        """Of an image."""
        self.of_filters: Tensor | None = None

    def forward(self, x: Tensor, out: Tensor, places: Tensor | None) -> None:
        """Convolve images (B, C, H, W), channels last, into `out`, (B, H, W, K), pooled where there
        are `places`, uint8, to write too."""
        sizes = self._sizes(torch.get_num_threads(), min(SUMS, self._padded(self.layer.outputs)))
        filters = self._filters(self.weight.permute(2, 3, 1, 0))
        self._call("forward", sizes, x, filters, out, places, _scratch(sizes))

    def backward(
        self, x: Tensor, gradient: Tensor, places: Tensor | None, of_x: Tensor | None
    ) -> None:
        """Take the filters' gradient, and write the images' where it is wanted."""
        columns = self._padded(self.layer.outputs)
        of_thread = self.spread * self.layer.inputs * columns
        tiles = self.layer.batch * self.tiles
        # Each thread has sums of its own, which have to pay, and to fit.
        most = max(1, min(torch.get_num_threads(), tiles // TILES, MOST_SUMS // of_thread))
        sizes = self._sizes(most, columns)
        filters = None if of_x is None else self._filters(self.weight.permute(2, 3, 0, 1))
        shape = sizes.threads, self.spread, self.layer.inputs * columns
        self.of_filters = torch.zeros(shape, dtype=torch.float32, device="cpu")
        memory = _scratch(sizes)
        self._call("backward", sizes, x, gradient, places, filters, of_x, self.of_filters, memory)

    def of_weight(self) -> Tensor:
        """The gradient of `weight`, after `backward`."""
        assert self.of_filters is not None
        inputs, outputs = self.layer.inputs, self.layer.outputs
        flat = (self.kernel.T @ self.of_filters).sum(0)
        return flat.view(3, 3, inputs, -1)[..., :outputs].permute(3, 2, 0, 1)

    def _sizes(self, most_threads: int, sums: int) -> CLayer:
        """How the work is divided among threads, with `sums` sums at a time."""
        layer, tiles = self.layer, self.tiles
        # Filters, or their gradients, go through the caches once for a block.
        wanted = max(TILES, min(layer.inputs, layer.outputs) // 2)
        threads = min(most_threads, layer.batch)
        blocks = -(-layer.batch // max(1, round(wanted / tiles)))
        blocks = min(layer.batch, -(-blocks // threads) * threads)
        if threads < torch.get_num_threads():
            blocks = threads  # torch's team is kept as it is; more blocks would go to others too
        # An odd number: else the places of a tile, which are written in turn, would lie a power of
        # two apart, and share a few lines of the cache.
        rows = -(-layer.batch // blocks) * tiles | 1
        input_row = self._padded(layer.inputs)
        room = self.spread * rows * (input_row + sums)
        sizes = (layer.batch, layer.height, layer.width, layer.inputs, layer.outputs, layer.reflect)
        return CLayer(*sizes, *self.grid, threads, blocks, rows, input_row, sums, room)

    def _filters(self, weight: Tensor) -> Tensor:
        """Filters (3, 3, depth, columns) where products are taken, in panels of columns.

        Returns:
            (n^2, panels * depth * panel).
        """
        depth, columns = weight.shape[2:]
        if missing := self._padded(columns) - columns:
            weight = F.pad(weight, (0, missing))  # which copies even where nothing is missing
        panels = weight.reshape(9, depth, -1, self.panel).transpose(1, 2)
        return self.kernel @ panels.reshape(9, -1)

    def _padded(self, columns: int) -> int:
        return padded(columns, self.panel)

    def _call(self, name: str, sizes: CLayer, *tensors: Tensor | None) -> None:
        pointers = [None if t is None else t.data_ptr() for t in tensors]
        function = getattr(self.library, f"{name}_{self.layer.side}")
        function(ctypes.byref(sizes), *map(ctypes.c_void_p, pointers))


def _scratch(sizes: CLayer) -> Tensor:
    """Memory for the tiles of all threads."""
    (memory,) = scratch((sizes.threads * sizes.room,))
    return memory
