"""One run from configuration to run directory: the public `train`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from cifar_cli.config import Config
from cifar_cli.config.loading import config_yaml, flat_settings
from cifar_cli.data import Splits, choose_splits, load_dataset
from cifar_cli.data.loader import TrainLoader
from cifar_cli.errors import CifarError, ConfigError, Interrupted
from cifar_cli.models import build_model
from cifar_cli.rundir import EpochRecord, RunDir, create_run, run_path, write_text
from cifar_cli.training.checkpoint import Checkpoint, load_newest, restore, save_checkpoint
from cifar_cli.training.observer import Observer
from cifar_cli.training.optim import build_optimizer
from cifar_cli.training.runtime import (
    StopSignal,
    describe_environment,
    memory_errors,
    place_model,
    prepare_runtime,
    smaller_batch,
)
from cifar_cli.training.trainer import TrainState, train_epochs

# How a run is carried on may change at a resume; what it computes may not.
FREE_TO_CHANGE = {"data.dir", "data.source", "data.workers", "device", "runtime"}
# The estimate leaves out the first step, in which memory is set up and kernels are chosen.
ESTIMATE_STEPS = 3


@dataclass(frozen=True)
class TrainResult:
    """Where a run lies, and what it came to. Accuracies are fractions, losses means per image."""

    run_dir: Path
    epochs_completed: int
    val_accuracy: float
    val_loss: float
    best_val_accuracy: float
    train_seconds: float
    history: tuple[EpochRecord, ...]


def train(
    config: Config,
    run_dir: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    resume: bool = False,
    observer: Observer | None = None,
) -> TrainResult:
    """Train as `config` says, and leave a run directory.

    Args:
        config: What to compute, as `load_config` returns it.
        run_dir: The run directory; None makes one under `runs/`.
        name: The name under `runs/`; None takes the date and time.
        resume: Go on with the run in `run_dir`, where there is one.
        observer: Told of progress; None: nobody is.

    Raises:
        CifarError: One of its kinds, each with its exit code; see `cifar_cli.errors`.
    """
    observer = observer or Observer()
    device = prepare_runtime(config)
    target = _target(run_dir, name)
    checkpoint = load_newest(RunDir(target).last) if resume else None
    if checkpoint:
        config = _same_settings(config, checkpoint)
        if checkpoint.path != RunDir(target).last:
            observer.message(f"last.pt is missing or damaged; going on from {checkpoint.path}.")
    elif resume:
        observer.message(f"Nothing to resume in {target}: starting fresh.")
    with memory_errors(smaller_batch(config)):
        dataset = load_dataset(config.data, observer.progress)
        splits = choose_splits(dataset, config.data, config.seed)
        if checkpoint and checkpoint.class_names != splits.class_names:
            raise ConfigError(
                f"{target} was trained on the classes {', '.join(checkpoint.class_names)}; "
                f"the data has {', '.join(splits.class_names)}."
            )
        if config.optim.max_lr == "auto":
            config = _with_found_lr(config, splits, device, observer)
        loader = TrainLoader(splits.train, config, device)
        state = _fresh_state(config, len(splits.class_names), device)
        if checkpoint:
            restore(state, checkpoint)
    run = RunDir(target) if checkpoint else create_run(target)
    return _train_in(run, state, loader, splits, config, observer)


def _train_in(
    run: RunDir,
    state: TrainState,
    loader: TrainLoader,
    splits: Splits,
    config: Config,
    observer: Observer,
) -> TrainResult:
    write_text(run.config, config_yaml(config))
    run.write_env(describe_environment(loader.device))
    run.write_metrics(state.history)
    run.write_status("running", epochs_completed=len(state.history), epochs=config.train.epochs)
    run.log("resumed" if state.history or state.step else "started", epoch=state.epoch)
    observer.started(run, config, len(splits.train), loader.steps, state.epoch)
    if splits.val_is_test:
        observer.message("The test split is used for validation; the last epoch is the headline.")
    stop = StopSignal(lambda: observer.message("Stopping after this step …"))
    clock = _Clock(state, loader.steps, config.train.epochs, observer)
    try:
        with stop.listening(), memory_errors(smaller_batch(config)):
            epochs = train_epochs(
                state, loader, splits.val, config, stop=stop, on_step=clock.stepped
            )
            best = state.best_accuracy
            for record, steps in epochs:
                # last.pt comes after what goes with it: a run that is killed in between does the
                # epoch once more, and writes all of it again.
                if record.val_accuracy > best:
                    best = record.val_accuracy
                    save_checkpoint(run.best, state, config, splits.class_names, weights_only=True)
                run.append_steps(steps)
                save_checkpoint(run.last, state, config, splits.class_names)
                run.write_metrics(state.history)
                run.write_status(
                    "running", epochs_completed=record.epoch, epochs=config.train.epochs
                )
                run.log("epoch", **record.__dict__)
                observer.epoch_ended(record)
                if stop():
                    break
            if stop.number is not None and state.epoch <= config.train.epochs:
                save_checkpoint(run.last, state, config, splits.class_names)
                raise Interrupted(
                    f"Stopped in epoch {state.epoch} after step {state.step}; everything is saved. "
                    f"Go on with: cifar-resnet train --resume --run-dir {run.path}",
                    stop.number,
                )
    except BaseException as error:
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        _note_end(run, "interrupted" if stopped else "failed", state, error)
        raise
    return _finish(run, state, splits)


def _finish(run: RunDir, state: TrainState, splits: Splits) -> TrainResult:
    final = state.history[-1]
    result = TrainResult(
        run_dir=run.path,
        epochs_completed=final.epoch,
        val_accuracy=final.val_accuracy,
        val_loss=final.val_loss,
        best_val_accuracy=state.best_accuracy,
        train_seconds=sum(record.seconds for record in state.history),
        history=tuple(state.history),
    )
    run.write_result(
        {
            "epochs_completed": result.epochs_completed,
            "val_accuracy": result.val_accuracy,
            "val_loss": result.val_loss,
            "best_val_accuracy": result.best_val_accuracy,
            "train_seconds": result.train_seconds,
            "validated_on": "test split" if splits.val_is_test else "held-out training images",
            "train_images": len(splits.train),
            "val_images": len(splits.val),
        }
    )
    run.write_status("completed", epochs_completed=final.epoch, epochs=final.epoch)
    run.log("completed", val_accuracy=final.val_accuracy)
    return result


def _note_end(run: RunDir, how: str, state: TrainState, error: BaseException) -> None:
    """Note how a run ended; where even that cannot be written, the error itself is enough."""
    try:
        message = str(error) or type(error).__name__
        run.write_status(how, epochs_completed=len(state.history), message=message)
        run.log(how, epoch=state.epoch, step=state.step)
    except CifarError:
        return


def _target(run_dir: str | os.PathLike[str] | None, name: str | None) -> Path:
    if run_dir is not None:
        return Path(run_dir)
    return run_path(name or time.strftime("%Y%m%d-%H%M%S"))


def _same_settings(config: Config, checkpoint: Checkpoint) -> Config:
    """The run's own configuration, with what may change taken from the new one.

    Raises:
        ConfigError: Something that decides the result would change.
    """
    old = checkpoint.config
    if config.optim.max_lr == "auto":
        found = config.optim.model_copy(update={"max_lr": old.optim.max_lr})
        config = config.model_copy(update={"optim": found})
    before, now = flat_settings(old), flat_settings(config)
    changed = [
        f"{key} {before[key]!r} → {now[key]!r}"
        for key in before
        if before[key] != now[key]
        and key not in FREE_TO_CHANGE
        and key.split(".")[0] not in FREE_TO_CHANGE
    ]
    if changed:
        raise ConfigError(
            f"--resume goes on with the settings of {checkpoint.path.parent.parent}, but these "
            f"differ: {'; '.join(changed)}. Leave them out, or start a new run."
        )
    return config


def _fresh_state(config: Config, num_classes: int, device: torch.device) -> TrainState:
    torch.manual_seed(config.seed)
    model = build_model(config.model, num_classes, config.data.image_size)
    model = place_model(model, config, device)
    assert not isinstance(config.optim.max_lr, str)
    return TrainState(model, build_optimizer(model, config.optim, config.optim.max_lr))


def _with_found_lr(
    config: Config, splits: Splits, device: torch.device, observer: Observer
) -> Config:
    """Run the LR range test, and put its suggestion into the configuration."""
    from cifar_cli.training.lr_search import lr_range_test

    observer.message("First the LR range test, 200 steps at most.")
    curve = lr_range_test(config, splits, device, on_step=observer.progress)
    observer.message(f"The LR range test suggests --max-lr {curve.suggestion:.3g}.")
    optim = config.optim.model_copy(update={"max_lr": float(f"{curve.suggestion:.3g}")})
    return config.model_copy(update={"optim": optim})


class _Clock:
    """Passes steps on, and once tells how long training will take."""

    def __init__(self, state: TrainState, steps: int, epochs: int, observer: Observer) -> None:
        self.observer, self.steps = observer, steps
        self.left = (epochs - state.epoch + 1) * steps - state.step
        self.seen, self.second_step_began = 0, 0.0

    def stepped(self, epoch: int, step: int) -> None:
        self.seen += 1
        if self.seen == 1:
            self.second_step_began = time.perf_counter()
        if self.seen == ESTIMATE_STEPS:
            took = time.perf_counter() - self.second_step_began
            self.observer.estimated(took / (ESTIMATE_STEPS - 1) * self.left)
        self.observer.stepped(epoch, step)
