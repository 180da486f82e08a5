"""The augmentations as tensor operations on a whole batch, on a CPU or a GPU.

The same distribution as the Albumentations form, without a Python loop over images. Draws are
keyed, so that an image's augmentation depends neither on the batch around it nor on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from cifar_cli.config import TensorConfig
from cifar_cli.data.augment.crop import RandomResizedCrop
from cifar_cli.data.augment.cutout import Cutout
from cifar_cli.data.augment.flip import AlternatingFlip, HorizontalFlip
from cifar_cli.data.augment.transform import Draws, Transform
from cifar_cli.data.augment.translation import Translation


class TensorAugment:
    """Transforms in order, drawn anew for each image and epoch."""

    def __init__(self, transforms: Sequence[Transform], seed: int) -> None:
        self.transforms = transforms
        self.seed = seed

    def __call__(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        """Augment uint8 (B, H, W, 3) images whose dataset positions are `indices`, int64 (B,).

        On a CPU, this may change `images` in place.
        """
        draws = Draws.of(self.seed, epoch, indices)
        for transform in self.transforms:
            images = transform(images, draws)
        return images

    def alone(self) -> dict[str, TensorAugment]:
        """By the name of a transform: the augmentation that always applies it, and no other."""
        return {t.name: TensorAugment([replace(t, p=1.0)], self.seed) for t in self.transforms}


def transforms_in_use(config: TensorConfig, fill: tuple[int, ...]) -> list[Transform]:
    """The transforms that `config` asks for, in the order of their application."""
    transforms = [
        Translation(float(config.translate > 0), config.translate),
        RandomResizedCrop(config.crop_p, config.crop_scale, config.crop_ratio),
        AlternatingFlip() if config.flip == "alternating" else HorizontalFlip(config.flip_p),
        Cutout(config.cutout_p, config.cutout_size, fill),
    ]
    return [transform for transform in transforms if transform.p > 0]
