"""Accuracy against seconds, one line per recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.ticker import FuncFormatter

from cifar_cli.output.console import counted, duration
from cifar_cli.output.figures.lettering import fitted
from cifar_cli.output.figures.style import CYCLE, LINES, new_figure

Curve = Sequence[tuple[float, float]]


def accuracy_against_seconds(path: Path, recipes: Mapping[str, Sequence[Curve]]) -> Path:
    """Validation accuracy against seconds of training: each run faintly, their mean boldly.

    Args:
        path: The PNG.
        recipes: By name, one curve per run: (seconds, accuracy as a fraction) at each epoch's end.
    """
    longest = max(
        seconds for curves in recipes.values() for curve in curves for seconds, _ in curve
    )
    unit, unit_name = (60.0, "minutes") if longest > 180 else (1.0, "seconds")
    with new_figure(path, 8, 4.5) as figure:
        axis = figure.subplots()
        for number, (name, curves) in enumerate(recipes.items()):
            colour = CYCLE[number % len(CYCLE)]
            for curve in curves:
                axis.plot(*_columns(curve, unit), color=colour, alpha=0.3, linewidth=1)
            mean = [
                tuple(sum(values) / len(values) for values in zip(*points, strict=True))
                for points in zip(*curves, strict=False)
            ]
            short = fitted(name, 160, 10)
            runs = counted(len(curves), "run")
            axis.plot(
                *_columns(mean, unit),
                color=colour,
                linestyle=LINES[number % len(LINES)],
                marker="o",
                label=f"{short} ({runs}): {mean[-1][1]:.2%} after {duration(mean[-1][0])}",
            )
        axis.set(
            title="Accuracy against time",
            xlabel=f"{unit_name} of training alone",
            ylabel="validation images classified correctly",
            xlim=(0, None),
        )
        axis.yaxis.set_major_formatter(FuncFormatter(lambda percent, _: f"{percent:g}%"))
        axis.legend(loc="lower right")
    return path


def _columns(curve: Curve, unit: float) -> tuple[list[float], list[float]]:
    return [seconds / unit for seconds, _ in curve], [100 * accuracy for _, accuracy in curve]
