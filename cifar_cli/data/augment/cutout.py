"""Cutout: fill one square (DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_cli.data.augment.transform import Draws, Transform, constant


@dataclass(frozen=True)
class Cutout(Transform):
    """Fill a square that lies anywhere within the image."""

    size: int
    """Side of the square in pixels."""
    fill: tuple[int, ...]
    """Its colour, RGB."""
    name = "cutout"
    column = 2

    def corners(self, draws: Draws, image_size: int) -> Tensor:
        """Draw the squares' positions: int64 (B, 2), top and left."""
        return (draws.first[:, 3:] * (image_size - self.size + 1)).long()

    def transformed(self, images: Tensor, draws: Draws) -> Tensor:
        count, size = images.shape[:2]
        top, left = self.corners(draws, size).unbind(1)
        pixel = torch.arange(self.size, device=images.device)
        channel = torch.arange(3, device=images.device)
        square = ((pixel[:, None, None] * size + pixel[:, None]) * 3 + channel).view(-1)
        places = (top * size + left)[:, None] * 3 + square
        fill = constant(self.fill, images).repeat(self.size**2).expand(count, -1)
        return images.flatten(1).scatter(1, places, fill).view_as(images)
