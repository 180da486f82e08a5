"""The training loop: a generator of epochs' records. It prints, draws and saves nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cifar_cli.config import Config
from cifar_cli.data.loader import TrainLoader
from cifar_cli.data.types import ImageSet
from cifar_cli.data.worker_pool import StoppedWaitingError
from cifar_cli.errors import DivergedError
from cifar_cli.rundir import EpochRecord, StepRecord
from cifar_cli.training.evaluation import predict_logits, score
from cifar_cli.training.runtime import Runtime
from cifar_cli.training.schedule import settings_at
from cifar_cli.training.state import TrainState
from cifar_cli.training.step import NotFiniteError, Step

_Batch = tuple[Tensor, Tensor]


def train_epochs(
    state: TrainState,
    loader: TrainLoader,
    val: ImageSet,
    config: Config,
    runtime: Runtime,
    *,
    pause: Callable[[], bool] = lambda: False,
    on_step: Callable[[int, int], None] = lambda epoch, step: None,
) -> Iterator[tuple[EpochRecord, list[StepRecord]] | None]:
    """Train to the last epoch, yielding each epoch's record and steps as it ends.

    If `pause()` is true after a step, None is yielded, with `state` at that step: the moment to
    save it, or to end. If a stop was asked for (`loader.is_stopping`) and loader processes give no
    batch, or the epoch is being validated, it is the last thing that is yielded. Synchronises with
    a GPU once an epoch, and at a pause.

    Raises:
        DivergedError: A loss or a gradient is not finite.
    """
    total, max_lr = config.train.epochs * loader.steps, float(config.optim.max_lr)
    train_step = Step(state.model, state.optimizer, config, runtime, state.class_weights)
    while state.epoch <= config.train.epochs:
        started = time.perf_counter() - state.seconds
        state.model.train()
        for batch in _until_stopped(loader.epoch(state.epoch, first_step=state.step)):
            if batch is None:
                if state.step:
                    _step_records(state, loader, config, total)
                yield None
                return
            step = (state.epoch - 1) * loader.steps + state.step
            settings = settings_at(step, total, max_lr, config.schedule)
            try:
                state.count(train_step(*batch, settings, step / total))
            except NotFiniteError as error:
                number = state.step + 1
                raise _diverged(error.what, error.value, state.epoch, number, settings.lr) from None
            state.seconds = time.perf_counter() - started
            on_step(state.epoch, state.step)
            if pause():
                _step_records(state, loader, config, total)  # all finite, or nothing is saved
                state.seconds = time.perf_counter() - started
                yield None
        steps = _step_records(state, loader, config, total)
        state.seconds = time.perf_counter() - started  # a GPU has done its steps only now
        record = _finish_epoch(state, steps, loader, val, runtime, started)
        if record is None:
            yield None
            return
        state.history.append(record)
        state.epoch += 1
        state.restart_epoch()
        yield record, steps


def _until_stopped(batches: Iterator[_Batch]) -> Iterator[_Batch | None]:
    """The same batches; at the end None, if a stop was asked for and the next one does not come."""
    try:
        yield from batches
    except StoppedWaitingError:
        yield None


def _step_records(
    state: TrainState, loader: TrainLoader, config: Config, total: int
) -> list[StepRecord]:
    losses = torch.stack(state.losses).float().cpu().tolist()
    first = (state.epoch - 1) * loader.steps
    max_lr = float(config.optim.max_lr)
    records = [
        StepRecord(step, settings_at(step, total, max_lr, config.schedule).lr, loss)
        for step, loss in enumerate(losses, start=first)
    ]
    for number, record in enumerate(records, start=1):
        if not math.isfinite(record.train_loss):
            what = "The loss or a gradient"
            raise _diverged(what, record.train_loss, state.epoch, number, record.lr)
    return records


def _finish_epoch(
    state: TrainState,
    steps: list[StepRecord],
    loader: TrainLoader,
    val: ImageSet,
    runtime: Runtime,
    started: float,
) -> EpochRecord | None:
    """The epoch's figures; None if a stop was asked for before they were there."""

    def end_if_stopping(done: int, count: int) -> None:
        if done < count and loader.is_stopping():
            raise StoppedWaitingError

    images = len(loader.images)
    sizes = [loader.batch_size] * (loader.steps - 1)
    sizes.append(images - sum(sizes))
    train_loss = sum(s.train_loss * n for s, n in zip(steps, sizes, strict=True)) / images
    assert state.correct is not None
    try:
        logits = predict_logits(
            state.model, val.images, loader.normalise, runtime, on_batch=end_if_stopping
        )
    except StoppedWaitingError:
        return None
    scores = score(logits, val.labels)
    state.predicted = torch.bincount(logits.argmax(1), minlength=logits.shape[1])
    if not math.isfinite(scores.loss):
        what = "The validation loss"
        raise _diverged(what, scores.loss, state.epoch, state.step, steps[-1].lr)
    return EpochRecord(
        epoch=state.epoch,
        train_loss=train_loss,
        train_accuracy=int(state.correct) / images,
        val_loss=scores.loss,
        val_accuracy=scores.accuracy,
        lr=steps[-1].lr,
        seconds=time.perf_counter() - started,
        train_seconds=state.seconds,
    )


def _diverged(what: str, value: float, epoch: int, step: int, lr: float) -> DivergedError:
    return DivergedError(
        f"{what} became {value} in epoch {epoch}, step {step}, at LR {lr:.3g}.",
        "Lower --max-lr (cifar-resnet find-lr suggests one) or raise --div-factor.",
    )
