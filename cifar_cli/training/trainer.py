"""The training loop: a generator of epochs' records. It prints, draws and saves nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_cli.config import Config
from cifar_cli.data.loader import TrainLoader
from cifar_cli.data.types import ImageSet
from cifar_cli.data.worker_pool import StoppedWaitingError
from cifar_cli.errors import DivergedError
from cifar_cli.models.speed_resnet import resized
from cifar_cli.rundir import EpochRecord, StepRecord
from cifar_cli.training.evaluation import predict_logits, score
from cifar_cli.training.optim import apply_settings
from cifar_cli.training.runtime import autocast
from cifar_cli.training.schedule import settings_at

_Batch = tuple[Tensor, Tensor]


@dataclass
class TrainState:
    """Everything that a run changes as it goes on; what a checkpoint holds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 1
    """The epoch at hand, counted from 1; beyond the last one, training is over."""
    step: int = 0
    """Steps done in the epoch at hand."""
    seconds: float = 0.0
    """Time spent in the epoch at hand by earlier processes."""
    losses: list[Tensor] = field(default_factory=list)
    """Mean loss of each step done in the epoch at hand; scalars on the device."""
    correct: Tensor | None = None
    """Images classified correctly in the epoch at hand; int64 scalar on the device."""
    history: list[EpochRecord] = field(default_factory=list)

    @property
    def best_accuracy(self) -> float:
        """Highest validation accuracy so far; -1 before the first epoch's end."""
        return max((record.val_accuracy for record in self.history), default=-1.0)

    def restart_epoch(self) -> None:
        """Count the epoch at hand, or the one that comes next, from its first step."""
        self.step, self.seconds, self.losses, self.correct = 0, 0.0, [], None


def train_epochs(
    state: TrainState,
    loader: TrainLoader,
    val: ImageSet,
    config: Config,
    *,
    pause: Callable[[], bool] = lambda: False,
    on_step: Callable[[int, int], None] = lambda epoch, step: None,
) -> Iterator[tuple[EpochRecord, list[StepRecord]] | None]:
    """Train to the last epoch, yielding each epoch's record and steps as it ends.

    Where `pause()` is true after a step, None is yielded, with `state` at that step: the moment
    to save it, or to end. If a stop was asked for (`loader.is_stopping`) and loader processes give
    no batch, or the epoch is being validated, it is the last thing that is yielded. Synchronises
    with a GPU once an epoch, and at a pause.

    Raises:
        DivergedError: A loss or a gradient is not finite.
    """
    device, total = loader.device, config.train.epochs * loader.steps
    forward = torch.compile(state.model) if config.runtime.compile else state.model
    max_lr, smoothing = config.optim.max_lr, config.train.label_smoothing
    assert not isinstance(max_lr, str), "auto is resolved before training starts"
    while state.epoch <= config.train.epochs:
        started = time.perf_counter() - state.seconds
        state.model.train()
        for batch in _until_stopped(loader.epoch(state.epoch, first_step=state.step)):
            if batch is None:
                if state.step:
                    _step_records(state, loader, config, total)
                yield None
                return
            images, labels = batch
            step = (state.epoch - 1) * loader.steps + state.step
            apply_settings(state.optimizer, settings_at(step, total, max_lr, config.schedule))
            images = at_resolution(images, step / total, config.train.resolutions)
            with autocast(config, device):
                logits = forward(images)
                loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            loss = _checked(loss.detach(), state)
            state.optimizer.step()
            _count(state, loss, logits.detach(), labels)
            state.seconds = time.perf_counter() - started
            on_step(state.epoch, state.step)
            if pause():
                _step_records(state, loader, config, total)  # all finite, or nothing is saved
                state.seconds = time.perf_counter() - started
                yield None
        steps = _step_records(state, loader, config, total)
        state.seconds = time.perf_counter() - started  # a GPU has done its steps only now
        record = _finish_epoch(state, steps, loader, val, config, started)
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


def at_resolution(
    images: Tensor, share: float, resolutions: tuple[tuple[float, int], ...]
) -> Tensor:
    """Images (B, C, H, W) at the size that is due at `share` of all steps; bilinear."""
    for until, side in resolutions:
        if share < until:
            return resized(images, side)
    return images


def _checked(loss: Tensor, state: TrainState) -> Tensor:
    """The loss, or NaN where a gradient is not finite; the weights have not been changed yet."""
    gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    # On a CPU looking at a value is free; elsewhere the epoch's end is soon enough.
    if loss.device.type == "cpu" and not (loss.isfinite() and norm.isfinite()):
        lr = state.optimizer.param_groups[0]["lr"]
        what = "A gradient" if loss.isfinite() else "The loss"
        value = norm.item() if loss.isfinite() else loss.item()
        raise _diverged(what, value, state.epoch, state.step + 1, lr)
    return torch.where(norm.isfinite(), loss, torch.nan)


def _count(state: TrainState, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
    state.step += 1
    state.losses.append(loss)
    correct = (logits.argmax(1) == labels).sum()
    state.correct = correct if state.correct is None else state.correct + correct


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
    config: Config,
    started: float,
) -> EpochRecord | None:
    """The epoch's figures; None if a stop was asked for before they were there."""

    def heed(done: int, count: int) -> None:
        if done < count and loader.is_stopping():
            raise StoppedWaitingError

    images = len(loader.images)
    sizes = [loader.batch_size] * (loader.steps - 1)
    sizes.append(images - sum(sizes))
    train_loss = sum(s.train_loss * n for s, n in zip(steps, sizes, strict=True)) / images
    assert state.correct is not None
    try:
        logits = predict_logits(state.model, val, config, loader.device, on_batch=heed)
    except StoppedWaitingError:
        return None
    scores = score(logits, val.labels)
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
