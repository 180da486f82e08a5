"""One run from configuration to run directory: the public `train`."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from cifar_cli.config import Config
from cifar_cli.config.loading import config_yaml
from cifar_cli.data.loader import TrainLoader
from cifar_cli.data.sources.load import load_dataset
from cifar_cli.data.splits import Splits, choose_splits
from cifar_cli.data.types import BadImage
from cifar_cli.errors import (
    CheckpointError,
    CifarError,
    Interrupted,
    nearest_hint,
)
from cifar_cli.models import build_model
from cifar_cli.rundir import EpochRecord, RunDir, create_run, known_runs, run_path
from cifar_cli.storage import check_place, write_csv, write_text
from cifar_cli.training.checkpoint import (
    Checkpoint,
    restore,
    save_checkpoint,
    set_aside,
)
from cifar_cli.training.clock import Clock
from cifar_cli.training.observer import Observer
from cifar_cli.training.optim import build_optimizer
from cifar_cli.training.result import TrainResult, finish, finished
from cifar_cli.training.resume import (
    Change,
    changed_images,
    check_position,
    checkpoint_of,
    inexact_reasons,
    listed,
    restarts_epoch,
    resumed_settings,
    with_folder,
)
from cifar_cli.training.runtime import (
    compile_errors,
    describe_environment,
    fewer_images,
    memory_errors,
    place_model,
    prepare_runtime,
    smaller_batch,
    smaller_network,
)
from cifar_cli.training.stop_signal import StopSignal
from cifar_cli.training.trainer import TrainState, train_epochs

__all__ = ["TrainResult", "train"]

ON_TEST_SPLIT = "Validating on the test split; the reported accuracy is that of the last epoch."
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
        resume: Go on with the run in `run_dir`, where there is one.
        allow_changes: Resume also with other settings, or other images, than the run's own; not
            with such as may move validation images into training.
        observer: Told of progress; None: nobody is.

    Raises:
        CifarError: One of its kinds, each with its exit code; see `cifar_cli.errors`.
    """
    observer = observer or Observer()
    device = prepare_runtime(config, observer.message)
    run = RunDir(_target(run_dir, name, resume))
    with ExitStack() as stack:
        checkpoint: Checkpoint | None = None
        changed: list[Change] = []
        is_here = resume and run.path.is_dir()
        if is_here:
            stack.enter_context(run.locked())
            checkpoint = checkpoint_of(run)
        if checkpoint:
            config, changed = resumed_settings(config, checkpoint, allow_changes)
            if checkpoint.path != run.last:
                observer.message(f"last.pt is missing or damaged; resuming from {checkpoint.path}.")
            if done := finished(run, checkpoint, config):
                observer.message(f"{run.path} is complete; there is nothing to do.")
                return done
        elif resume:
            observer.message(f"Nothing to resume in {run.path}: starting a new run.")
        check_place(run.path)
        with memory_errors(*fewer_images(config)):
            # The folder that a run names may be somebody else's: it is read, not written to.
            suggested = checkpoint.config.data.dir if checkpoint else None
            dataset = load_dataset(config.data, observer.progress, suggested)
            config = with_folder(config, suggested)
            for note in dataset.notes:
                observer.message(note)
            splits = choose_splits(dataset, config.data, config.seed)
            loader = stack.enter_context(TrainLoader(splits.train, config, device))
            if config.optim.max_lr == "auto":
                config = _with_found_lr(config, splits, loader, observer)
            state = _fresh_state(config, len(splits.class_names), loader)
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
        # A run that was killed before its first checkpoint starts over where it lies.
        if not is_here:
            is_named = run_dir is not None or name is not None
            run = create_run(run.path, exactly=resume and is_named)
            stack.enter_context(run.locked())
        if checkpoint and checkpoint.path != run.last:
            set_aside(run.last)
        return _train_in(run, state, loader, splits, config, observer, dataset.skipped)


