"""Muon for filters, and SGD with Nesterov momentum for everything else, as one optimiser.

Keller Jordan et al., "Muon" (https://kellerjordan.github.io/posts/muon/), in the form of
airbench94_muon: filters are taken as matrices (outputs, inputs * 9) and kept at norm sqrt(outputs).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cifar_cli.config import MuonConfig

# A quintic whose iteration sends all singular values into about 0.7 to 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 3


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal` set take Muon's step, others SGD's.

    Each group's learning rate is the schedule's times its own `lr_scale`.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = self._nesterov(parameter, group["momentum"], group["weight_decay"])
                if group["orthogonal"]:
                    parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
                    # In the order of channels last, in which no column has to be moved.
                    last = update.permute(0, 2, 3, 1)
                    update = orthogonalise(last.flatten(1)).view(last.shape).permute(0, 3, 1, 2)
                parameter.add_(update, alpha=-group["lr"])

    def _nesterov(self, parameter: Tensor, momentum: float, weight_decay: float) -> Tensor:
        assert parameter.grad is not None
        gradient = parameter.grad
        if weight_decay:
            gradient = gradient.add(parameter, alpha=weight_decay)
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum"]
        buffer.mul_(momentum).add_(gradient)
        return gradient.add(buffer, alpha=momentum)


def orthogonalise(matrix: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Replace the singular values of a matrix (m, n) by numbers near 1, vectors kept.

    By Newton and Schulz's iteration, x to (a + b g + c g^2) x with g = x x^T: matrix products only.
    As all these polynomials of the first g commute, they are multiplied with each other before x
    is, which it then is once and not in each iteration.
    """
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    gram = x @ x.T
    step = factor = _polynomial(gram)
    for _ in range(iterations - 1):
        gram = step @ step @ gram
        step = _polynomial(gram)
        factor = step @ factor
    result: Tensor = factor @ x
    return result.T if tall else result


def _polynomial(gram: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    out = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    out.diagonal().add_(a)
    return out


def muon_groups(model: nn.Module, config: MuonConfig, max_lr: float) -> list[dict[str, Any]]:
    """Sort parameters: filters to Muon; matrices (the head) and biases to SGD.

    Batch norm's scales are left out, and so stay as they start: the rates at which biases learn
    fastest are far too high for them.
    """
    scales = {id(m.weight) for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in scales]
    muon = {"momentum": config.momentum, "orthogonal": True}
    sgd = {"momentum": config.sgd_momentum, "orthogonal": False}
    kinds = [
        ([p for p in trained if p.ndim == 4], max_lr, 0.0, muon),
        ([p for p in trained if p.ndim == 2], config.head_lr, config.weight_decay, sgd),
        ([p for p in trained if p.ndim < 2], config.bias_lr, config.weight_decay, sgd),
    ]
    # The decay of a step is to be the same for all, whatever their learning rates.
    return [
        {"params": group, "lr": lr, "lr_scale": lr / max_lr, "weight_decay": decay / lr, **settings}
        for group, lr, decay, settings in kinds
        if group
    ]
