"""The optimisers by name, and their settings step by step."""

from __future__ import annotations

import torch
from torch import nn

from cifar_cli.config import OptimConfig
from cifar_cli.training.muon import Muon, muon_groups
from cifar_cli.training.schedule import StepSettings


def build_optimizer(model: nn.Module, config: OptimConfig, lr: float) -> torch.optim.Optimizer:
    """The optimiser that `config.name` names, over all parameters that are trained."""
    if config.name == "muon":
        return Muon(muon_groups(model, config, lr))
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.Adam(
        parameters,
        lr=lr,
        weight_decay=config.weight_decay,
        fused=parameters[0].device.type in ("cpu", "cuda"),
    )


def apply_settings(optimizer: torch.optim.Optimizer, settings: StepSettings) -> None:
    """Set the learning rate and, for Adam, beta1 of the coming step."""
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * group.get("lr_scale", 1.0)
        if "betas" in group:
            group["betas"] = (settings.beta1, group["betas"][1])
