"""A convolution 3x3, and the max-pooling after it, as they are quickest on a CPU.

By Winograd's way where that pays. With a pooling, piece by piece: the pixels between the two lie in
the caches and never go to memory, nor does their gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cifar_cli.models import native
from cifar_cli.models.compiled_winograd import CompiledWinograd
from cifar_cli.models.tiles import Layer, pool_into, unpooled
from cifar_cli.models.winograd import Winograd, best_side

PIECE = 2**20  # elements between a convolution and its pooling at a time; 4 MiB


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` that takes the quicker way where it is told to."""

    winograd = False
    """Set by `place_model`, from `runtime.winograd`."""
    compiled = False
    """Whether Winograd's way may use compiled code; likewise, from `runtime.native`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H', W')."""
        side = self._best_side(x, pool=False) if self._has_two_ways(x) else None
        if side is None:
            return super().forward(x)
        return convolve(x, self.weight, side, self.padding_mode, compiled=self._is_compiled)

    def pooled(self, x: Tensor) -> Tensor | None:
        """(B, out_channels, H // 2, W // 2), max-pooled; None where that is not the quicker way."""
        if not self._has_two_ways(x):
            return None
        side, compiled = self._best_side(x, pool=True), self._is_compiled
        if side is None and self.padding_mode != "zeros":
            return None
        return convolve(x, self.weight, side, self.padding_mode, pool=True, compiled=compiled)

    @property
    def _is_compiled(self) -> bool:
        return self.compiled and native.is_loaded()

    def _best_side(self, x: Tensor, *, pool: bool) -> int | None:
        sizes = (*x.shape[2:], self.in_channels, self.out_channels)
        return best_side(*sizes, compiled=self._is_compiled, pool=pool)

    def _has_two_ways(self, x: Tensor) -> bool:
        return (
            self.winograd
            and self.kernel_size == (3, 3)
            and self.padding == (1, 1)
            and self.stride == self.dilation == (1, 1)
            and self.groups == 1
            and self.bias is None
            and self.padding_mode in ("zeros", "reflect")
            and min(x.shape[2:]) > 1
            and len(x) > 0
            and x.device.type == "cpu"
            and x.dtype == torch.float32
            and x.is_contiguous(memory_format=torch.channels_last)
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        )


def start_of_block(layers: Sequence[nn.Module], x: Tensor) -> tuple[Tensor, Sequence[nn.Module]]:
    """Run a block's convolution, and the pooling after it where both can be done in one.

    Returns:
        What comes out, and the layers that are left to run.
    """
    convolution, following, *rest = layers
    if isinstance(convolution, Conv2d) and _halves(following) and are_bare(convolution, following):
        pooled = convolution.pooled(x)
        if pooled is not None:
            return pooled, rest
    return convolution(x), [following, *rest]


def are_bare(*layers: nn.Module) -> bool:
    """Whether nobody looks at these layers' inputs and outputs, so that they need not be called."""
    return not any(
        layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
        or layer._backward_pre_hooks
        for layer in layers
    )  # fmt: skip


