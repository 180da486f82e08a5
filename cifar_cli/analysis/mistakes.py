"""Predictions image by image, and those that are wrong, ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor
from torch.nn import functional as F

from cifar_cli.data.types import ImageSet

Sort = Literal["loss", "confidence", "index"]
SORTS: tuple[str, ...] = get_args(Sort)


TOP = 5


def prediction_rows(
    logits: Tensor, images: ImageSet, class_names: Sequence[str], files: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Per image: index, file (if there are files), classes, the likeliest five, and the loss.

    Args:
        logits: float (N, C) of the images.
        images: N images.
        class_names: C names.
        files: N names, or none.
    """
    probabilities, classes = logits.double().softmax(1).topk(min(TOP, logits.shape[1]), dim=1)
    losses = F.cross_entropy(logits.double(), images.labels, reduction="none").tolist()
    columns = zip(
        images.indices.tolist(),
        files or [""] * len(losses),
        images.labels.tolist(),
        classes.tolist(),
        probabilities.tolist(),
        losses,
        strict=True,
    )
    rows = []
    for index, file, true, likeliest, shares, loss in columns:
        row: dict[str, Any] = {"index": index} | ({"file": file} if file else {})
        row |= {"true": class_names[true], "predicted": class_names[likeliest[0]]}
        for place, (number, share) in enumerate(zip(likeliest, shares, strict=True), start=1):
            row |= {f"class_{place}": class_names[number], f"probability_{place}": round(share, 6)}
        rows.append({**row, "loss": round(loss, 6)})
    return rows


@dataclass(frozen=True)
class Mistake:
    """One image; classes by their number."""

    row: int
    """Position in the split that was looked at."""
    index: int
    """Position in the source's whole split."""
    true: int
    predicted: int
    confidence: float
    """Softmax probability of the predicted class."""
    loss: float


def find_mistakes(
    logits: Tensor, labels: Tensor, indices: Tensor, sort: Sort = "loss"
) -> list[Mistake]:
    """All wrong predictions: highest loss first, highest confidence first, or in order.

    Args:
        logits: float (N, C).
        labels, indices: int64 (N,).
    """
    predicted = logits.argmax(1)
    wrong = (predicted != labels).nonzero()[:, 0]
    confidence = logits.double().softmax(1).amax(1)[wrong].tolist()
    losses = F.cross_entropy(logits.double(), labels, reduction="none")[wrong].tolist()
    columns = zip(
        wrong.tolist(),
        indices[wrong].tolist(),
        labels[wrong].tolist(),
        predicted[wrong].tolist(),
        confidence,
        losses,
        strict=True,
    )
    mistakes = [Mistake(*values) for values in columns]
    keys = {
        "loss": lambda m: (-m.loss, m.index),
        "confidence": lambda m: (-m.confidence, m.index),
        "index": lambda m: m.index,
    }
    return sorted(mistakes, key=keys[sort])
