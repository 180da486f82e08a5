"""The optimiser: Adam with L2 weight decay, as in the course project."""

from __future__ import annotations

import torch
from torch import nn

from cifar_cli.config.schema import OptimConfig
from cifar_cli.training.schedule import StepSettings


def build_optimizer(model: nn.Module, config: OptimConfig, lr: float) -> torch.optim.Adam:
    """Adam over all parameters; weight decay is added to the gradient, not decoupled."""
    device = next(model.parameters()).device.type
    return torch.optim.Adam(
        model.parameters(),
        lr=lr,
        weight_decay=config.weight_decay,
        fused=device in ("cpu", "cuda"),
    )


def apply_settings(optimizer: torch.optim.Optimizer, settings: StepSettings) -> None:
    """Set the learning rate and beta1 of the coming step."""
    for group in optimizer.param_groups:
        group["lr"] = settings.lr
        group["betas"] = (settings.beta1, group["betas"][1])
