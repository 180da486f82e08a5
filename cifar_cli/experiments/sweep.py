"""Train the trials of a study, one after the other, beside any number of other workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from cifar_cli.config import Config
from cifar_cli.data.opening import open_images
from cifar_cli.errors import CifarError, ConfigError, DivergedError, Interrupted
from cifar_cli.experiments.storage import (
    ERROR,
    SURPLUS,
    attempt_of,
    attempts_in,
    draw,
    storage_errors,
    try_again,
    values_of,
)
from cifar_cli.experiments.study_file import Study, first_values
from cifar_cli.experiments.trials import Attempt, Tally, may_run, tally
from cifar_cli.rundir import EpochRecord, RunDir
from cifar_cli.training.observer import Observer
from cifar_cli.training.run import train

if TYPE_CHECKING:
    import optuna

POLL_SECONDS = 1.0


class _NotMine(Exception):  # noqa: N818 - no error: another worker has the trial
    """This attempt is one too many."""


@dataclass(frozen=True)
class Trial:
    """One trial of a study that is over, or still runs."""

    number: int
    """Of its first attempt; its runs are in `trials/NUMBER`."""
    state: str
    values: Mapping[str, Any]
    """Of the searched settings."""
    objective: float | None
    """None unless it is complete; of a pruned one the last that it reported."""
    epochs: int
    error: str = ""


class Place:
    """A study that is open: what is searched, where it is kept, and where its runs go."""

    def __init__(self, study: Study, opened: optuna.Study, url: str, folder: Path) -> None:
        self.study, self.opened, self.url, self.folder = study, opened, url, folder

    def attempts(self) -> list[Attempt]:
        """All attempts at all trials."""
        with storage_errors(self.url):
            return attempts_in(self.opened)

    def trials(self) -> list[Trial]:
        """All trials, in order, with their last attempt."""
        with storage_errors(self.url):
            stored = self.opened.get_trials(deepcopy=False)
        own: dict[int, Trial] = {}
        for trial in stored:
            attempt = attempt_of(trial)
            before = own.get(attempt.first)
            is_over = before is not None and before.state in ("complete", "pruned")
            if not attempt.is_surplus and not is_over:
                own[attempt.first] = self._trial(trial, attempt)
        return [own[first] for first in sorted(own)]

    def _trial(self, stored: optuna.trial.FrozenTrial, attempt: Attempt) -> Trial:
        reported = stored.intermediate_values
        last = reported[max(reported)] if reported else None
        value = stored.value if attempt.state == "complete" else last
        state = "lost" if attempt.state == "failed" and not attempt.error else attempt.state
        values = values_of(stored, self.study)
        return Trial(attempt.first, state, values, value, max(reported, default=0), attempt.error)


class _Watch(Observer):
    """Reports each epoch of a trial's first training, and ends it when it is pruned."""

    def __init__(self, trial: optuna.Trial, study: Study) -> None:
        self.trial, self.study = trial, study

    def started(self, run: RunDir, config: Config, images: int, steps: int, epoch: int) -> None:
        for record in run.read_metrics():  # of the attempt that was lost
            self._report(record)

    def epoch_ended(self, record: EpochRecord) -> None:
        from optuna import TrialPruned

        self._report(record)
        if self.trial.should_prune():
            raise TrialPruned

    def _report(self, record: EpochRecord) -> None:
        self.trial.report(getattr(record, self.study.objective), record.epoch)


def check_images(study: Study) -> None:
    """Refuse a study whose trials would be compared on the test split.

    Raises:
        ConfigError: They would.
        CifarError: The images cannot be had.
    """
    config = study.config(first_values(study))
    if open_images(config).splits.val_is_test:
        raise ConfigError(
            f"{config.data.source}: trials would be compared on the test split, and the best of "
            "many would look better there than it is.",
            "Hold out training images: set: {data.val_fraction: 0.1}",
        )


