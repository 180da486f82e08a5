"""What networks come to on the same images, and how they differ: values, and how they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cifar_cli.analysis.metrics import wilson_interval
from cifar_cli.analysis.significance import Difference, paired_difference
from cifar_cli.config import Config
from cifar_cli.data.types import ImageSet
from cifar_cli.rundir import RunDir


@dataclass(frozen=True)
class ComparedRun:
    """One network and what it came to."""

    name: str
    """Another one for each of the networks."""
    run: RunDir | None
    """The run that it belongs to; None for a file outside of one."""
    checkpoint: Path
    config: Config
    predicted: Tensor = field(repr=False)
    """Class of each image, int64 (N,)."""
    confidence: Tensor = field(repr=False)
    """Softmax probability of that class, float64 (N,)."""
    true_share: Tensor = field(repr=False)
    """Softmax probability of the true class, float64 (N,)."""
    correct: int
    accuracy: float
    interval: tuple[float, float]
    """95% interval of the accuracy (Wilson)."""


class ClassDifference(NamedTuple):
    """One class: how many of its images each network classifies correctly."""

    name: str
    num_images: int
    correct_before: int
    correct_after: int
    gained: int
    """Images that only B classifies correctly."""
    lost: int
    """Images that only A does."""
    difference: float | None
    """Of the fractions that are correct; None for a class without images."""
    interval: tuple[float, float]
    """95% interval of the difference (Tango)."""


class Flip(NamedTuple):
    """An image that one network classifies correctly, and the other does not."""

    row: int
    """Position among the images that were compared."""
    is_gain: bool
    """Whether B is the one that classifies it correctly."""


@dataclass(frozen=True)
class Pair:
    """A network against the first one."""

    before: ComparedRun
    after: ComparedRun
    difference: Difference
    per_class: tuple[ClassDifference, ...]
    flips: tuple[Flip, ...]
    """Gains, then losses; in each those first in which the probability of the true class changed
    most."""
    is_same_network: bool
    """Whether both have the same weights, so that there is nothing to compare."""

    @property
    def gained(self) -> int:
        """Images that are classified correctly by `after` alone."""
        return sum(flip.is_gain for flip in self.flips)

    @property
    def lost(self) -> int:
        """Images that are classified correctly by `before` alone."""
        return len(self.flips) - self.gained


@dataclass(frozen=True)
class Comparison:
    """Networks on the same images; all against the first one."""

    runs: tuple[ComparedRun, ...]
    pairs: tuple[Pair, ...]
    images: ImageSet
    files: tuple[str, ...]
    """File of each image; empty: the images have none."""
    class_names: tuple[str, ...]
    data: str
    """Name of the data."""
    settings: dict[str, tuple[Any, ...]]
    """Settings that differ, by dotted key: the value of each run; None also if it has none."""
    notes: tuple[str, ...]
    """Remarks for the user."""


def compared_run(
    name: str,
    run: RunDir | None,
    checkpoint: Path,
    config: Config,
    logits: Tensor,
    labels: Tensor,
) -> ComparedRun:
    """Sum up the logits, float (N, C), of a network on images with these labels, int64 (N,)."""
    shares = logits.double().softmax(1)
    predicted = logits.argmax(1)
    correct = int((predicted == labels).sum())
    return ComparedRun(
        name=name,
        run=run,
        checkpoint=checkpoint,
        config=config,
        predicted=predicted,
        confidence=shares.gather(1, predicted[:, None])[:, 0],
        true_share=shares.gather(1, labels[:, None])[:, 0],
        correct=correct,
        accuracy=correct / len(labels),
        interval=wilson_interval(correct, len(labels)),
    )


def pair_of(
    before: ComparedRun,
    after: ComparedRun,
    images: ImageSet,
    class_names: Sequence[str],
    is_same_network: bool,
) -> Pair:
    """Compare two networks, image by image and class by class."""
    labels, classes = images.labels, len(class_names)
    was_right, is_right = before.predicted == labels, after.predicted == labels
    gained, lost = is_right & ~was_right, was_right & ~is_right
    difference = paired_difference(int(gained.sum()), int(lost.sum()), len(labels))
    if is_same_network:
        difference = replace(difference, interval=(0.0, 0.0))
    counts = (
        torch.bincount(labels[rows], minlength=classes).tolist()
        for rows in (labels >= 0, was_right, is_right, gained, lost)
    )
    per_class = []
    for name, total, right, now_right, more, fewer in zip(class_names, *counts, strict=True):
        of_class = paired_difference(more, fewer, total)
        share = of_class.difference if total else None
        numbers = total, right, now_right, more, fewer
        per_class.append(ClassDifference(name, *numbers, share, of_class.interval))
    change = (after.true_share - before.true_share).abs()
    flips = []
    for rows, is_gain in ((gained, True), (lost, False)):
        where = rows.nonzero()[:, 0]
        order = where[torch.argsort(change[where], descending=True, stable=True)]
        flips += [Flip(row, is_gain) for row in order.tolist()]
    return Pair(before, after, difference, tuple(per_class), tuple(flips), is_same_network)
