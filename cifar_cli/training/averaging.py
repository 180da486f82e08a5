"""The mean of a network's weights over the last steps of training.

Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization"
(https://arxiv.org/abs/1803.05407); here batch norm's statistics are averaged along with the
weights, which spares a pass over the images.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class WeightMean:
    """Running mean of all floating-point weights and buffers of a network."""

    count: int = 0
    """Of the steps in it."""
    tensors: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Take in the weights as they are."""
        self.count += 1
        if self.count == 1:
            self.tensors = [tensor.clone() for tensor in averaged(model)]
        for mean, tensor in zip(self.tensors, averaged(model), strict=True):
            mean.lerp_(tensor, 1 / self.count)

    @torch.no_grad()
    def move_to(self, model: nn.Module) -> None:
        """Put the mean into the network, and forget it."""
        for mean, tensor in zip(self.tensors, averaged(model), strict=True):
            tensor.copy_(mean)
        self.count, self.tensors = 0, []


def averaged(model: nn.Module) -> list[Tensor]:
    """The network's own tensors of which the mean is taken."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
