"""How long training will take, told once."""

from __future__ import annotations

import time

from cifar_cli.training.observer import Observer
from cifar_cli.training.runtime import Runtime
from cifar_cli.training.state import TrainState

# The estimate leaves out the first step, in which memory is set up and kernels are chosen.
ESTIMATE_STEPS = 3


class Clock:
    """Passes steps on, and once tells how long training will take."""

    def __init__(
        self,
        state: TrainState,
        steps: int,
        epochs: int,
        observer: Observer,
        runtime: Runtime,
    ) -> None:
        self.observer, self.runtime = observer, runtime
        self.left = (epochs - state.epoch + 1) * steps - state.step
        self.seen, self.second_step_began = 0, 0.0
        if runtime.device.type == "cpu":
            observer.watch(state.running)

    def stepped(self, epoch: int, step: int) -> None:
        self.seen += 1
        if self.seen in (1, ESTIMATE_STEPS):
            self.runtime.synchronize()
        if self.seen == 1:
            self.second_step_began = time.perf_counter()
        if self.seen == ESTIMATE_STEPS:
            took = time.perf_counter() - self.second_step_began
            self.observer.estimated(took / (ESTIMATE_STEPS - 1) * self.left)
        self.observer.stepped(epoch, step)
