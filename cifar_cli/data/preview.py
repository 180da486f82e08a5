"""What training will see: sample images, and the augmentations of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cifar_cli.config import AugmentConfig, Config
from cifar_cli.data.loader import make_augment
from cifar_cli.data.splits import balanced_draw
from cifar_cli.data.types import Dataset
from cifar_cli.errors import ConfigError

NOTHING = {"crop_p": 0.0, "flip_p": 0.0, "cutout_p": 0.0}


@dataclass(frozen=True)
class Preview:
    """Images, uint8 (N, H, W, 3) each."""

    samples: Tensor
    sample_labels: tuple[str, ...]
    original: Tensor
    """The chosen image, N = 1."""
    label: str
    alone: dict[str, Tensor]
    """By augmentation that is in use: what it alone, applied each time (an alternating flip every
    other time), makes of the image in successive epochs."""
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
    epochs = range(epoch, epoch + 8)

    def augmented(changes: dict[str, Any]) -> Tensor:
        changed = config.model_copy(update={"augment": config.augment.model_copy(update=changes)})
        augment = make_augment(changed)
        return torch.cat([augment(chosen.clone(), number, e) for e in epochs])

    return Preview(
        samples=images.images[rows],
        sample_labels=tuple(dataset.class_names[i] for i in images.labels[rows].tolist()),
        original=chosen,
        label=dataset.class_names[int(images.labels[index])],
        alone={name: augmented(changes) for name, changes in _each_alone(config.augment).items()},
        trained_on=augmented({}),
    )


def _each_alone(augment: AugmentConfig) -> dict[str, dict[str, Any]]:
    """Settings under which one augmentation is always applied, by its name, of those in use."""
    nothing, translate, alternates = dict[str, Any](NOTHING), 0, False
    if augment.form == "tensor":
        nothing |= {"translate": 0, "flip": "random"}
        translate, alternates = augment.translate, augment.flip == "alternating"
    flip_name = "alternating flip" if alternates else "horizontal flip"
    flip = {"flip": "alternating"} if alternates else {"flip_p": 1.0}
    known: list[tuple[str, float, dict[str, Any]]] = [
        ("random resized crop", augment.crop_p, {"crop_p": 1.0}),
        ("shift", translate, {"translate": translate}),
        (flip_name, alternates or augment.flip_p, flip),
        ("cutout", augment.cutout_p, {"cutout_p": 1.0}),
    ]
    return {name: nothing | settings for name, in_use, settings in known if in_use}
