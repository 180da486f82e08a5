"""Dropout that is light on memory and random numbers on a CPU.

torch's own keeps a float mask as large as its input until the backward pass, and draws one random
number an element. Here the mask is a byte an element, and each 64-bit random number serves four.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LEVELS = 2**16


class Dropout(nn.Dropout):
    """`nn.Dropout`, its probability on CPU rounded to 1 / 65536; elsewhere torch's own."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape and memory layout without gaps, to the same."""
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        out: Tensor = _ByteMask.apply(x, dropped)
        return out


class _ByteMask(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: int) -> Tensor:
        ctx.scale = LEVELS / (LEVELS - dropped)
        mask = _draw(x, dropped)
        ctx.save_for_backward(mask)
        return x.mul(mask).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return gradients[0].mul(mask).mul_(ctx.scale), None


def _draw(x: Tensor, dropped: int) -> Tensor:
    """bool like `x`: False with probability `dropped` / 65536."""
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    levels = bits.view(torch.int16)[: x.numel()].as_strided(x.shape, x.stride())
    return levels >= dropped - LEVELS // 2
