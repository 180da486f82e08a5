"""Figures over predictions: interval of an accuracy, per class, confusion, top-k."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Z_95 = 1.959963984540054
MANY_CLASSES, WORST, BEST = 40, 20, 5
"""With more classes than the first, only so many of the worst and of the best are shown."""


@dataclass(frozen=True)
class ClassFigures:
    """One class. Fractions; None where there is nothing to take a fraction of."""

    name: str
    num_images: int
    num_predicted: int
    """How many images were classified as it."""
    correct: int
    accuracy: float | None
    """Fraction of the class's images that were classified correctly (recall)."""
    precision: float | None
    """Fraction of the images classified as it that are of the class."""

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; 0 for a class that is never predicted."""
        if not self.num_images:
            return None
        return 2 * self.correct / (self.num_images + self.num_predicted)


@dataclass(frozen=True)
class ConfusedPair:
    """Images of one class that were classified as another."""

    true: str
    predicted: str
    count: int
    share: float
    """Of the true class's images."""


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """95% interval of a fraction (Wilson 1927); it stays within 0..1 and holds for few images."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = correct / total, Z_95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def confusion_matrix(labels: Tensor, predicted: Tensor, classes: int) -> list[list[int]]:
    """Counts: row = true class, column = predicted class; inputs int64 (N,)."""
    pairs = torch.bincount(labels * classes + predicted, minlength=classes * classes)
    matrix: list[list[int]] = pairs.reshape(classes, classes).tolist()
    return matrix


def class_figures(confusion: list[list[int]], names: tuple[str, ...]) -> tuple[ClassFigures, ...]:
    """Figures of each class; `confusion` has a row per true class."""
    figures = []
    for number, name in enumerate(names):
        correct = confusion[number][number]
        images = sum(confusion[number])
        predicted = sum(row[number] for row in confusion)
        figures.append(
            ClassFigures(
                name=name,
                num_images=images,
                num_predicted=predicted,
                correct=correct,
                accuracy=correct / images if images else None,
                precision=correct / predicted if predicted else None,
            )
        )
    return tuple(figures)


def worst_and_best(
    classes: Sequence[ClassFigures],
) -> tuple[list[ClassFigures], list[ClassFigures]]:
    """The classes by accuracy, the lowest first; of more than 40 the lowest 20 and the highest 5.

    Returns:
        All classes and none; or the two ends.
    """
    ranked = sorted(classes, key=lambda one: -1.0 if one.accuracy is None else one.accuracy)
    if len(ranked) <= MANY_CLASSES:
        return ranked, []
    return ranked[:WORST], ranked[-BEST:]


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean over classes, each with the same weight; those without a value are left out."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def confused_pairs(
    confusion: list[list[int]], names: tuple[str, ...], n: int = 10
) -> tuple[ConfusedPair, ...]:
    """The `n` pairs of classes that are confused most often, each direction for itself."""
    pairs = [
        ConfusedPair(names[true], names[predicted], count, count / sum(row))
        for true, row in enumerate(confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.count, -pair.share))[:n])


def top_k_accuracy(logits: Tensor, labels: Tensor, k: int) -> float:
    """Fraction of images whose class is among the `k` highest logits, float (N, C)."""
    top = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (top == labels[:, None]).any(1).double().mean().item()
