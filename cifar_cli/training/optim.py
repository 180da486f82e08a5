"""The optimisers by name, and their settings step by step."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from cifar_cli.config import OptimConfig
from cifar_cli.training.muon import Muon, muon_groups
from cifar_cli.training.schedule import StepSettings


def build_optimizer(
    model: nn.Module, config: OptimConfig, lr: float, taken_over: Collection[str] = ()
) -> torch.optim.Optimizer:
    """The optimiser that `config.name` names, over all parameters that are trained.

    Args:
        model: The network.
        config: The optimiser's settings.
        lr: Peak learning rate.
        taken_over: Names of parameters of a trained network, whose learning rates are
            `config.init_lr_scale` of the others'.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.name == "muon":
        groups = muon_groups(model, config, lr)
    else:
        groups = [{"params": parameters, "lr": lr}]
    if taken_over:
        slow = {id(p) for name, p in model.named_parameters() if name in taken_over}
        groups = _split(groups, slow, config.init_lr_scale)
    if config.name == "muon":
        return Muon(groups)
    return torch.optim.Adam(
        groups,
        lr=lr,
        weight_decay=config.weight_decay,
        fused=parameters[0].device.type in ("cpu", "cuda"),
    )


def _split(groups: list[dict[str, Any]], slow: set[int], scale: float) -> list[dict[str, Any]]:
    """Each group as two: parameters whose id is in `slow`, at `scale` of its rate, and others."""
    parts = []
    for group in groups:
        for is_slow, part in ((True, scale), (False, 1.0)):
            members = [p for p in group["params"] if (id(p) in slow) == is_slow]
            if members:
                own = part * group.get("lr_scale", 1.0)
                parts.append(group | {"params": members, "lr": part * group["lr"], "lr_scale": own})
    return parts


def apply_settings(optimizer: torch.optim.Optimizer, settings: StepSettings) -> None:
    """Set the learning rate and, for Adam, beta1 of the coming step."""
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * group.get("lr_scale", 1.0)
        if "betas" in group:
            group["betas"] = (settings.beta1, group["betas"][1])
