"""The three training augmentations by Albumentations, image by image."""

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
    """Random resized crop, horizontal flip and one square hole, drawn for each image anew.

    Albumentations' own seeding repeats draws across worker processes; here each image gets
    generators of its own, keyed by (seed, epoch, image index).
    """

    def __init__(
        self, config: AlbumentationsConfig, fill: tuple[int, ...], seed: int, size: int
    ) -> None:
        albumentations = _import_albumentations()
        hole = (config.cutout_size, config.cutout_size)
        self.seed = seed
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
                    hole_height_range=hole,
                    hole_width_range=hole,
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
