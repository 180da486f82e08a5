"""Tables, progress and JSON on the terminal: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cifar_cli.config import Config
from cifar_cli.rundir import SCHEMA_VERSION, EpochRecord, RunDir
from cifar_cli.text import printable
from cifar_cli.training.observer import Observer

LONG_SECONDS = 3600
QUICKER = "--recipe fast90 (minutes on a CPU), --epochs, --limit-train, or a GPU"


class Screen(Console):
    """A console on which each text stands as it is: no markup, no emoji codes, no control codes.

    Every plain text that is printed, in a table or by itself, passes here; styled ones are made by
    `styled`.
    """

    def __init__(self, file: TextIO, width: int | None = None) -> None:
        # Wide enough for tables where no terminal says otherwise.
        width = width or (None if file.isatty() else 120)
        super().__init__(file=file, width=width, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a plain text into a line that is safe to print."""
        return super().render_str(printable(text), **options)


def results() -> Screen:
    """The console of results."""
    return Screen(sys.stdout)


def remarks() -> Screen:
    """The console of progress and warnings."""
    return Screen(sys.stderr)


def styled(text: str, style: str = "bold") -> Text:
    """A text in a style, safe to print."""
    return Text(printable(text), style=style)


def print_line(text: str) -> None:
    """Print one result as it is, on one line however long."""
    print(printable(text))


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout, in ASCII."""
    text = json.dumps(document, indent=2, allow_nan=False)
    print(text.replace("\x7f", "\\u007f"))  # the one control character that JSON leaves as it is


def duration(seconds: float) -> str:
    """Seconds as people say them: `42 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def counted(number: int, what: str) -> str:
    """`1 epoch`, `24 epochs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def print_files(files: Sequence[str | Path], as_json: bool = False) -> None:
    """List files that were written, one a line or as JSON."""
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "files": [str(f) for f in files]})
        return
    for file in files:
        print_line(str(file))


class Bars:
    """Progress bars by name on stderr where that is a terminal; otherwise nothing."""

    def __init__(self, quiet: bool = False) -> None:
        console = remarks()
        self.quiet = quiet
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def update(self, what: str, done: int, total: int | None, note: str = "") -> None:
        """Show that `done` of `total` is done of `what`."""
        if what not in self.tasks:
            # Started at `done`, so that what earlier processes did does not count as speed.
            self.tasks[what] = self.progress.add_task(
                printable(what), total=total, completed=done, note=""
            )
        self.progress.update(self.tasks[what], completed=done, total=total, note=note)

    def say(self, texts: Iterable[str]) -> None:
        """Print remarks, above the bars."""
        if not self.quiet:
            for text in texts:
                self.progress.console.print(text, soft_wrap=True)

    def remove(self, what: str) -> None:
        """Take a bar away."""
        if what in self.tasks:
            self.progress.remove_task(self.tasks.pop(what))


class TrainDisplay(Observer):
    """Shows training: bars and epoch lines on a terminal, one plain line an epoch elsewhere."""

    def __init__(self, config: Config, quiet: bool = False) -> None:
        self.config = config
        self.bars = Bars(quiet)
        self.images = self.steps = self.first_step = 0
        self.shown = 0.0
        self.began: float | None = None

    def __enter__(self) -> TrainDisplay:
        self.bars.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bars.__exit__(kind, error, traceback)

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Show what happens before training."""
        self.bars.update(what, done, total)

    def message(self, text: str) -> None:
        """Print a remark."""
        self.bars.say([text])

    def started(self, run: RunDir, config: Config, images: int, steps: int, epoch: int) -> None:
        """Say what begins."""
        for what in list(self.bars.tasks):
            self.bars.remove(what)
        self.images, self.steps = images, steps
        verb = "Training" if epoch == 1 else f"Resuming at epoch {epoch}:"
        self.message(
            f"{verb} {counted(images, 'image')}, {counted(config.train.epochs, 'epoch')} of "
            f"{counted(steps, 'step')}; run directory {run.path}"
        )

    def stepped(self, epoch: int, step: int) -> None:
        """Move the bars on, a few times a second."""
        now = time.perf_counter()
        # The first step sets up memory, and a resumed epoch has steps behind it.
        if self.began is None:
            self.began, self.first_step = now, step
        if now - self.shown < 0.2 and step < self.steps:
            return
        self.shown = now
        total = self.config.train.epochs * self.steps
        done = (epoch - 1) * self.steps + step
        self.bars.update("Training", done, total)
        seen = min(step * self.config.train.batch_size, self.images)
        seen -= self.first_step * self.config.train.batch_size
        speed = f"{seen / (now - self.began):,.0f} images/s" if seen > 0 else ""
        self.bars.update(f"Epoch {epoch}", step, self.steps, speed)

    def estimated(self, seconds: float) -> None:
        """Warn where training will take more than an hour."""
        if seconds > LONG_SECONDS:
            self.message(f"This will take about {duration(seconds)}. Quicker: {QUICKER}.")

    def epoch_ended(self, record: EpochRecord) -> None:
        """Print the epoch's line."""
        self.bars.remove(f"Epoch {record.epoch}")
        self.began, self.first_step = time.perf_counter(), 0
        self.message(
            f"epoch {record.epoch:>{len(str(self.config.train.epochs))}}"
            f"  train loss {record.train_loss:.4f}  acc {record.train_accuracy:7.2%}"
            f"  val loss {record.val_loss:.4f}  acc {record.val_accuracy:7.2%}"
            f"  lr {record.lr:.3g}  {duration(record.seconds)}"
        )
