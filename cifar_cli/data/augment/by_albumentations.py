"""Random resized crop, horizontal flip and cutout by Albumentations, image by image."""

from __future__ import annotations

import importlib.metadata
import os
import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar_cli.config import AlbumentationsConfig
from cifar_cli.errors import ConfigError, DataError

# Importing Albumentations would otherwise ask the network for a newer version.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"


class AlbumentationsAugment:
    """The transforms, drawn anew for each image and epoch.

    Albumentations' own seeding repeats draws across worker processes. Here each image gets its
    own random generators, keyed by (seed, epoch, image index).
    """

    def __init__(
        self, config: AlbumentationsConfig, fill: tuple[int, ...], seed: int, size: int
    ) -> None:
        albumentations = _import_albumentations()
        square = (config.cutout_size, config.cutout_size)
        self.config, self.fill, self.seed, self.size = config, fill, seed, size
        self.transform = albumentations.Compose(
            [
                albumentations.RandomResizedCrop(
                    size=(size, size),
                    scale=config.crop_scale,
                    ratio=config.crop_ratio,
                    p=config.crop_p,
                ),
                albumentations.HorizontalFlip(p=config.flip_p),
                albumentations.CoarseDropout(
                    num_holes_range=(1, 1),
                    hole_height_range=square,
                    hole_width_range=square,
                    fill=fill,
                    p=config.cutout_p,
                ),
            ],
            strict=True,
        )

    def __call__(
        self, images: NDArray[np.uint8], indices: NDArray[np.int64], epoch: int
    ) -> NDArray[np.uint8]:
        """Augment uint8 (B, H, W, 3) images whose dataset positions are `indices`, int64 (B,).

        Raises:
            DataError: Albumentations failed at an image, which is named by its position.
        """
        augmented = np.empty_like(images)
        for row, index in enumerate(indices.tolist()):
            try:
                self.transform.set_random_state(
                    np.random.default_rng((self.seed, epoch, index)),
                    random.Random(self.seed << 96 | epoch << 64 | index),
                )
                augmented[row] = self.transform(image=images[row])["image"]
            except Exception as error:
                raise DataError(
                    f"Training image {index} cannot be augmented in epoch {epoch}: "
                    f"{type(error).__name__}: {error}.",
                    f"Look at it with: cifar-resnet preview-augs --epoch {epoch} --index {index}",
                ) from error
        return augmented

    def alone(self) -> dict[str, AlbumentationsAugment]:
        """By the name of a transform in use: the one that always applies it, and no other."""
        probabilities = {
            "random resized crop": "crop_p",
            "horizontal flip": "flip_p",
            "cutout": "cutout_p",
        }
        off = dict.fromkeys(probabilities.values(), 0.0)
        return {
            name: AlbumentationsAugment(
                self.config.model_copy(update=off | {key: 1.0}), self.fill, self.seed, self.size
            )
            for name, key in probabilities.items()
            if getattr(self.config, key)
        }


def _import_albumentations() -> Any:
    try:
        importlib.metadata.version("albumentationsx")
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        raise ConfigError(
            "The package albumentationsx (AGPL) hides albumentations, whose import name it uses.",
            "Run: pip uninstall albumentationsx && pip install --force-reinstall albumentations, "
            "or choose --set augment.form=tensor.",
        )
    try:
        import albumentations
    except ImportError as error:
        raise ConfigError(
            f"Albumentations cannot be imported ({error}).",
            "Install it, or choose --set augment.form=tensor, which needs nothing but torch.",
        ) from error
    return albumentations
