"""Which images a run trains on, and which it is validated on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from cifar_cli.config import DataConfig
from cifar_cli.data.types import Dataset, ImageSet, SplitName
from cifar_cli.errors import DataError
from cifar_cli.text import printable

HELD_OUT = 0.2
"""Fraction of the training images that validates if the source has no other images for it."""


@dataclass(frozen=True)
class Splits:
    """What a run trains and validates on."""

    train: ImageSet
    val: ImageSet
    class_names: tuple[str, ...]
    val_from: SplitName
    """The source's split that the validation images come from: its own (`val`), the test split as
    in the course project (`test`), or training images that were held out (`train`)."""
    test: ImageSet | None = None
    """The test split; None if there is none."""
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """As `Dataset.files`."""

    @property
    def val_is_test(self) -> bool:
        """Whether the validation images are the test split."""
        return self.val_from == "test"

    def file_names(self, split: SplitName) -> tuple[str, ...]:
        """The printable name of each image's file, in order; empty if images have no files."""
        images = {"train": self.train, "val": self.val, "test": self.test}[split]
        names = self.files.get(self.val_from if split == "val" else split)
        return tuple(names[i] for i in images.indices.tolist()) if names and images else ()

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
    """Choose the validation images, and apply the limits; drawn in the mixture of classes.

    With `data.val_fraction` they are held out of the training images by `seed`. Else they are the
    split for validation, or the test split. If there is neither, a fifth of the training images is
    held out by the content of the files, so that neither another name, order or seed nor another
    machine moves an image from one side to the other.

    Raises:
        DataError: A class has too few images for both sides, or no training images are left.
    """
    train, val = dataset.train, dataset.val
    val_from: SplitName = "val"
    if config.val_fraction:
        train, val = _held_out(dataset, config.val_fraction, _shuffled(len(train), seed))
        val_from = "train"
    elif val is None and dataset.test is not None:
        val, val_from = dataset.test, "test"
    elif val is None:
        train, val = _held_out(dataset, HELD_OUT, _by_content(train))
        val_from = "train"
    train = limited(train, config.limit_train, seed + 1)
    val = limited(val, config.limit_val, seed + 2)
    test = dataset.test and limited(dataset.test, config.limit_val, seed + 2)
    return Splits(train, val, dataset.class_names, val_from, test, dataset.files)


def validation_note(splits: Splits) -> str:
    """On which images a run is validated, and which are kept; a sentence or two."""
    images = f"{len(splits.val):,} images"
    if splits.val_from == "test":
        return "Validating on the test split; the reported accuracy is that of the last epoch."
    if splits.val_from == "val":
        note = f"Validating on the {images} of the validation split."
    else:
        total = len(splits.train) + len(splits.val)
        note = f"Validating on {images} held out of {total:,} training images, of each class."
    return note + (" The test split is kept for --split test." if splits.test else "")


def limited(images: ImageSet, limit: int | None, seed: int) -> ImageSet:
    """At most so many of the images, drawn by `seed` in their mixture of classes."""
    if not limit or limit >= len(images):
        return images
    return images.subset(_draw(images.labels, limit, _shuffled(len(images), seed)))


def _held_out(dataset: Dataset, fraction: float, order: Tensor) -> tuple[ImageSet, ImageSet]:
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
            f"Class {name} has one training image, which cannot be on both sides: "
            f"{fraction:.0%} of the images are held out for validation.",
            "Add images of it, or remove the class.",
        )
    count = min(max(count, classes), len(images) - classes)
    rows = _draw(images.labels, count, order, both_sides=True)
    rest = torch.ones(len(images), dtype=torch.bool)
    rest[rows] = False
    return images.subset(rest.nonzero()[:, 0]), images.subset(rows)


def _draw(labels: Tensor, count: int, order: Tensor, *, both_sides: bool = False) -> Tensor:
    """Draw `count` rows with the labels' own mixture of classes; int64, ascending.

    One image of each class comes first. With `both_sides` the last one of each is left to the end.
    A draw of fewer images is a part of the draw of more.
    """
    ranks, counts = _ranked(labels, order)
    position = (ranks + 0.5) / counts
    position[ranks == 0] = -1
    if both_sides:
        position[ranks == counts - 1] = 2
    return order[torch.argsort(position, stable=True)][:count].sort().values


def balanced_draw(labels: Tensor, count: int, seed: int) -> Tensor:
    """Draw `count` rows, classes as equally often as possible; int64, ascending."""
    order = _shuffled(len(labels), seed)
    ranks, _ = _ranked(labels, order)
    return order[torch.argsort(ranks, stable=True)][:count].sort().values


def _shuffled(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _by_content(images: ImageSet) -> Tensor:
    """All rows in an order that only the content of the files decides."""
    if images.keys is None:
        return _shuffled(len(images), 0)
    return torch.argsort(images.keys, stable=True)


def _ranked(labels: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Of all rows in that order: the rank of each within its class; the size of its class."""
    shuffled = labels[order]
    counts = torch.bincount(labels)
    by_class = torch.argsort(shuffled, stable=True)
    first = counts.cumsum(0) - counts
    ranks = torch.empty_like(order)
    ranks[by_class] = torch.arange(len(labels)) - first[shuffled[by_class]]
    return ranks, counts[shuffled]
