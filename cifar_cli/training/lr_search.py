"""The LR range test of torch-lr-finder, made to change nothing but what it returns.

Leslie Smith, "Cyclical Learning Rates" (https://arxiv.org/abs/1506.01186). The package trains
the model that it is given, moves torch's generators, prints, and continues after NaN. So it gets a
fresh network, the RNG state is always restored, and it ends at the first loss that is not finite.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

from torch import Tensor

from cifar_cli.config import Config
from cifar_cli.data.loader import TrainLoader
from cifar_cli.data.splits import Splits
from cifar_cli.errors import ConfigError, DivergedError
from cifar_cli.rng import kept_rng
from cifar_cli.training.lr_curve import (
    SKIP_END,
    SKIP_START,
    SMOOTHING,
    USUAL_STEPS,
    LrCurve,
    read_curve,
)
from cifar_cli.training.runtime import Runtime, compile_errors
from cifar_cli.training.schedule import StepSettings
from cifar_cli.training.state import Start, TrainState, new_state
from cifar_cli.training.step import NotFiniteError, Step

LEAST_STEPS = SKIP_START + SKIP_END + 3
MOST_STEPS = 5_000
DIVERGE_AT = 5
"""Times the least loss, both smoothed, at which a sweep ends: torch-lr-finder's default."""


def lr_range_test(
    config: Config,
    splits: Splits,
    runtime: Runtime,
    *,
    start_lr: float = 1e-7,
    end_lr: float = 10.0,
    num_iter: int = 200,
    step_mode: Literal["exp", "linear"] = "exp",
    loader: TrainLoader | None = None,
    start: Start | None = None,
    on_step: Callable[[str, int, int | None], None] = lambda what, done, total: None,
) -> LrCurve:
    """Raise the learning rate batch by batch and watch the loss.

    Args:
        config: Model, data, loss and optimiser, as for training's first epoch. With Muon, the rates
            of biases and last layer rise in their proportion to `optim.max_lr`.
        splits: The images; only those to train on are used.
        runtime: Where to run.
        start_lr, end_lr: Ends of the range.
        num_iter: Steps of a sweep at most; it stops where the loss reaches five times its minimum.
            Fewer than 200 are repeated, and the losses averaged.
        step_mode: Even steps of the logarithm (`exp`) or of the rate itself.
        loader: Loader of `splits.train`, which stays open; None: one for this test alone.
        start: Weights that each sweep starts from; None: as drawn.
        on_step: Called with what is being done, steps done, and steps in all.

    Raises:
        ConfigError: The range is empty, or too few steps.
        DivergedError: The loss was not finite before a suggestion could be made.
    """
    check_range(start_lr, end_lr, num_iter)
    if config.optim.max_lr == "auto":
        optim = config.optim.model_copy(update={"max_lr": start_lr})
        config = config.model_copy(update={"optim": optim})
    sweeps: list[list[float]] = []
    lrs: list[float] = []
    # Short sweeps are noisy, so that several are taken, each from another start.
    count = max(1, round(USUAL_STEPS / num_iter))
    with kept_rng(runtime.device), compile_errors(config), contextlib.ExitStack() as around:
        loader = loader or around.enter_context(TrainLoader(splits.train, config, runtime.device))
        for number in range(count):
            seeded = config.model_copy(update={"seed": config.seed + number})
            state = new_state(seeded, len(splits.class_names), runtime, loader, start)
            step = Step(state.model, state.optimizer, config, runtime, state.class_weights)
            done = number * num_iter
            batches = _endless(loader, 1 + number * num_iter, done, count * num_iter, on_step)
            rates, losses = _sweep(state, step, batches, start_lr, end_lr, num_iter, step_mode)
            if len(losses) < LEAST_STEPS:
                raise DivergedError(
                    f"The loss diverged after {len(losses)} steps, too few for a suggestion.",
                    f"Lower --start-lr ({start_lr:g}) or raise --num-iter ({num_iter}).",
                )
            sweeps.append(losses)
            lrs = max(lrs, rates, key=len)
    return read_curve(lrs, sweeps, num_iter)


def check_range(start_lr: float, end_lr: float, num_iter: int) -> None:
    """Refuse a range or a number of steps that makes no curve, before anything is loaded.

    Raises:
        ConfigError: The range is empty, or the steps are too few.
    """
    if not 0 < start_lr < end_lr < math.inf:
        raise ConfigError(
            f"--start-lr {start_lr:g} must be above 0 and below --end-lr {end_lr:g}, both finite."
        )
    if not LEAST_STEPS <= num_iter <= MOST_STEPS:
        raise ConfigError(
            f"--num-iter {num_iter}: choose a number from {LEAST_STEPS} to {MOST_STEPS:,}."
        )


def _sweep(
    state: TrainState,
    step: Step,
    batches: Iterator[tuple[Tensor, Tensor]],
    start_lr: float,
    end_lr: float,
    num_iter: int,
    step_mode: str,
) -> tuple[list[float], list[float]]:
    """Rates and losses of the steps up to the first loss that is not finite, or to the end."""
    losses: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its notebook progress bar calls itself experimental
        from torch_lr_finder import LRFinder, TrainDataLoaderIter

    class Batches(TrainDataLoaderIter):  # type: ignore[misc]
        """Endless batches in the form that torch-lr-finder accepts."""

        def __init__(self) -> None:
            pass

        def __next__(self) -> tuple[Tensor, Tensor]:
            return next(batches)

    class Finder(LRFinder):  # type: ignore[misc]
        """torch-lr-finder's schedule, smoothing and early stop, around a step of training."""

        def _train_batch(self, batches: Batches, *_: Any, **__: Any) -> float:
            self.model.train()
            group = self.optimizer.param_groups[0]
            beta1 = group["betas"][0] if "betas" in group else 0.0
            # The finder sets the same rate everywhere; the step scales it as training does.
            outcome = step(*next(batches), StepSettings(group["lr"], beta1), 0.0)
            loss = float(outcome.loss)
            if not math.isfinite(loss):
                raise NotFiniteError("The loss or a gradient", loss)
            losses.append(loss)
            return loss

    finder: Any = Finder(state.model, state.optimizer, None, step.runtime.device)
    with contextlib.ExitStack() as around:
        around.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # it steps its schedule before the optimiser
        around.enter_context(contextlib.redirect_stdout(io.StringIO()))
        around.enter_context(contextlib.redirect_stderr(io.StringIO()))
        around.enter_context(contextlib.suppress(NotFiniteError))
        finder.range_test(
            Batches(),
            start_lr=start_lr,
            end_lr=end_lr,
            num_iter=num_iter,
            step_mode=step_mode,
            smooth_f=SMOOTHING,
            diverge_th=DIVERGE_AT,
        )
    return finder.history["lr"][: len(losses)], losses


def _endless(
    loader: TrainLoader,
    epoch: int,
    done: int,
    total: int,
    on_step: Callable[[str, int, int | None], None],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches from that epoch on; `on_step` is called before each, with the steps done."""
    for number in itertools.count(epoch):
        for batch in loader.epoch(number):
            on_step("LR range test", done, total)
            yield batch
            done += 1
