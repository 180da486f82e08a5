"""Figures of curves: loss, accuracy, learning rate, and the LR range test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from cifar_cli.errors import CheckpointError
from cifar_cli.output.console import counted
from cifar_cli.output.figures.lettering import fitted
from cifar_cli.output.figures.style import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    LINES,
    ORANGE,
    VERMILION,
    legend_below,
    new_figure,
)  # fmt: skip
from cifar_cli.rundir import EpochRecord, RunDir, StepRecord
from cifar_cli.rundir.listing import about_run, whole_number

LABELS = {"middle": "suggestion"}
NAME_WIDTH = 130.0
"""Room for the name of a run, in points."""
DWARFING = 20
"""How many times the median, or 1, a loss must be for a logarithmic axis."""
MARKS = {"middle": VERMILION, "steepest": BLUE, "valley": GREEN, "minimum/10": ORANGE}


@dataclass(frozen=True)
class RunCurves:
    """What is drawn of one run."""

    name: str
    epochs: Sequence[EpochRecord]
    steps: Sequence[StepRecord]
    num_classes: int | None = None
    """For the line of chance; None: unknown."""
    about: str = ""
    """Its data, split and number of images."""


def run_curves(run: RunDir) -> RunCurves:
    """What a run's small files hold.

    Raises:
        CheckpointError: One is damaged, or no epoch has been finished.
    """
    classes, about = whole_number(run, "num_classes"), about_run(run)
    curves = RunCurves(run.name, run.read_metrics(), run.read_steps(), classes, about)
    if not curves.epochs:
        when = "training is in its first one" if run.is_running else "nothing trains there now"
        raise CheckpointError(
            f"{run.path} has no finished epoch yet ({when}); there is nothing to plot."
        )
    return curves


def loss_and_accuracy(path: Path, runs: Sequence[RunCurves]) -> Path:
    """Loss and accuracy against epochs, training and validation; several runs overlaid."""
    title = ""
    if len(runs) == 1 and runs[0].epochs:
        last = runs[0].epochs[-1]
        title = f"Validation accuracy {last.val_accuracy:.2%} after epoch {last.epoch}"
    with new_figure(path, 10, 4, title, _footer(runs)) as figure:
        loss, accuracy = figure.subplots(1, 2)
        for number, run in enumerate(runs):
            epochs = [r.epoch for r in run.epochs]
            prefix = f"{_short(run.name)}: " if len(runs) > 1 else ""
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
        _fit_losses(loss, [x for r in runs for e in r.epochs for x in (e.train_loss, e.val_loss)])
        for axis in (loss, accuracy):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        handles, labels = loss.get_legend_handles_labels()
        classes = {run.num_classes for run in runs}
        if len(classes) == 1 and (count := classes.pop()):
            chance = 100 / count
            handles.append(
                accuracy.axhline(chance, color=GREY, linestyle=":", linewidth=1.2, zorder=1)
            )
            labels.append(f"chance, {chance:.3g}%")
        legend_below(figure, handles, labels, ncols=4)
    return path


def learning_rates(path: Path, runs: Sequence[RunCurves]) -> Path:
    """Learning rate against steps."""
    with new_figure(path, 6.4, 3.6, "Learning rate", _footer(runs)) as figure:
        axis = figure.subplots()
        for number, run in enumerate(runs):
            axis.plot(
                [s.step for s in run.steps],
                [s.lr for s in run.steps],
                linestyle=LINES[number % len(LINES)],
                color=CYCLE[number % len(CYCLE)],
                label=_short(run.name),
            )
        axis.set(xlabel="step", ylabel="learning rate")
        axis.set_ylim(bottom=0)
        if len(runs) > 1:
            axis.legend()
    return path


def step_losses(path: Path, runs: Sequence[RunCurves]) -> Path:
    """Training loss against steps: each step faintly, and the mean of the steps around it."""
    with new_figure(path, 6.4, 3.6, "Training loss by step", _footer(runs)) as figure:
        axis = figure.subplots()
        for number, run in enumerate(runs):
            colour = CYCLE[number % len(CYCLE)]
            losses = np.array([s.train_loss for s in run.steps])
            steps = [s.step for s in run.steps]
            window = max(1, min(len(losses) // 10, 50)) | 1  # odd: as many before as after
            axis.plot(steps, losses, color=colour, alpha=0.25, linewidth=0.8)
            axis.plot(
                steps,
                centred_mean(losses, window),
                color=colour,
                label=f"{_short(run.name)}, mean of {counted(window, 'step')} around each",
            )
        axis.set(xlabel="step", ylabel="cross entropy, mean per image")
        _fit_losses(axis, [s.train_loss for run in runs for s in run.steps])
        axis.legend()
    return path


def centred_mean(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Mean over an odd number of neighbours; at the ends over those that there are."""
    sides = window // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    ends = np.minimum(places + sides + 1, len(values))
    starts = np.maximum(places - sides, 0)
    mean: npt.NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return mean


def _fit_losses(axis: Axes, losses: Sequence[float]) -> None:
    """Make the axis logarithmic if one value is so large that the others would be a flat line."""
    if losses and max(losses) > DWARFING * max(float(np.median(losses)), 1.0):
        smallest = min(losses)
        axis.set_yscale("log" if smallest > 0 else "symlog")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set_ylabel(f"{axis.get_ylabel()} (log scale)")


def _short(name: str) -> str:
    return fitted(name, NAME_WIDTH, 10)


def _footer(runs: Sequence[RunCurves]) -> str:
    several = len(runs) > 1
    texts = [
        f"{run.name}: {run.about}" if several else f"run {run.name} · {run.about}" for run in runs
    ]
    return "   ".join(text for text, run in zip(texts, runs, strict=True) if run.about)


def lr_range(
    path: Path,
    lrs: Sequence[float],
    losses: Sequence[float],
    suggestions: Mapping[str, float],
    band: tuple[float, float],
    step_mode: str = "exp",
    footer: str = "",
) -> Path:
    """Loss against learning rate, with each suggestion and the band of good rates marked."""
    with new_figure(path, 7, 4.2, footer=footer) as figure:
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
