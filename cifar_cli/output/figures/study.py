"""What a study has found: its objective trial by trial, and against each searched setting."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from cifar_cli.experiments.study_file import Range, Study
from cifar_cli.experiments.sweep import Trial
from cifar_cli.output.console import counted
from cifar_cli.output.figures.lettering import fitted
from cifar_cli.output.figures.style import CYCLE, GREY, new_figure

COLUMNS, MOST_PANELS = 3, 9


def study_figure(path: Path, study: Study, trials: Sequence[Trial]) -> Path:
    """Draw all trials that reported something.

    Complete ones are filled, pruned ones hollow, at the last epoch that they reported. The line is
    the best so far.
    """
    shown = [trial for trial in trials if trial.objective is not None]
    panels = list(study.search.items())[:MOST_PANELS]
    rows = 1 + math.ceil(len(panels) / COLUMNS)
    done = sum(trial.state == "complete" for trial in shown)
    pruned = sum(trial.state == "pruned" for trial in shown)
    title = f"{counted(done, 'complete trial')}, {pruned} pruned"
    with new_figure(path, 8, 2.9 * rows, title) as figure:
        grid = figure.add_gridspec(rows, COLUMNS)
        axis = figure.add_subplot(grid[0, :])
        _points(axis, shown, [float(t.number) for t in shown], study)
        _best_so_far(axis, shown, study)
        axis.set(xlabel="trial")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _name_objective(axis, study)
        for place, (key, space) in enumerate(panels):
            axis = figure.add_subplot(grid[1 + place // COLUMNS, place % COLUMNS])
            own = [t for t in shown if key in t.values]
            _points(axis, own, _positions(axis, space, [t.values[key] for t in own]), study)
            axis.set_xlabel(fitted(key, 150, 10))
            if place % COLUMNS == 0:
                _name_objective(axis, study)
            else:
                _scale_objective(axis, study)
    return path


def _points(axis: Axes, trials: Sequence[Trial], places: Sequence[float], study: Study) -> None:
    scale = 100 if study.objective == "val_accuracy" else 1
    for state, colour, face in (("pruned", GREY, "none"), ("complete", CYCLE[0], CYCLE[0])):
        own = [
            (place, scale * (trial.objective or 0.0))
            for place, trial in zip(places, trials, strict=True)
            if trial.state == state
        ]
        axis.scatter(
            [x for x, _ in own], [y for _, y in own], s=22, edgecolors=colour, facecolors=face,
            alpha=0.8, label=state,
        )  # fmt: skip


def _best_so_far(axis: Axes, trials: Sequence[Trial], study: Study) -> None:
    better = max if study.direction == "maximize" else min
    scale = 100 if study.objective == "val_accuracy" else 1
    complete = [t for t in trials if t.state == "complete"]
    if complete:
        best = list(accumulate((scale * (t.objective or 0.0) for t in complete), better))
        numbers = [t.number for t in complete]
        axis.step(numbers, best, where="post", color=CYCLE[1], linewidth=1.4, label="best so far")
    axis.legend(loc="best", fontsize=8)


def _positions(axis: Axes, space: Range | list[Any], values: Sequence[Any]) -> list[float]:
    """Where the values stand on the axis, which is given its scale."""
    if isinstance(space, Range):
        if space.log:
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
        return [float(value) for value in values]
    names = [json.dumps(choice).strip('"') for choice in space]
    axis.set_xticks(range(len(names)), [fitted(name, 60, 8) for name in names], fontsize=8)
    axis.set_xlim(-0.5, len(names) - 0.5)
    return [float(space.index(value)) for value in values]


def _name_objective(axis: Axes, study: Study) -> None:
    accuracy = study.objective == "val_accuracy"
    axis.set_ylabel("validation accuracy" if accuracy else "validation loss")
    _scale_objective(axis, study)


def _scale_objective(axis: Axes, study: Study) -> None:
    if study.objective == "val_accuracy":
        axis.yaxis.set_major_formatter(FuncFormatter(lambda percent, _: f"{percent:g}%"))