def work(place: Place, on_trial: Callable[[Trial, Tally], None]) -> None:
    """Train trials until the study is complete, or its minutes are over.

    Trials that other workers have lost are resumed. While others train the last ones, it waits.

    Args:
        place: The study.
        on_trial: Told of each trial that ended here.

    Raises:
        Interrupted: A signal; the trial is saved, and the next worker resumes it.
        StorageError: The storage or a folder cannot be written.
    """
    import optuna

    until = time.monotonic() + 60 * (place.study.minutes or float("inf"))
    while time.monotonic() < until:
        attempts = place.attempts()
        state = tally(attempts)
        if state.finished >= place.study.trials:
            return
        is_waiting = any(attempt.state == "waiting" for attempt in attempts)
        with storage_errors(place.url):
            if state.lost:
                try_again(place.opened, state.lost[0])
            elif state.begun >= place.study.trials and not is_waiting:
                time.sleep(POLL_SECONDS)
                optuna.storages.fail_stale_trials(place.opened)
                continue
            seen: list[int] = []
            try:
                attempt = partial(_attempt, place, seen)
                place.opened.optimize(attempt, n_trials=1, catch=(_NotMine,))
            except optuna.exceptions.UpdateFinishedTrialError:
                seen.clear()  # this process was held up for so long that another one took it over
            except Interrupted as error:
                raise Interrupted(
                    f"Stopped in trial {seen[0]}; everything is saved.",
                    "Resume with the same command.",
                    error.exit_code - 128,
                ) from error
        for trial in place.trials():
            if trial.number in seen:
                on_trial(trial, tally(place.attempts()))


def _attempt(place: Place, seen: list[int], trial: optuna.Trial) -> float:
    """Train a trial, or what is left of it; the objective, mean over its seeds."""
    from optuna import TrialPruned

    study, attempts = place.study, place.attempts()
    own = next(a for a in attempts if a.number == trial.number)
    if not may_run(attempts, own.number, study.trials):
        trial.set_user_attr(SURPLUS, True)
        raise _NotMine
    seen.append(own.first)
    values = draw(trial, study)
    try:
        results = []
        for seed in range(1, study.seeds + 1):
            watch = _Watch(trial, study) if seed == 1 else Observer()
            folder = place.folder / "trials" / f"{own.first:04d}" / f"seed-{seed}"
            results.append(trained(study, values, seed, folder, watch))
        return fmean(results)
    except DivergedError as error:
        trial.set_user_attr("diverged", str(error))
        raise TrialPruned from error
    except Interrupted:
        raise
    except CifarError as error:
        if error.exit_code == 7:  # a full disk is no property of the trial
            raise
        trial.set_user_attr(ERROR, str(error))
        raise _NotMine from error


def trained(
    study: Study, values: Mapping[str, Any], seed: int, folder: Path, observer: Observer
) -> float:
    """Train with values in a folder, or resume there; the objective at the end."""
    config = study.config(values, seed)
    while RunDir(folder).is_running:  # a worker that is taken for dead, and is only slow
        time.sleep(POLL_SECONDS)
    result = train(config, folder, resume=True, observer=observer)
    objective: float = getattr(result, study.objective)
    return objective


def best_of(trials: Sequence[Trial], study: Study) -> Trial | None:
    """The complete trial with the best objective; the earliest of equals."""
    sign = -1 if study.direction == "maximize" else 1
    complete = [t for t in trials if t.state == "complete" and t.objective is not None]
    return min(complete, key=lambda t: (sign * (t.objective or 0.0), t.number), default=None)


def confirm(place: Place, trial: Trial, seeds: int, progress: Callable[[str], None]) -> list[float]:
    """Train the settings of a trial again, with seeds that the study has not used.

    Args:
        seeds: How many trainings.
        progress: Told what comes next.

    Returns:
        The objective of each.
    """
    found = []
    for seed in range(place.study.seeds + 1, place.study.seeds + 1 + seeds):
        progress(f"Trial {trial.number} again, with seed {seed}")
        folder = place.folder / "confirm" / f"{trial.number:04d}" / f"seed-{seed}"
        found.append(trained(place.study, trial.values, seed, folder, Observer()))
    return found
