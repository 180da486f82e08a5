"""Progress on stderr: bars if it is a terminal, and lines that say what happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.text import Text

from cifar_cli.config import Config
from cifar_cli.output.console import counted, duration, remarks
from cifar_cli.rundir import EpochRecord, RunDir
from cifar_cli.text import printable
from cifar_cli.training.observer import Observer, Running

LONG_SECONDS = 3600
WIDE = 100
"""Columns from which on the bar shows speed and the last validation too."""
QUICKER = "--recipe fast90 (minutes on a CPU), --epochs, --limit-train, or a GPU"


class _Left(ProgressColumn):
    """The time that is left."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        if left is None or task.finished:
            return Text("")
        return Text(f"{left:.0f} s left" if left < 60 else f"{duration(left)} left")


class Bars:
    """Progress bars by name on stderr if it is a terminal; otherwise nothing."""

    def __init__(self, quiet: bool = False, before: Iterable[str] = ()) -> None:
        self.quiet = quiet
        self.before = list(before)
        """Said before the first message, and not if an error comes first."""
        self.console = remarks()
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            _Left(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(
        self, what: str, done: int, total: int | None, note: str = "", title: str = ""
    ) -> None:
        """Show that `done` of `total` is done of `what`; `title` is shown in its place."""
        if what not in self._tasks:
            # Started at `done`, so that what earlier processes did does not count as speed.
            self._tasks[what] = self._bars.add_task(
                printable(title or what), total=total, completed=done, note=""
            )
        self._bars.update(
            self._tasks[what],
            completed=done,
            total=total,
            note=note,
            description=printable(title or what),
        )

    def say(self, texts: Iterable[str]) -> None:
        """Print messages, above the bars."""
        texts = list(texts)
        if texts and not self.quiet:
            for text in [*self.before, *texts]:
                self.console.say(text)
            self.before = []

    def remove(self, what: str) -> None:
        """Take a bar away."""
        if what in self._tasks:
            self._bars.remove_task(self._tasks.pop(what))


class TrainDisplay(Bars, Observer):
    """Shows training: bars and epoch lines on a terminal, one plain line per epoch elsewhere."""

    def __init__(self, config: Config, quiet: bool = False, before: Iterable[str] = ()) -> None:
        super().__init__(quiet, before)
        self.config = config
        self.num_images = self.steps = self.first_step = 0
        self.shown = 0.0
        self.began: float | None = None
        self.running: Callable[[], Running] | None = None
        self.last = ""

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Show what happens before training."""
        self.update(what, done, total)

    def message(self, text: str) -> None:
        """Print a message."""
        self.say([text])

    def started(self, run: RunDir, config: Config, images: int, steps: int, epoch: int) -> None:
        """Say what begins."""
        for what in list(self._tasks):
            self.remove(what)
        self.num_images, self.steps = images, steps
        verb = "Training" if epoch == 1 else f"Resuming at epoch {epoch}:"
        self.message(
            f"{verb} {counted(images, 'image')}, {counted(config.train.epochs, 'epoch')} of "
            f"{counted(steps, 'step')}; run directory {run.path}"
        )

    def watch(self, running: Callable[[], Running]) -> None:
        """Show the figures of the running epoch too."""
        self.running = running

    def stepped(self, epoch: int, step: int) -> None:
        """Move the bar on, a few times a second."""
        now = time.perf_counter()
        # The first step sets up memory, and a resumed epoch has steps behind it.
        if self.began is None:
            self.began, self.first_step = now, step
        if now - self.shown < 0.2 and step < self.steps:
            return
        self.shown = now
        total = self.config.train.epochs * self.steps
        done = (epoch - 1) * self.steps + step
        seen = min(step * self.config.train.batch_size, self.num_images)
        notes = []
        if self.running:
            loss, correct = self.running()
            notes.append(f"loss {loss:.3f}  acc {correct / seen:.1%}")
        if self.last and (not self.running or self.console.width >= WIDE):
            notes.append(self.last)
        seen -= self.first_step * self.config.train.batch_size
        if seen > 0 and self.console.width >= WIDE:
            notes.append(f"{seen / (now - self.began):,.0f} images/s")
        title = f"Epoch {epoch}/{self.config.train.epochs}"
        self.update("Training", done, total, "  ".join(notes), title)

    def estimated(self, seconds: float) -> None:
        """Warn if training will take more than an hour."""
        if seconds > LONG_SECONDS:
            self.message(f"This will take about {duration(seconds)}. Quicker: {QUICKER}.")

    def epoch_ended(self, record: EpochRecord) -> None:
        """Print the epoch's line."""
        self.last = f"val acc {record.val_accuracy:.1%}"
        self.began, self.first_step = time.perf_counter(), 0
        epoch = f"epoch {record.epoch:>{len(str(self.config.train.epochs))}}"
        accuracies = f"{record.train_accuracy:7.2%}", f"{record.val_accuracy:7.2%}"
        rest = f"lr {record.lr:.3g}  {duration(record.seconds)}"
        line = (
            f"{epoch}  train loss {record.train_loss:.4f}  acc {accuracies[0]}"
            f"  val loss {record.val_loss:.4f}  acc {accuracies[1]}  {rest}"
        )
        if len(line) > self.console.width:  # the loss and the accuracy of each split, as above
            line = (
                f"{epoch}  train {record.train_loss:.4f} {accuracies[0]}"
                f"  val {record.val_loss:.4f} {accuracies[1]}  {rest}"
            )
        self.message(line)
