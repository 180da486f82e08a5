"""What training will see: sample images, and the augmentations of one image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_cli.config import Config
from cifar_cli.data.loader import Augment, make_augment
from cifar_cli.data.splits import balanced_draw
from cifar_cli.data.types import Dataset
from cifar_cli.errors import ConfigError


@dataclass(frozen=True)
class Preview:
    """Images, uint8 (N, H, W, 3) each."""

    samples: Tensor
    sample_labels: tuple[str, ...]
    original: Tensor
    """The chosen image, N = 1."""
    label: str
    alone: dict[str, Tensor]
    """By name of a transform in use: the image in successive epochs if this transform alone were
    applied each time (an alternating flip: every other time)."""
    trained_on: Tensor
    """What training sees of the image in successive epochs, from the chosen one on; before
    `train.resolutions` makes it smaller."""


def preview(dataset: Dataset, config: Config, n: int, epoch: int, index: int) -> Preview:
    """Sample `n` training images, and augment the one at `index` as epoch `epoch` does.

    Raises:
        ConfigError: There is no such image.
    """
    images = dataset.train
    if not 0 <= index < len(images):
        raise ConfigError(
            f"--index {index}: the training images are numbered 0 to {len(images) - 1}."
        )
    rows = balanced_draw(images.labels, min(n, len(images)), config.seed)
    chosen, number = images.images[index : index + 1], torch.tensor([index])
    epochs, augment = range(epoch, epoch + 8), make_augment(config)

    def augmented(augment: Augment) -> Tensor:
        return torch.cat([augment(chosen.clone(), number, e) for e in epochs])

    return Preview(
        samples=images.images[rows],
        sample_labels=tuple(dataset.class_names[i] for i in images.labels[rows].tolist()),
        original=chosen,
        label=dataset.class_names[int(images.labels[index])],
        alone={name: augmented(transform) for name, transform in augment.alone().items()},
        trained_on=augmented(augment),
    )
