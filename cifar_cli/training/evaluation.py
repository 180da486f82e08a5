"""Logits over a whole split, and the two figures that training needs of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_cli.config import Config
from cifar_cli.data.loader import Normalise, plain_batches
from cifar_cli.data.types import ImageSet
from cifar_cli.training.runtime import autocast, eval_batch

Forward = Callable[[Tensor], Tensor]


class Scores(NamedTuple):
    """Mean loss per image, and the share of images whose class was found."""

    loss: float
    accuracy: float


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    images: ImageSet,
    config: Config,
    device: torch.device,
    forward: Forward | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Logits of every image in order, float32 (N, C) on the CPU.

    Args:
        model: Put into evaluation mode, and back into the mode it had.
        images: What to look at; not augmented.
        config: Normalisation, layout and precision.
        device: Where the model is.
        forward: How to call the model (such as with test-time augmentation); None: the model.
        on_batch: Called with the images done and the images in all; may raise to end it.
    """
    was_training = model.training
    model.eval()
    normalise = Normalise(config.data.mean, config.data.std, config.runtime.channels_last)
    logits = []
    done = 0
    at_once = eval_batch(device, images.images.shape[1])
    with autocast(config, device):
        for pixels, labels in plain_batches(images, normalise, at_once, device):
            logits.append((forward or model)(pixels).float())
            done += len(labels)
            if on_batch:
                on_batch(done, len(images))
    model.train(was_training)
    return torch.cat(logits).cpu()


def score(logits: Tensor, labels: Tensor) -> Scores:
    """Cross entropy and accuracy of logits (N, C) against labels int64 (N,)."""
    loss = F.cross_entropy(logits.double(), labels).item()
    return Scores(loss, (logits.argmax(1) == labels).double().mean().item())
