"""One training step. Training, the LR range test and the benchmarks all take this one."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_cli.config import Config
from cifar_cli.models.speed_resnet import resized
from cifar_cli.training.optim import apply_settings
from cifar_cli.training.runtime import Runtime
from cifar_cli.training.schedule import StepSettings

IMBALANCE = 10
"""Classes that differ by more times than this are weighed by `auto`, and warned of."""


class Outcome(NamedTuple):
    """What a step came to; tensors on the device, so that nothing waits for a GPU."""

    loss: Tensor
    """Mean over the batch, before the update; float scalar. NaN if a gradient is not finite."""
    correct: Tensor
    """Images that were classified correctly; int64 scalar."""


class NotFiniteError(Exception):
    """The loss or a gradient is NaN or infinite; the weights have not been changed."""

    def __init__(self, what: str, value: float) -> None:
        super().__init__(f"{what} is {value}")
        self.what, self.value = what, value


class Step:
    """A training step of one network with one optimiser."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: Config,
        runtime: Runtime,
        class_weights: Tensor | None = None,
    ) -> None:
        self.optimizer, self.runtime = optimizer, runtime
        self.model = runtime.forward_of(model)
        self.parameters = list(model.parameters())
        self.resolutions = config.train.resolutions
        self.loss = partial(
            F.cross_entropy,
            weight=None if class_weights is None else class_weights.to(runtime.device),
            label_smoothing=config.train.label_smoothing,
        )

    def __call__(
        self, images: Tensor, labels: Tensor, settings: StepSettings, progress: float
    ) -> Outcome:
        """Train on one batch.

        Args:
            images: Normalised, float32 (B, 3, H, W), on the device.
            labels: int64 (B,), on the device.
            settings: Learning rate and beta1 of this step.
            progress: Fraction of all steps that are done, which decides the images' size.

        Raises:
            NotFiniteError: On a CPU, where looking at a value is free.
        """
        apply_settings(self.optimizer, settings)
        logits, loss = self.forward(images, labels, progress)
        loss = self.backward(loss)
        self.optimizer.step()
        return Outcome(loss, (logits.argmax(1) == labels).sum())

    def forward(self, images: Tensor, labels: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """Logits (B, C), detached, and the loss, a scalar with its graph."""
        images = at_resolution(images, progress, self.resolutions)
        with self.runtime.autocast():
            logits = self.model(images)
            loss = self.loss(logits, labels)
        return logits.detach(), loss

    def backward(self, loss: Tensor) -> Tensor:
        """Compute the gradients; the loss, detached, or NaN if a gradient is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        loss = loss.detach()
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if loss.device.type == "cpu":
            for what, value in (("The loss", loss), ("A gradient", norm)):
                if not value.isfinite():
                    raise NotFiniteError(what, value.item())
        return torch.where(norm.isfinite(), loss, torch.nan)


def at_resolution(
    images: Tensor, progress: float, resolutions: tuple[tuple[float, int], ...]
) -> Tensor:
    """Images (B, C, H, W) at the size that is due after this fraction of all steps; bilinear."""
    for until, side in resolutions:
        if progress < until:
            return resized(images, side)
    return images


def class_weights(
    labels: Tensor, num_classes: int, setting: bool | Literal["auto"]
) -> Tensor | None:
    """Weights that give every class the same part in the loss, float32 (C,); 1 on average.

    Args:
        labels: Of all training images, int64 (N,).
        num_classes: C.
        setting: Whether to weigh; `auto`: if classes differ by more than `IMBALANCE` times.
    """
    counts = torch.bincount(labels.cpu(), minlength=num_classes).clamp(min=1).float()
    if setting == "auto":
        setting = bool(counts.max() > IMBALANCE * counts.min())
    return len(labels) / (num_classes * counts) if setting else None
