"""Averages of a network's weights over the steps of training, as networks of their own.

The mean over the last steps: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
Generalization" (https://arxiv.org/abs/1803.05407). Lookahead: Zhang et al., "Lookahead Optimizer: k
steps forward, 1 step back" (https://arxiv.org/abs/1907.08610), with slow weights that grow slower
towards the end, as in Keller Jordan's airbench94 (https://arxiv.org/abs/2404.00498). In both,
batch norm's statistics are averaged along with the weights, which spares a pass over the images.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cifar_cli.config.schema import TrainConfig

SLOWEST = 0.95**5
"""Share of themselves that lookahead's slow weights keep at the end of training."""


@dataclass
class SlowWeights:
    """An average of all floating-point weights and buffers of a network."""

    count: int = 0
    """How many times weights were taken in."""
    kind: str = ""
    """By which of the ways."""
    tensors: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def add(self, model: nn.Module, share: float) -> None:
        """Take in the weights, as this `share` of the average; the first are all of it."""
        self.count += 1
        if self.count == 1:
            self.tensors = [tensor.clone() for tensor in averaged(model)]
        for slow, tensor in zip(self.tensors, averaged(model), strict=True):
            slow.lerp_(tensor, share)

    @torch.no_grad()
    def move_to(self, model: nn.Module) -> None:
        """Put the average into the network."""
        for slow, tensor in zip(self.tensors, averaged(model), strict=True):
            tensor.copy_(slow)

    def clear(self) -> None:
        """Forget all."""
        self.count, self.kind, self.tensors = 0, "", []


def average(
    slow: SlowWeights, model: nn.Module, step: int, total: int, config: TrainConfig
) -> None:
    """Do after a step, counted from 0, of `total` what the configuration asks for, if anything."""
    kind = "lookahead" if config.lookahead else "mean"
    if slow.kind != kind:  # resumed with other settings than it was begun with
        slow.clear()
        slow.kind = kind
    if config.lookahead:
        _look_ahead(slow, model, step + 1, total, config.lookahead)
    elif config.average_last and step >= total * (1 - config.average_last):
        slow.add(model, 1 / (slow.count + 1))
        if step == total - 1:
            slow.move_to(model)
            slow.clear()
    else:  # resumed with more epochs than it was begun with
        slow.clear()


def _look_ahead(slow: SlowWeights, model: nn.Module, done: int, total: int, every: int) -> None:
    if done % every == 0:
        slow.add(model, 1 - SLOWEST * (done / total) ** 3)
    if slow.count and (done % every == 0 or done == total):
        slow.move_to(model)


def averaged(model: nn.Module) -> list[Tensor]:
    """The network's own tensors of which the average is taken."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
