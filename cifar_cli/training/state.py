"""Everything that changes in a run as it is trained: what a checkpoint holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cifar_cli.config import Config
from cifar_cli.data.loader import TrainLoader
from cifar_cli.models import build_model, head_name
from cifar_cli.rundir import EpochRecord
from cifar_cli.training.memory import memory_errors, smaller_network
from cifar_cli.training.observer import Running
from cifar_cli.training.optim import build_optimizer
from cifar_cli.training.runtime import Runtime
from cifar_cli.training.step import Outcome, class_weights

LAST_STEPS = 20


@dataclass
class TrainState:
    """A network in training, its optimiser, the position in the run, and the figures so far."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 1
    """The current epoch, counted from 1; beyond the last one, training is over."""
    step: int = 0
    """Steps done in the current epoch."""
    seconds: float = 0.0
    """Time spent in the current epoch by earlier processes."""
    losses: list[Tensor] = field(default_factory=list)
    """Mean loss of each step done in the current epoch; scalars on the device."""
    correct: Tensor | None = None
    """Images classified correctly in the current epoch; int64 scalar on the device."""
    history: list[EpochRecord] = field(default_factory=list)
    class_weights: Tensor | None = None
    """Of each class in the loss, float32 (C,); None: all alike. Follows from the images."""
    has_new_head: bool = False
    """Whether it started from a trained network's weights, all but the last layer's."""
    predicted: Tensor | None = None
    """How often each class was predicted in this process's last validation; int64 (C,)."""

    @property
    def best_accuracy(self) -> float:
        """Highest validation accuracy so far; -1 before the first epoch's end."""
        return max((record.val_accuracy for record in self.history), default=-1.0)

    def count(self, outcome: Outcome) -> None:
        """Add a step to the current epoch."""
        self.step += 1
        self.losses.append(outcome.loss)
        so_far = self.correct
        self.correct = outcome.correct if so_far is None else so_far + outcome.correct

    def running(self) -> Running:
        """Figures of the current epoch; waits for the device."""
        last = torch.stack(self.losses[-LAST_STEPS:]).mean() if self.losses else math.nan
        return Running(float(last), 0 if self.correct is None else int(self.correct))

    def restart_epoch(self) -> None:
        """Count the current epoch, or the next one, from its first step."""
        self.step, self.seconds, self.losses, self.correct = 0, 0.0, [], None


@dataclass(frozen=True)
class Start:
    """What a network starts from, if not from random weights."""

    has_new_head: bool
    """Whether its last layer is drawn anew, for other classes."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """Its tensors by name, without a new head's; empty for a run that is resumed."""
    note: str = ""
    """For the user: what was taken over."""


def new_state(
    config: Config,
    num_classes: int,
    runtime: Runtime,
    loader: TrainLoader | None = None,
    start: Start | None = None,
) -> TrainState:
    """A network and optimiser as training starts with them; seeds torch's generators.

    Args:
        config: Network, optimiser and seed; `optim.max_lr` is a number.
        num_classes: Number of logits.
        runtime: Where the network is placed.
        loader: Of the training images, which some networks are fitted to first, and whose classes
            are weighed; None: neither.
        start: Weights that it starts from; None: as drawn.

    Raises:
        ConfigError: The network cannot take images of that size.
        OutOfMemoryError: It does not fit into memory.
    """
    assert not isinstance(config.optim.max_lr, str), "auto is resolved before training starts"
    torch.manual_seed(config.seed)
    size = config.data.image_size
    sample = loader.sample if loader and not start else None
    with memory_errors(*smaller_network(config)):
        model = build_model(config.model, num_classes, size, sample, config.eval_size)
        if start:
            model.load_state_dict(start.weights, strict=False)
        new = f"{head_name(model)}." if start and start.has_new_head else ()
        model = runtime.place(model)
    names = [name for name, _ in model.named_parameters()] if start else []
    taken_over = [name for name in names if not name.startswith(new)]
    optimizer = build_optimizer(model, config.optim, config.optim.max_lr, taken_over)
    state = TrainState(model, optimizer, has_new_head=bool(new))
    if loader:
        labels, setting = loader.images.labels, config.train.class_weights
        state.class_weights = class_weights(labels, num_classes, setting)
    return state
