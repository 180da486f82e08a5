"""Schedules as functions of the step: nothing to save, nothing to restore.

The one-cycle schedule: Leslie Smith, "Super-Convergence" (https://arxiv.org/abs/1708.07120), in
the two linear phases of torch's `OneCycleLR(anneal_strategy="linear")`, which the tests compare it
with.
"""

from __future__ import annotations

from typing import NamedTuple

from cifar_cli.config import OneCycleConfig, ScheduleConfig

BETA1_LOW, BETA1_HIGH = 0.85, 0.95


class StepSettings(NamedTuple):
    """What the optimiser uses in one step."""

    lr: float
    beta1: float


def settings_at(step: int, total_steps: int, max_lr: float, config: ScheduleConfig) -> StepSettings:
    """What the schedule that `config.name` names sets in a step, counted from 0."""
    if config.name == "linear":
        return StepSettings(max_lr * (1 - step / total_steps), BETA1_HIGH)
    return one_cycle(step, total_steps, max_lr, config)


def one_cycle(step: int, total_steps: int, max_lr: float, config: OneCycleConfig) -> StepSettings:
    """Learning rate and Adam's beta1 of a step, counted from 0.

    The rate rises from max_lr / div_factor to max_lr, then falls to
    max_lr / div_factor / final_div_factor in the last step; beta1 moves the other way. A single
    step has max_lr.
    """
    first = max_lr / config.div_factor
    last = first / config.final_div_factor
    peak = config.pct_start * total_steps - 1
    if step <= peak or total_steps == 1:
        rise = step / peak if peak > 0 else 1.0
        return StepSettings(_between(first, max_lr, rise), _between(BETA1_HIGH, BETA1_LOW, rise))
    fall = (step - peak) / (total_steps - 1 - peak)
    return StepSettings(_between(max_lr, last, fall), _between(BETA1_LOW, BETA1_HIGH, fall))


def _between(start: float, end: float, share: float) -> float:
    return start + (end - start) * share