def _train_in(
    run: RunDir,
    state: TrainState,
    loader: TrainLoader,
    splits: Splits,
    config: Config,
    observer: Observer,
    skipped: Sequence[BadImage],
) -> TrainResult:
    is_resumed = bool(state.history or state.step)
    environment = describe_environment(loader.device, state.model)
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
    observer.started(run, config, len(splits.train), loader.steps, state.epoch)
    if splits.val_is_test:
        observer.message(ON_TEST_SPLIT)
    stop = StopSignal(lambda: observer.message(STOPPING))
    loader.heed(stop)
    clock = Clock(state, loader.steps, config.train.epochs, observer, loader.device)
    save = partial(
        save_checkpoint,
        state=state,
        config=config,
        class_names=splits.class_names,
        data=splits.fingerprint,
    )
    saved, completed = time.monotonic(), len(state.history)
    best = state.best_accuracy

    def pause() -> bool:
        return stop() or time.monotonic() - saved > 60 * config.train.save_minutes

    try:
        with stop.listening(), memory_errors(*smaller_batch(config)), compile_errors(config):
            for ended in train_epochs(
                state, loader, splits.val, config, pause=pause, on_step=clock.stepped
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
                    _report(run, record, state, config, observer)
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
    return finish(run, state, splits)


def _report(
    run: RunDir, record: EpochRecord, state: TrainState, config: Config, observer: Observer
) -> None:
    """Tell of an epoch that is saved, in the run's files and outside."""
    run.write_metrics(state.history)
    run.write_status("running", epochs_completed=record.epoch, epochs=config.train.epochs)
    run.log("epoch", **record.__dict__)
    observer.epoch_ended(record)


def _note_end(
    run: RunDir, how: str, state: TrainState, completed: int, error: BaseException
) -> None:
    """Note how a run ended; where even that cannot be written, the error itself is enough."""
    try:
        message = str(error) or type(error).__name__
        run.write_status(how, epochs_completed=completed, message=message)
        run.log(how, epoch=state.epoch, step=state.step)
    except CifarError:
        return


def _target(run_dir: str | os.PathLike[str] | None, name: str | None, resume: bool) -> Path:
    if run_dir is not None:
        return Path(run_dir)
    target = run_path(name or time.strftime("%Y%m%d-%H%M%S"))
    # A place may be new, but a name that is to be resumed and is not among the others is a slip.
    if resume and name and not target.exists() and (others := known_runs()):
        names = [path.name for path in others]
        raise CheckpointError(
            f"--resume --name {name}: there is no such run{nearest_hint(name, names)}. Runs here: "
            f"{', '.join(names[-8:])}.",
            "To start a new one, leave out --resume.",
        )
    return target


def _fresh_state(config: Config, num_classes: int, loader: TrainLoader) -> TrainState:
    torch.manual_seed(config.seed)
    with memory_errors(*smaller_network(config)):
        size, eval_size = config.data.image_size, config.eval_size
        model = build_model(config.model, num_classes, size, loader.sample, eval_size)
        model = place_model(model, config, loader.device)
    assert not isinstance(config.optim.max_lr, str)
    return TrainState(model, build_optimizer(model, config.optim, config.optim.max_lr))


def _with_found_lr(
    config: Config, splits: Splits, loader: TrainLoader, observer: Observer
) -> Config:
    """Run the LR range test, and put its suggestion into the configuration."""
    from cifar_cli.training.lr_search import lr_range_test

    observer.message("Running the LR range test first (at most 200 steps).")
    with memory_errors(*smaller_batch(config)):
        curve = lr_range_test(
            config, splits, loader.device, loader=loader, on_step=observer.progress
        )
    observer.message(f"The LR range test suggests --max-lr {curve.suggestion:.3g}.")
    optim = config.optim.model_copy(update={"max_lr": float(f"{curve.suggestion:.3g}")})
    return config.model_copy(update={"optim": optim})
