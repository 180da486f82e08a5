"""What training tells the outside world while it runs. The engine itself never prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cifar_cli.config import Config
from cifar_cli.rundir import EpochRecord, RunDir, StepRecord


class Running(NamedTuple):
    """Figures of the epoch that is running."""

    loss: float
    """Mean of the last steps."""
    correct: int
    """Images classified correctly in the epoch so far."""


class Sign(NamedTuple):
    """What is suspicious, and what to do about it."""

    key: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}"


class Observer:
    """Does nothing at every event; override what is of interest."""

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Something before training moves on, such as a download or the LR range test."""

    def started(self, run: RunDir, config: Config, images: int, steps: int, epoch: int) -> None:
        """Training starts at `epoch`, with `images` images and `steps` steps an epoch."""

    def watch(self, running: Callable[[], Running]) -> None:
        """Called before the first step on a CPU: `running()` gives figures at any time at no cost.

        On other devices it is not called, as asking would hold up their work.
        """

    def stepped(self, epoch: int, step: int) -> None:
        """`step` steps of the epoch are done."""

    def estimated(self, seconds: float) -> None:
        """The first steps say how long the rest will take."""

    def steps_ended(self, records: Sequence[StepRecord]) -> None:
        """All steps of an epoch, just before `epoch_ended`."""

    def epoch_ended(self, record: EpochRecord) -> None:
        """An epoch is done, and saved."""

    def warning(self, sign: Sign) -> None:
        """Something suspicious; unless overridden a message."""
        self.message(f"Warning: {sign}")

    def message(self, text: str) -> None:
        """Something the user should know."""
