"""Horizontal flips, random or alternating."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cifar_cli.data.augment.transform import Draws, Transform
from cifar_cli.data.keyed import uniforms


@dataclass(frozen=True)
class HorizontalFlip(Transform):
    """Mirror left and right."""

    name = "horizontal flip"
    column = 1

    def transformed(self, images: Tensor, draws: Draws) -> Tensor:
        return images.flip(2)


@dataclass(frozen=True)
class AlternatingFlip(HorizontalFlip):
    """Draw once whether an image is flipped, then flip it every other epoch."""

    p: float = 1.0
    """Not used."""
    name = "alternating flip"

    def chosen(self, draws: Draws) -> Tensor:
        # Epoch 0 is never trained; its draw holds for all epochs.
        first = uniforms(draws.seed, 0, draws.indices, 1)[:, 0] < 0.5
        return first ^ bool(draws.epoch % 2)
