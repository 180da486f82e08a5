"""Winograd's minimal filtering by compiled code: transforms and GEMMs of a few images at a time.

torch can only transform tiles by matrix products, most of whose factors are zeros and ones; that
takes as long as the GEMMs of the convolution themselves. The C code has straight lines of vector
operations instead, and a thread takes a few images at a time through transforms and GEMMs: unless a
layer is wide, their tiles never leave the caches.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from cifar_cli.kernels import library
from cifar_cli.kernels.layer import Layer, padded, scratch
from cifar_cli.kernels.library import Plan
from cifar_cli.kernels.transforms import transforms

MIN_TILES = 32  # of a block of images; more for wide layers, whose filters are large
MAX_OUTPUTS = 128  # channels whose products are taken together; a whole number of panels
MAX_GRADIENTS = 2**27  # numbers in the filters' gradients of all threads: 512 MiB


class CompiledWinograd:
    """A convolution, and its gradients, for all images of a batch at once.

    Args:
        layer: Its sizes.
        weight: float32 (K, C, 3, 3).

    Raises:
        ValueError: The layer is pooled and m is odd.
    """

    def __init__(self, layer: Layer, weight: Tensor) -> None:
        if layer.pool and layer.m % 2:
            raise ValueError(f"tiles of {layer.m} x {layer.m} pixels cannot be pooled")
        self.layer, self.weight, self.library = layer, weight, library.loaded()
        self.panel = ctypes.c_long.in_dll(self.library, "panel").value
        self.images = layer.batch
        """How many can be handled at a time: all."""
        self.tile_area, self.kernel = (layer.m + 2) ** 2, transforms(layer.m).kernel
        # A last row or column that no pooling takes in is not computed.
        rows, columns = ((n - n % 2 if layer.pool else n) for n in (layer.height, layer.width))
        self.grid = -(-rows // layer.m), -(-columns // layer.m)
        self.tiles = self.grid[0] * self.grid[1]
        """Of an image."""
        self.filter_gradients: Tensor | None = None

    def forward(self, x: Tensor, out: Tensor, argmax: Tensor | None) -> None:
        """Convolve images (B, C, H, W), channels last, into `out`, (B, H, W, K), pooled if there is
        `argmax`, uint8, for the indices of the maxima."""
        plan = self.plan(
            torch.get_num_threads(), min(MAX_OUTPUTS, self._padded(self.layer.outputs))
        )
        filters = self._filters(self.weight.permute(2, 3, 1, 0))
        _call(self.library.winograd_forward, plan, x, filters, out, argmax, _scratch(plan))

    def backward(
        self, x: Tensor, gradient: Tensor, argmax: Tensor | None, x_gradient: Tensor | None
    ) -> None:
        """Take the filters' gradient, and write the images' if it is wanted."""
        columns = self._padded(self.layer.outputs)
        floats = self.tile_area * self.layer.inputs * columns
        tiles = self.layer.batch * self.tiles
        # Each thread has gradients of its own, which have to pay, and to fit.
        threads = min(torch.get_num_threads(), tiles // MIN_TILES, MAX_GRADIENTS // floats)
        plan = self.plan(max(1, threads), columns)
        filters = None if x_gradient is None else self._filters(self.weight.permute(2, 3, 0, 1))
        shape = plan.threads, self.tile_area, self.layer.inputs * columns
        self.filter_gradients = torch.zeros(shape, dtype=torch.float32, device="cpu")
        tensors = x, gradient, argmax, filters, x_gradient, self.filter_gradients, _scratch(plan)
        _call(self.library.winograd_backward, plan, *tensors)

    def weight_gradient(self) -> Tensor:
        """The gradient of `weight`, after `backward`."""
        assert self.filter_gradients is not None
        inputs, outputs = self.layer.inputs, self.layer.outputs
        flat = (self.kernel.T @ self.filter_gradients).sum(0)
        return flat.view(3, 3, inputs, -1)[..., :outputs].permute(3, 2, 0, 1)

    def plan(self, max_threads: int, output_stride: int) -> Plan:
        """How the work is divided among threads, with so many outputs at a time."""
        layer, tiles = self.layer, self.tiles
        # Filters, or their gradients, go through the caches once per block.
        wanted = max(MIN_TILES, min(layer.inputs, layer.outputs) // 2)
        threads = min(max_threads, layer.batch)
        blocks = -(-layer.batch // max(1, round(wanted / tiles)))
        blocks = min(layer.batch, -(-blocks // threads) * threads)
        if threads < torch.get_num_threads():
            blocks = threads  # torch's team keeps its size; more blocks would go to others too
        # An odd number: else the elements of a tile, which are written in turn, would lie a power
        # of two apart, and share a few lines of the cache.
        block_tiles = -(-layer.batch // blocks) * tiles | 1
        input_stride = self._padded(layer.inputs)
        return Plan(
            m=layer.m,
            images=layer.batch,
            height=layer.height,
            width=layer.width,
            inputs=layer.inputs,
            outputs=layer.outputs,
            reflect=layer.reflect,
            tiles_down=self.grid[0],
            tiles_across=self.grid[1],
            threads=threads,
            blocks=blocks,
            input_stride=input_stride,
            output_stride=output_stride,
            block_tiles=block_tiles,
            scratch=self.tile_area * block_tiles * (input_stride + output_stride),
        )

    def _filters(self, weight: Tensor) -> Tensor:
        """Transformed filters of (3, 3, depth, columns), in panels of columns.

        Returns:
            (tile area, panels * depth * panel).
        """
        depth, columns = weight.shape[2:]
        if missing := self._padded(columns) - columns:
            weight = F.pad(weight, (0, missing))  # which copies even if nothing is missing
        panels = weight.reshape(9, depth, -1, self.panel).transpose(1, 2)
        return self.kernel @ panels.reshape(9, -1)

    def _padded(self, columns: int) -> int:
        return padded(columns, self.panel)


def _call(function: Callable[..., int], plan: Plan, *tensors: Tensor | None) -> None:
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    if not function(plan, *pointers):
        raise ValueError(f"there are no tiles of {plan.m} x {plan.m} pixels")


def _scratch(plan: Plan) -> Tensor:
    """Memory for the tiles of all threads."""
    (memory,) = scratch((plan.threads * plan.scratch,))
    return memory
