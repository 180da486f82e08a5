"""Logits over a whole split, and the two figures that training needs of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_cli.training.runtime import Runtime

Forward = Callable[[Tensor], Tensor]


class Scores(NamedTuple):
    """Mean loss per image, and the fraction of images that were classified correctly."""

    loss: float
    accuracy: float


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    images: Tensor,
    normalise: Forward,
    runtime: Runtime,
    forward: Forward | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Logits of every image in order, float32 (N, C) on the CPU.

    Args:
        model: Put into evaluation mode, and back into the mode it had.
        images: uint8 (N, H, W, 3), not augmented.
        normalise: From such images to the model's inputs, float32 (B, 3, H, W).
        runtime: Where the model is placed.
        forward: How to call the model (such as with test-time augmentation); None: the model.
        on_batch: Called with the number of images done and of all; may raise to end it.
    """
    was_training = model.training
    model.eval()
    logits = []
    done = 0
    with runtime.autocast():
        for pixels in torch.split(images, runtime.eval_batch(images.shape[1])):
            inputs = normalise(pixels.to(runtime.device))
            logits.append((forward or model)(inputs).float())
            done += len(pixels)
            if on_batch:
                on_batch(done, len(images))
    model.train(was_training)
    return torch.cat(logits).cpu()


def score(logits: Tensor, labels: Tensor) -> Scores:
    """Cross entropy and accuracy of logits (N, C) against labels int64 (N,)."""
    loss = F.cross_entropy(logits.double(), labels).item()
    return Scores(loss, (logits.argmax(1) == labels).double().mean().item())
