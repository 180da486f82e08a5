"""ReLU and dropout in one, light on memory and random numbers on a CPU.

torch's own dropout draws one random number an element, and keeps a float mask as large as its input
until the backward pass. Here only the elements to drop are drawn, as the gaps between them, and
nothing is kept but the output: what the ReLU or the dropout made zero has no gradient either way.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SPARSE = 0.2
"""Up to this probability, drawing the elements to drop takes less time and memory than a mask."""


def relu_dropout_(x: Tensor, p: float) -> Tensor:
    """Dropout with probability `p`, 0 < p < 1, of the ReLU of `x`, in its memory, on a CPU.

    Any shape and memory layout without gaps. Draws from torch's global RNG.
    """
    out: Tensor = _ReluDropout.apply(x, p)
    return out


class _ReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.mark_dirty(x)
        ctx.scale = 1 / (1 - p)
        x.relu_().mul_(ctx.scale)
        flat = x.as_strided((x.numel(),), (1,))
        flat.index_fill_(0, dropped_positions(x.numel(), p), 0.0)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, out, 0).mul_(ctx.scale), None


def dropped_positions(count: int, p: float) -> Tensor:
    """Which of `count` elements to drop, each with probability `p` for itself: int64, ascending."""
    positions, last = [], -1
    while last < count - 1:
        expected = (count - 1 - last) * p
        draws = torch.empty(int(expected + 6 * math.sqrt(expected) + 8), dtype=torch.float64)
        # Rounded down, an exponential distribution is that of the elements kept before a drop.
        kept = draws.exponential_(-math.log1p(-p)).clamp_(max=count).long()
        drawn = kept.add_(1).cumsum(0).add_(last)
        positions.append(drawn)
        last = int(drawn[-1])
    all_drawn = torch.cat(positions) if len(positions) > 1 else positions[0]
    return all_drawn[: int(torch.searchsorted(all_drawn, count))]
