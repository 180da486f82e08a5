"""Figures over predictions: interval of an accuracy, per class, confusion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class ClassFigures:
    """One class; precision is None where the class was never predicted."""

    name: str
    num_images: int
    correct: int
    accuracy: float | None
    """Share of the class's images that were recognised (recall); None without images."""
    precision: float | None


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """95% interval of a share (Wilson 1927), which stays within 0..1 and holds for few images."""
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
    """Accuracy and precision of each class."""
    figures = []
    for number, name in enumerate(names):
        correct = confusion[number][number]
        images = sum(confusion[number])
        predicted = sum(row[number] for row in confusion)
        figures.append(
            ClassFigures(
                name=name,
                num_images=images,
                correct=correct,
                accuracy=correct / images if images else None,
                precision=correct / predicted if predicted else None,
            )
        )
    return tuple(figures)
