"""A convolution 3x3, and the max-pooling after it, as functions with gradients.

With a pooling, a few images at a time: the pixels between the two lie in the caches and never go to
memory, nor does their gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cifar_cli.kernels.compiled import CompiledWinograd
from cifar_cli.kernels.layer import Layer
from cifar_cli.kernels.torch_winograd import Winograd


def convolve(
    x: Tensor,
    weight: Tensor,
    m: int,
    padding_mode: str = "zeros",
    *,
    pool: bool = False,
    compiled: bool = False,
) -> Tensor:
    """Convolution 3x3 with a border of one pixel, with `pool` max-pooled 2x2 after it.

    Args:
        x: float32 (B, C, H, W), channels last in memory, on a CPU.
        weight: float32 (K, C, 3, 3).
        m: Output tiles have m x m pixels.
        padding_mode: What the border holds, "zeros" or "reflect".
        pool: Whether to pool; by compiled code with an even m only.
        compiled: Whether tiles are handled by compiled code, which must have been loaded.

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
    out: Tensor = _Convolution.apply(x, weight, m, padding_mode == "reflect", pool, compiled)
    return out


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        m: int,
        reflect: bool,
        pool: bool,
        compiled: bool,
    ) -> Tensor:
        (batch, inputs, height, width), outputs = x.shape, len(weight)
        layer = Layer(batch, height, width, inputs, outputs, m, reflect, pool)
        algorithm = _algorithm(layer, weight, compiled)
        size = (height // 2, width // 2) if pool else (height, width)
        result = torch.empty(
            (batch, outputs, *size),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        out, argmax = result.permute(0, 2, 3, 1), None
        if pool:  # compiled code needs to know only which of four pixels it is
            kind = torch.uint8 if compiled else torch.int64
            argmax = x.new_empty(out.shape, dtype=kind)
        for piece in _pieces(batch, algorithm.images):
            algorithm.forward(x[piece], out[piece], None if argmax is None else argmax[piece])
        ctx.save_for_backward(x, weight, argmax)
        ctx.layer, ctx.compiled = layer, compiled
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, argmax = ctx.saved_tensors
        algorithm = _algorithm(ctx.layer, weight, ctx.compiled)
        gradient = gradient.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        x_gradient = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        for piece in _pieces(len(x), algorithm.images):
            of_images = None if x_gradient is None else x_gradient[piece].permute(0, 2, 3, 1)
            of_argmax = None if argmax is None else argmax[piece]
            algorithm.backward(x[piece], gradient[piece], of_argmax, of_images)
        return x_gradient, algorithm.weight_gradient(), None, None, None, None


def _algorithm(layer: Layer, weight: Tensor, compiled: bool) -> Winograd | CompiledWinograd:
    return CompiledWinograd(layer, weight) if compiled else Winograd(layer, weight)


def _pieces(batch: int, images: int) -> Iterator[slice]:
    for first in range(0, batch, images):
        yield slice(first, min(first + images, batch))
