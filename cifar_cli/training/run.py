"""One run from configuration to run directory: the public `train`."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from functools import partial

from cifar_cli.config import Config
from cifar_cli.config.loading import config_yaml
from cifar_cli.data.loader import TrainLoader
from cifar_cli.data.opening import open_images
from cifar_cli.data.splits import Splits, validation_note
from cifar_cli.data.types import BadImage
from cifar_cli.errors import CifarError, Interrupted
from cifar_cli.rundir import EpochRecord, RunDir
from cifar_cli.storage import check_place, write_csv, write_text
from cifar_cli.training.checkpoint import restore, save_checkpoint, set_aside
from cifar_cli.training.clock import Clock
from cifar_cli.training.environment import describe_environment
from cifar_cli.training.loop import train_epochs
from cifar_cli.training.memory import fewer_images, memory_errors, smaller_batch
from cifar_cli.training.observer import Observer, Sign
from cifar_cli.training.opening import OpenRun, open_run
from cifar_cli.training.pretrained import start_from, weights_for
from cifar_cli.training.result import TrainResult, finish, finished
from cifar_cli.training.resume import (
    Change,
    changed_images,
    check_position,
    inexact_reasons,
    listed,
    restarts_epoch,
    resumed_settings,
    with_folder,
)
from cifar_cli.training.runtime import Runtime, compile_errors
from cifar_cli.training.state import Start, TrainState, new_state
from cifar_cli.training.stop_signal import StopSignal
from cifar_cli.training.warning_signs import signs_after, signs_before

__all__ = ["TrainResult", "train"]

STOPPING = "Finishing this step, then saving. Press Ctrl-C again to quit without saving."


def train(
    config: Config,
    run_dir: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    resume: bool = False,
    allow_changes: bool = False,
    observer: Observer | None = None,
) -> TrainResult:
    """Train as `config` says, and leave a run directory.

    Args:
        config: What to compute, as `load_config` returns it.
        run_dir: The run directory; None makes one under `runs/`.
        name: The name under `runs/`; None takes the date and time.
        resume: Resume the run in `run_dir`, if there is one.
        allow_changes: Resume also with other settings, or other images, than the run's own; not
            with such as may move validation images into training.
        observer: Receives progress; None: nobody does.

    Raises:
        CifarError: One of its kinds, each with its exit code; see `cifar_cli.errors`.
    """
    with open_run(run_dir, name, resume) as opened:
        return train_in(opened, config, allow_changes, observer or Observer())


def train_in(
    opened: OpenRun, config: Config, allow_changes: bool, observer: Observer
) -> TrainResult:
    """Train in a run directory that is open; arguments and errors as of `train`."""
    runtime = Runtime.start(config, observer.message)
    run, checkpoint = opened.run, opened.checkpoint
    changed: list[Change] = []
    if checkpoint:
        config, changed = resumed_settings(config, checkpoint, allow_changes)
        if checkpoint.path != run.last:
            observer.message(f"last.pt is missing or damaged; resuming from {checkpoint.path}.")
        if done := finished(run, checkpoint, config):
            observer.message(f"{run.path} is complete; there is nothing to do.")
            return done
    elif opened.is_resume:
        observer.message(f"Nothing to resume in {run.path}: starting a new run.")
    check_place(run.path)
    trained = None if checkpoint else weights_for(config)
    if trained:
        stored = config.train.model_copy(update={"init": str(trained.path)})
        config = config.model_copy(update={"train": stored})
    with memory_errors(*fewer_images(config)):
        # The folder that a run names may be somebody else's: it is read, not written to.
        suggested = checkpoint.config.data.dir if checkpoint else None
        config, dataset, splits = open_images(config, observer.progress, suggested)
        config = with_folder(config, suggested)
        for note in dataset.notes:
            observer.message(note)
        loader = opened.stack.enter_context(TrainLoader(splits.train, config, runtime.device))
        start = None
        if trained:
            start = start_from(trained, splits.class_names)
            observer.message(start.note)
        elif checkpoint and checkpoint.training and config.train.init:
            start = Start(checkpoint.training.new_head)
        if config.optim.max_lr == "auto":
            config = _with_found_lr(config, splits, loader, runtime, observer, start)
        state = new_state(config, len(splits.class_names), runtime, loader, start)
        if checkpoint:
            restore(state, checkpoint)
            changed += changed_images(dataset, splits, checkpoint, config, allow_changes)
            check_position(state, checkpoint, loader, changed)
        loader.wait_until_ready()
    if changed:
        observer.message(f"Resuming with changes: {listed(changed)}.")
        if state.step and restarts_epoch(changed):
            observer.message(f"Epoch {state.epoch} starts over at its first step.")
            state.restart_epoch()
    # A run that was killed before its first checkpoint starts over in its folder.
    run = opened.make()
    if checkpoint and checkpoint.path != run.last:
        set_aside(run.last)
    _write_start(run, state, loader, config, runtime, observer, dataset.skipped)
    return _train_in(run, state, loader, splits, config, runtime, observer)


def _train_in(
    run: RunDir,
    state: TrainState,
    loader: TrainLoader,
    splits: Splits,
    config: Config,
    runtime: Runtime,
    observer: Observer,
) -> TrainResult:
    observer.started(run, config, len(splits.train), loader.steps, state.epoch)
    observer.message(validation_note(splits))
    warned: set[str] = set()

    def warn(signs: list[Sign]) -> list[Sign]:
        for sign in signs:
            if sign.key not in warned:
                warned.add(sign.key)
                run.log("warning", **sign._asdict())
                observer.warning(sign)
        return signs

    is_weighted = state.class_weights is not None
    batch_size, epochs = config.train.batch_size, config.train.epochs
    early = warn(signs_before(splits, batch_size, is_weighted, epochs))
    stop = StopSignal(lambda: observer.message(STOPPING))
    loader.heed(stop)
    clock = Clock(state, loader.steps, config.train.epochs, observer, runtime)
    save = partial(
        save_checkpoint,
        state=state,
        config=config,
        class_names=splits.class_names,
        data=splits.fingerprint,
    )
    late: list[Sign] = []
    saved, completed = time.monotonic(), len(state.history)
    best = state.best_accuracy

    def pause() -> bool:
        return stop() or time.monotonic() - saved > 60 * config.train.save_minutes

    try:
        with stop.listening(), memory_errors(*smaller_batch(config)), compile_errors(config):
            for ended in train_epochs(
                state, loader, splits.val, config, runtime, pause=pause, on_step=clock.stepped
            ):
                # last.pt comes after what goes with it: a run that is killed in between does the
                # epoch once more, and writes all of it again.
                if ended:
                    record, steps = ended
                    if record.val_accuracy > best:
                        best = record.val_accuracy
                        save(run.best, weights_only=True)
                    run.append_steps(steps)
                save(run.last)
                saved, completed = time.monotonic(), len(state.history)
                if ended:
                    observer.steps_ended(steps)
                    _report(run, record, state, config, observer)
                    late = warn(signs_after(state, splits, config.train.epochs))
                if stop.number is not None and state.epoch <= config.train.epochs:
                    raise Interrupted(
                        f"Stopped in epoch {state.epoch} after step {state.step}; everything is "
                        "saved.",
                        "Resume with: cifar-resnet train --resume --run-dir "
                        f"{shlex.quote(str(run.path))}",
                        stop.number,
                    )
    except BaseException as error:
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        _note_end(run, "interrupted" if stopped else "failed", state, completed, error)
        raise
    return finish(run, state, splits, early + late)


def _write_start(
    run: RunDir,
    state: TrainState,
    loader: TrainLoader,
    config: Config,
    runtime: Runtime,
    observer: Observer,
    skipped: Sequence[BadImage],
) -> None:
    """Write what a run directory holds before its first step, or its first step after a resume."""
    is_resumed = bool(state.history or state.step)
    environment = describe_environment(runtime, state.model)
    reasons = inexact_reasons(run, environment, config) if is_resumed else []
    if reasons:
        observer.message(f"Not bit-identical to an uninterrupted run. Reasons: {listed(reasons)}.")
    # The status comes first: it shows that the folder is a run.
    run.write_status("running", epochs_completed=len(state.history), epochs=config.train.epochs)
    run.check_place()
    run.clear_away()
    run.remove_result()
    write_text(run.config, config_yaml(config))
    run.write_env(environment)
    run.write_metrics(state.history)
    if run.trim_steps((state.epoch - 1) * loader.steps):
        observer.message("steps.csv was damaged; its sound lines stay, and the rest is dropped.")
    if skipped:
        rows = [image._asdict() for image in skipped]
        write_csv(run.path / "skipped_images.csv", list(BadImage._fields), rows)
    details = {"changed": list(map(str, reasons))} if reasons else {}
    run.log("resumed" if is_resumed else "started", epoch=state.epoch, **details)


def _report(
    run: RunDir, record: EpochRecord, state: TrainState, config: Config, observer: Observer
) -> None:
    """Report an epoch that is saved, in the run's files and to the observer."""
    run.write_metrics(state.history)
    run.write_status("running", epochs_completed=record.epoch, epochs=config.train.epochs)
    run.log("epoch", **record.__dict__)
    observer.epoch_ended(record)


def _note_end(
    run: RunDir, how: str, state: TrainState, completed: int, error: BaseException
) -> None:
    """Note how a run ended; if even that cannot be written, the error itself is enough."""
    try:
        message = str(error) or type(error).__name__
        run.write_status(how, epochs_completed=completed, message=message)
        run.log(how, epoch=state.epoch, step=state.step)
    except CifarError:
        return


def _with_found_lr(
    config: Config,
    splits: Splits,
    loader: TrainLoader,
    runtime: Runtime,
    observer: Observer,
    start: Start | None,
) -> Config:
    """Run the LR range test, and put its suggestion into the configuration."""
    from cifar_cli.training.lr_search import lr_range_test

    observer.message("Running the LR range test first (at most 200 steps).")
    with memory_errors(*smaller_batch(config)):
        curve = lr_range_test(
            config, splits, runtime, loader=loader, start=start, on_step=observer.progress
        )
    observer.message(f"The LR range test suggests --max-lr {curve.suggestion:.3g}.")
    optim = config.optim.model_copy(update={"max_lr": float(f"{curve.suggestion:.3g}")})
    return config.model_copy(update={"optim": optim})
