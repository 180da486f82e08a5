"""Which images a run trains on, and which it is validated on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cifar_cli.config import DataConfig
from cifar_cli.data.types import Dataset, ImageSet
from cifar_cli.errors import DataError
from cifar_cli.text import printable


@dataclass(frozen=True)
class Splits:
    """What a run trains and validates on."""

    train: ImageSet
    val: ImageSet
    class_names: tuple[str, ...]
    val_is_test: bool
    """Whether the validation images are the test split, as in the course project."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of classes, images, labels and positions; equal for equal data."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        for part in (self.train, self.val):
            for tensor in (part.images, part.labels, part.indices):
                digest.update(repr(tensor.shape).encode())
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


def choose_splits(dataset: Dataset, config: DataConfig, seed: int) -> Splits:
    """Hold out validation images and apply the limits; drawn by `seed`, in the mixture of classes.

    Raises:
        DataError: A class has too few images for both sides, or no training images are left.
    """
    train, val = dataset.train, dataset.test
    if config.val_fraction:
        train, val = _held_out(dataset, config.val_fraction, seed)
    if config.limit_train and config.limit_train < len(train):
        train = train.subset(_draw(train.labels, config.limit_train, seed + 1))
    if config.limit_val and config.limit_val < len(val):
        val = val.subset(_draw(val.labels, config.limit_val, seed + 2))
    return Splits(train, val, dataset.class_names, val_is_test=not config.val_fraction)


def _held_out(dataset: Dataset, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and validation images, at least one of each class in both."""
    images = dataset.train
    counts = torch.bincount(images.labels, minlength=len(dataset.class_names))
    classes = int((counts > 0).sum())
    count = max(1, round(len(images) * fraction))
    if count >= len(images):
        raise DataError(f"data.val_fraction {fraction} leaves no training images.")
    if 1 in counts:
        name = printable(dataset.class_names[counts.tolist().index(1)])
        raise DataError(
            f"Class {name} has one training image, which cannot be on both sides of "
            f"data.val_fraction {fraction}.",
            "Add images of it, or remove the class.",
        )
    count = min(max(count, classes), len(images) - classes)
    rows = _draw(images.labels, count, seed, both_sides=True)
    rest = torch.ones(len(images), dtype=torch.bool)
    rest[rows] = False
    return images.subset(rest.nonzero()[:, 0]), images.subset(rows)


def _draw(labels: Tensor, count: int, seed: int, *, both_sides: bool = False) -> Tensor:
    """Draw `count` rows with the labels' own mixture of classes; int64, ascending.

    One image of each class comes first. With `both_sides` the last one of each is left to the end.
    A draw of fewer images is a part of the draw of more.
    """
    order, ranks, counts = _ranked(labels, seed)
    position = (ranks + 0.5) / counts
    position[ranks == 0] = -1
    if both_sides:
        position[ranks == counts - 1] = 2
    return order[torch.argsort(position, stable=True)][:count].sort().values


def balanced_draw(labels: Tensor, count: int, seed: int) -> Tensor:
    """Draw `count` rows, classes as equally often as possible; int64, ascending."""
    order, ranks, _ = _ranked(labels, seed)
    return order[torch.argsort(ranks, stable=True)][:count].sort().values


def _ranked(labels: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """All rows in random order; the rank of each within its class; the size of its class."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    shuffled = labels[order]
    counts = torch.bincount(labels)
    by_class = torch.argsort(shuffled, stable=True)
    first = counts.cumsum(0) - counts
    ranks = torch.empty_like(order)
    ranks[by_class] = torch.arange(len(labels)) - first[shuffled[by_class]]
    return order, ranks, counts[shuffled]
