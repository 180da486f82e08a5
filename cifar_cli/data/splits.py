"""Which images a run trains on, and which it is validated on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch

from cifar_cli.config import DataConfig
from cifar_cli.data.types import Dataset, ImageSet
from cifar_cli.errors import DataError


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
    """Hold out validation images and apply the limits; both draws are balanced, by `seed`.

    Raises:
        DataError: No training images are left.
    """
    train, val = dataset.train, dataset.test
    classes = len(dataset.class_names)
    if config.val_fraction:
        held_out = max(1, round(len(train) * config.val_fraction))
        if held_out >= len(train):
            raise DataError(f"data.val_fraction {config.val_fraction} leaves no training images.")
        chosen = balanced_draw(train.labels, held_out, classes, seed)
        rest = torch.ones(len(train), dtype=torch.bool)
        rest[chosen] = False
        train, val = train.subset(rest.nonzero()[:, 0]), train.subset(chosen)
    if config.limit_train and config.limit_train < len(train):
        train = train.subset(balanced_draw(train.labels, config.limit_train, classes, seed + 1))
    if config.limit_val and config.limit_val < len(val):
        val = val.subset(balanced_draw(val.labels, config.limit_val, classes, seed + 2))
    return Splits(train, val, dataset.class_names, val_is_test=not config.val_fraction)


def balanced_draw(labels: torch.Tensor, count: int, classes: int, seed: int) -> torch.Tensor:
    """Draw `count` rows, as balanced over the classes as possible; int64, ascending."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    # The rank of each row within its class, in random order: the lowest ranks are taken.
    ranks = torch.empty(len(labels), dtype=torch.int64)
    for label in range(classes):
        rows = order[labels[order] == label]
        ranks[rows] = torch.arange(len(rows))
    by_rank = order[torch.argsort(ranks[order], stable=True)]
    return by_rank[:count].sort().values
