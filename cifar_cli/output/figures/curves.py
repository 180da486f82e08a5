"""Figures of curves: loss, accuracy, learning rate, and the LR range test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from cifar_cli.output.figures.style import (
    BLUE,
    CYCLE,
    GREEN,
    LINES,
    ORANGE,
    VERMILION,
    label,
    new_figure,
)  # fmt: skip
from cifar_cli.rundir import EpochRecord, StepRecord

LABELS = {"middle": "suggestion"}
MARKS = {"middle": VERMILION, "steepest": BLUE, "valley": GREEN, "minimum/10": ORANGE}


@dataclass(frozen=True)
class RunCurves:
    """What is drawn of one run."""

    name: str
    epochs: Sequence[EpochRecord]
    steps: Sequence[StepRecord]


def loss_and_accuracy(path: Path, runs: Sequence[RunCurves]) -> Path:
    """Loss and accuracy against epochs, training and validation; several runs overlaid."""
    with new_figure(path, 10, 4) as figure:
        loss, accuracy = figure.subplots(1, 2)
        for number, run in enumerate(runs):
            epochs = [r.epoch for r in run.epochs]
            prefix = f"{label(run.name)}: " if len(runs) > 1 else ""
            train_colour = CYCLE[number % len(CYCLE)]
            val_colour = train_colour if len(runs) > 1 else VERMILION
            marker = "o" if len(epochs) < 3 else None
            for axis, train, val in (
                (loss, [r.train_loss for r in run.epochs], [r.val_loss for r in run.epochs]),
                (
                    accuracy,
                    [100 * r.train_accuracy for r in run.epochs],
                    [100 * r.val_accuracy for r in run.epochs],
                ),
            ):
                axis.plot(
                    epochs,
                    train,
                    "--",
                    color=train_colour,
                    marker=marker,
                    label=f"{prefix}train, augmented",
                )
                axis.plot(
                    epochs, val, "-", color=val_colour, marker=marker, label=f"{prefix}validation"
                )
        loss.set(title="Loss", xlabel="epoch", ylabel="cross entropy, mean per image")
        accuracy.set(title="Accuracy", xlabel="epoch", ylabel="images classified correctly")
        accuracy.yaxis.set_major_formatter(PercentFormatter())
        for axis in (loss, accuracy):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(runs) == 1:
            loss.legend(loc="best")
            if runs[0].epochs:
                last = runs[0].epochs[-1]
                accuracy.set_title(
                    f"Accuracy: {last.val_accuracy:.2%} on validation after epoch {last.epoch}"
                )
        else:
            handles, labels = loss.get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(runs) * 2))
    return path


def learning_rates(path: Path, runs: Sequence[RunCurves]) -> Path:
    """Learning rate against steps."""
    with new_figure(path, 6.4, 3.6) as figure:
        axis = figure.subplots()
        for number, run in enumerate(runs):
            axis.plot(
                [s.step for s in run.steps],
                [s.lr for s in run.steps],
                linestyle=LINES[number % len(LINES)],
                color=CYCLE[number % len(CYCLE)],
                label=label(run.name),
            )
        axis.set(title="Learning rate", xlabel="step", ylabel="learning rate")
        axis.set_ylim(bottom=0)
        if len(runs) > 1:
            axis.legend()
    return path


def step_losses(path: Path, runs: Sequence[RunCurves]) -> Path:
    """Training loss against steps: each step faintly, and its running mean."""
    with new_figure(path, 6.4, 3.6) as figure:
        axis = figure.subplots()
        for number, run in enumerate(runs):
            colour = CYCLE[number % len(CYCLE)]
            losses = np.array([s.train_loss for s in run.steps])
            steps = np.array([s.step for s in run.steps])
            axis.plot(steps, losses, color=colour, alpha=0.25, linewidth=0.8)
            window = max(1, min(len(losses) // 10, 50))
            mean = np.convolve(losses, np.ones(window) / window, mode="valid")
            axis.plot(
                steps[window - 1 :],
                mean,
                color=colour,
                label=f"{label(run.name)}, mean of {window} steps",
            )
        axis.set(
            title="Training loss by step", xlabel="step", ylabel="cross entropy, mean per image"
        )
        axis.legend()
    return path


def lr_range(
    path: Path,
    lrs: Sequence[float],
    losses: Sequence[float],
    suggestions: Mapping[str, float],
    band: tuple[float, float],
    step_mode: str = "exp",
) -> Path:
    """Loss against learning rate, with each suggestion and the band of good rates marked."""
    with new_figure(path, 7, 4.2) as figure:
        axis = figure.subplots()
        axis.plot(lrs, losses, color=BLUE, label="smoothed loss")
        if step_mode == "exp":
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(FuncFormatter(lambda lr, _: f"1e{round(log10(lr))}"))
            # A range within one decade has no whole power of ten to label.
            narrow = max(lrs) < 10 * min(lrs)
            axis.xaxis.set_minor_formatter(
                FuncFormatter(lambda lr, _: f"{lr:.0e}") if narrow else NullFormatter()
            )
        axis.axvspan(*band, color=VERMILION, alpha=0.12, linewidth=0)
        for (name, lr), marker in zip(suggestions.items(), "Dos^", strict=False):
            axis.axvline(lr, color=MARKS[name], linewidth=1, linestyle=":")
            axis.plot(
                [lr],
                [np.interp(lr, lrs, losses)],
                marker,
                color=MARKS[name],
                markersize=9,
                markeredgecolor="white",
                linestyle="none",
                label=f"{LABELS.get(name, name)}: {lr:.2e}",
            )
        low, start = min(losses), losses[0]
        axis.set_ylim(low - 0.05 * (start - low + 0.1), max(start, low) + 0.6 * (start - low + 0.5))
        axis.set(title="LR range test", xlabel="learning rate", ylabel="training loss, smoothed")
        axis.legend(loc="upper left")
    return path
