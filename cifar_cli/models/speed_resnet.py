"""A small network that learns in few epochs: a fixed whitening stem and three groups.

After Keller Jordan's airbench networks (https://arxiv.org/abs/2404.00498, and
https://github.com/KellerJordan/cifar10-airbench), with a global maximum at the end, so that images
of any size from 16 pixels will do.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EIGENVALUE_FLOOR = 5e-4


class ConvBlock(nn.Sequential):
    """Convolution 3x3 without bias, [max-pool 2], batch norm, [what a shortcut adds], SiLU.

    (B, in_channels, H, W) to (B, out_channels, H, W); pooled, to half of H and W rounded down.
    """

    def __init__(self, in_channels: int, out_channels: int, *, pool: bool = False) -> None:
        convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        # As many filters as there are inputs start by handing these on.
        nn.init.dirac_(convolution.weight.data[:in_channels])
        norm = nn.BatchNorm2d(out_channels, eps=1e-12, momentum=0.4)
        norm.weight.requires_grad_(False)  # its scale stays 1
        super().__init__(
            convolution,
            *([nn.MaxPool2d(2)] if pool else []),
            norm,
            nn.SiLU(inplace=True),
        )

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W), or to half of H and W."""
        if shortcut is None:
            return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]
        *layers, activation = self
        for layer in layers:
            x = layer(x)
        out: Tensor = activation(x + shortcut)
        return out


class Group(nn.Sequential):
    """Convolution blocks, of which the first one changes the channels and halves the sides.

    (B, in_channels, H, W) to (B, out_channels, H / 2, W / 2), rounded down. `residual`: what the
    first block hands on is added to what the others make of it, before the last activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, convolutions: int, *, residual: bool
    ) -> None:
        super().__init__(
            ConvBlock(in_channels, out_channels, pool=True),
            *(ConvBlock(out_channels, out_channels) for _ in range(convolutions - 1)),
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / 2, W / 2)."""
        first, *others = self
        x = shortcut = first(x)
        for block in others:
            is_end = self.residual and block is others[-1]
            x = block(x, shortcut) if is_end else block(x)
        return x


class SpeedResnet(nn.Module):
    """The network of the speed recipes.

    Args:
        num_classes: Number of logits.
        widths: Channels of the three groups.
        convolutions: Convolutions in each group.
        residual: Whether each group of two convolutions or more has a shortcut around all but its
            first one.
        eval_size: Side to which images are resized in evaluation mode, for a network whose
            training ends on smaller images than it is given; None: as they are.
    """

    def __init__(
        self,
        num_classes: int = 10,
        widths: tuple[int, int, int] = (32, 96, 192),
        convolutions: int = 2,
        residual: bool = False,
        eval_size: int | None = None,
    ) -> None:
        super().__init__()
        self.eval_size = eval_size
        # Training a bias here was worth nothing, and costs the gradient of the largest maps.
        self.stem = nn.Conv2d(3, 24, 2, bias=False)
        self.stem.weight.requires_grad_(False)
        self.groups = nn.Sequential(
            *(Group(a, b, convolutions, residual=residual) for a, b in pairwise([24, *widths]))
        )
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        if not self.head.weight.is_meta:  # of which torch takes seconds to draw nothing
            nn.init.normal_(self.head.weight)  # as logits are divided by the width

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, float (B, 3, S, S), to logits, float (B, num_classes)."""
        if self.eval_size and not self.training:
            images = resized(images, self.eval_size)
        x = self.groups(F.silu(self.stem(images), inplace=True))
        # The backward pass of an adaptive pooling is slower than that of a maximum.
        x = x.flatten(2).max(2).values
        logits: Tensor = self.head(x) / x.shape[1]
        return logits

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Set the stem's filters so that their outputs on `images` are uncorrelated.

        They are the eigenvectors of the covariance of all 2x2 patches, each divided by the square
        root of its eigenvalue, and the same with the other sign.
        """
        patches = F.unfold(images, 2).transpose(1, 2).flatten(0, 1).double()
        covariance = patches.T @ patches / len(patches)
        eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
        filters = (eigenvectors / (eigenvalues + EIGENVALUE_FLOOR).sqrt()).T.flip(0)
        filters = filters.reshape(12, 3, 2, 2)
        self.stem.weight.copy_(torch.cat([filters, -filters]))


def resized(images: Tensor, side: int) -> Tensor:
    """Images (B, C, H, W) at `side` x `side` pixels, bilinear; themselves where they have it."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
