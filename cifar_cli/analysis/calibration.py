"""Whether a network is as often right as it is confident: reliability diagram and its error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class CalibrationBin:
    """Images whose confidence is above `low` and at most `high`."""

    low: float
    high: float
    num_images: int
    confidence: float | None
    """Mean softmax probability of the predicted class; None: the bin is empty."""
    accuracy: float | None
    """Fraction classified correctly; None: the bin is empty."""


@dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy, over all images and bin by bin."""

    bins: tuple[CalibrationBin, ...]
    error: float
    """Expected calibration error: the mean over images of their bin's |accuracy - confidence|."""
    confidence: float
    """Mean over all images."""
    accuracy: float


def calibrate(confidence: Tensor, is_correct: Tensor, num_bins: int = BINS) -> Calibration:
    """Expected calibration error (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    Bins are equally wide; each holds its upper edge, and the first one holds 0.

    Args:
        confidence: float (N,), softmax probability of the predicted class; N is at least 1.
        is_correct: bool (N,), whether the predicted class is the true one.
        num_bins: Number of bins between 0 and 1.
    """
    confidence, hits = confidence.double(), is_correct.double()
    edges = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64)
    own = torch.bucketize(confidence, edges[1:-1].contiguous())
    counts = torch.bincount(own, minlength=num_bins).tolist()
    sums = torch.bincount(own, confidence, minlength=num_bins).tolist()
    right = torch.bincount(own, hits, minlength=num_bins).tolist()
    bins = tuple(
        CalibrationBin(
            low=low,
            high=high,
            num_images=count,
            confidence=total / count if count else None,
            accuracy=correct / count if count else None,
        )
        for low, high, count, total, correct in zip(
            edges[:-1].tolist(), edges[1:].tolist(), counts, sums, right, strict=True
        )
    )
    error = sum(abs(correct - total) for total, correct in zip(sums, right, strict=True))
    return Calibration(bins, error / len(hits), confidence.mean().item(), hits.mean().item())
