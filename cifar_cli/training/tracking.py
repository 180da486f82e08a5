"""Trackers: observers that record a training elsewhere, and cannot end it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from cifar_cli.config import Config
from cifar_cli.errors import ConfigError, check_extra, nearest_hint
from cifar_cli.rundir import EpochRecord, RunDir, StepRecord
from cifar_cli.training.observer import Observer, Running, Sign


class Tracked(Observer):
    """Passes every event on to an observer, then to trackers.

    A tracker that raises an exception gets no further event: the observer gets a message, and the
    training continues. An exception of the observer itself is not held up.
    """

    def __init__(self, observer: Observer, trackers: Iterable[Observer]) -> None:
        self.observer = observer
        self.trackers = list(trackers)

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Pass it on."""
        self._pass(lambda each: each.progress(what, done, total))

    def started(self, run: RunDir, config: Config, images: int, steps: int, epoch: int) -> None:
        """Pass it on."""
        self._pass(lambda each: each.started(run, config, images, steps, epoch))

    def watch(self, running: Callable[[], Running]) -> None:
        """Pass it on."""
        self._pass(lambda each: each.watch(running))

    def stepped(self, epoch: int, step: int) -> None:
        """Pass it on."""
        self._pass(lambda each: each.stepped(epoch, step))

    def estimated(self, seconds: float) -> None:
        """Pass it on."""
        self._pass(lambda each: each.estimated(seconds))

    def steps_ended(self, records: Sequence[StepRecord]) -> None:
        """Pass it on."""
        self._pass(lambda each: each.steps_ended(records))

    def epoch_ended(self, record: EpochRecord) -> None:
        """Pass it on."""
        self._pass(lambda each: each.epoch_ended(record))

    def warning(self, sign: Sign) -> None:
        """Pass it on."""
        self._pass(lambda each: each.warning(sign))

    def message(self, text: str) -> None:
        """Pass it on."""
        self._pass(lambda each: each.message(text))

    def _pass(self, tell: Callable[[Observer], None]) -> None:
        tell(self.observer)
        for tracker in list(self.trackers):
            try:
                tell(tracker)
            except Exception as error:
                self.trackers.remove(tracker)
                reason = str(error) or type(error).__name__
                self.observer.message(
                    f"Warning: {type(tracker).__name__} failed and records nothing more, and the "
                    f"training continues. {reason}"
                )


class Tracker(NamedTuple):
    """A tracker that `train --track` knows."""

    packages: tuple[str, ...]
    """Modules that it needs; the extra that installs them has its name."""
    make: Callable[[], Observer]


def _tensorboard() -> Observer:
    from cifar_cli.training.event_files import TensorBoard

    return TensorBoard()


TRACKERS = {"tensorboard": Tracker(("tensorboard",), _tensorboard)}


def make_trackers(names: Iterable[str]) -> list[Observer]:
    """The trackers of these names, each once.

    Raises:
        ConfigError: There is no such tracker, or its packages are not installed; the message names
            the extra.
    """
    names = list(names)
    for name in names:
        if name not in TRACKERS:
            hint = nearest_hint(name, TRACKERS)
            raise ConfigError(f"--track {name!r}{hint}: choose one of {', '.join(TRACKERS)}.")
    chosen = {name: TRACKERS[name] for name in names}
    for name, tracker in chosen.items():
        check_extra(name, tracker.packages, f"--track {name}")
    return [tracker.make() for tracker in chosen.values()]
