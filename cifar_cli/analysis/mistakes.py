"""The images a network gets wrong, ranked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor
from torch.nn import functional as F

Sort = Literal["loss", "confidence", "index"]
SORTS: tuple[str, ...] = get_args(Sort)


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