def _halves(layer: nn.Module) -> bool:
    return isinstance(layer, nn.MaxPool2d) and (
        (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == (2, 2, 0, 1)
        and not (layer.ceil_mode or layer.return_indices)
    )


def convolve(
    x: Tensor,
    weight: Tensor,
    side: int | None,
    padding_mode: str = "zeros",
    *,
    pool: bool = False,
    compiled: bool = False,
) -> Tensor:
    """Convolution 3x3 with a border of one pixel, and a max-pooling 2x2 after it where asked for.

    Args:
        x: float32 (B, C, H, W), channels last in memory, on a CPU.
        weight: float32 (K, C, 3, 3).
        side: Of the output tiles of Winograd's way; None for the direct way, with zeros only.
        padding_mode: What the border holds, "zeros" or "reflect".
        pool: Whether to pool; by compiled code with even sides only.
        compiled: Whether Winograd's way uses compiled code, which must have been loaded.

    Returns:
        float32 (B, K, H, W) or, pooled, (B, K, H // 2, W // 2), channels last. Both tensors may
        require gradients, once.

    Raises:
        ValueError: `x` or `weight` is not as compiled code needs it, which reads memory as it is.
    """
    tensors = x, weight
    if compiled and not (
        x.is_contiguous(memory_format=torch.channels_last)
        and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
        and min(len(x), x.shape[2] // 2, x.shape[3] // 2) > 0
    ):
        raise ValueError("compiled code takes float32 images, channels last, of 2 x 2 or more")
    out: Tensor = _Convolution.apply(x, weight, side, padding_mode == "reflect", pool, compiled)
    return out


class Direct:
    """The direct way, with the methods of `Winograd`."""

    def __init__(self, layer: Layer, weight: Tensor) -> None:
        self.layer, self.weight = layer, weight
        self.sum: Tensor | None = None
        self.images = min(
            layer.batch, max(1, PIECE // (layer.height * layer.width * layer.outputs))
        )

    def forward(self, x: Tensor, out: Tensor, places: Tensor | None) -> None:
        pixels = F.conv2d(x, self.weight, padding=1).permute(0, 2, 3, 1)
        if places is None:
            out.copy_(pixels)
        else:
            pool_into(pixels, out, places)

    def backward(
        self, x: Tensor, gradient: Tensor, places: Tensor | None, of_x: Tensor | None
    ) -> None:
        if places is not None:
            gradient = unpooled(gradient, places, (self.layer.height, self.layer.width))
        one, wanted = [1, 1], [of_x is not None, True, False]
        found, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient.permute(0, 3, 1, 2),
            x,
            self.weight,
            None,
            one,
            one,
            one,
            False,
            [0, 0],
            1,
            wanted,
        )
        self.sum = of_weight if self.sum is None else self.sum.add_(of_weight)
        if of_x is not None:
            of_x.copy_(found.permute(0, 2, 3, 1))

    def of_weight(self) -> Tensor:
        assert self.sum is not None
        return self.sum


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        side: int | None,
        reflect: bool,
        pool: bool,
        compiled: bool,
    ) -> Tensor:
        (batch, inputs, height, width), outputs = x.shape, len(weight)
        layer = Layer(batch, height, width, inputs, outputs, side or 0, reflect, pool)
        way = _way(layer, weight, compiled)
        size = (height // 2, width // 2) if pool else (height, width)
        result = torch.empty(
            (batch, outputs, *size),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        out, places = result.permute(0, 2, 3, 1), None
        if pool:  # compiled code needs to know only which of four pixels it is
            kind = torch.uint8 if side and compiled else torch.int64
            places = x.new_empty(out.shape, dtype=kind)
        for piece in _pieces(batch, way.images):
            way.forward(x[piece], out[piece], None if places is None else places[piece])
        ctx.save_for_backward(x, weight, places)
        ctx.layer, ctx.compiled = layer, compiled
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, places = ctx.saved_tensors
        way = _way(ctx.layer, weight, ctx.compiled)
        gradient = gradient.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        of_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        for piece in _pieces(len(x), way.images):
            of_images = None if of_x is None else of_x[piece].permute(0, 2, 3, 1)
            of_places = None if places is None else places[piece]
            way.backward(x[piece], gradient[piece], of_places, of_images)
        return of_x, way.of_weight(), None, None, None, None


def _way(layer: Layer, weight: Tensor, compiled: bool) -> Direct | Winograd | CompiledWinograd:
    if not layer.side:
        return Direct(layer, weight)
    return CompiledWinograd(layer, weight) if compiled else Winograd(layer, weight)


def _pieces(batch: int, images: int) -> Iterator[slice]:
    for first in range(0, batch, images):
        yield slice(first, min(first + images, batch))
