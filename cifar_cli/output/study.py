"""What `sweep` prints: its documents, its table of trials, and its sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cifar_cli.output.documents import Document, as_document
from cifar_cli.output.tables import new_table

if TYPE_CHECKING:
    from cifar_cli.experiments.bench import Spread
    from cifar_cli.experiments.study_file import Study
    from cifar_cli.experiments.sweep import Trial
    from cifar_cli.experiments.trials import Tally

SHOWN_TRIALS = 15


def sweep_document(
    study: Study, trials: Sequence[Trial], best: Trial | None, state: Tally, files: Sequence[Path]
) -> Document:
    """What `sweep --json` and `sweep status --json` print."""
    return as_document(
        objective=study.objective,
        wanted=study.trials,
        finished=state.finished,
        **{name: len(numbers) for name, numbers in state._asdict().items()},
        trials=[asdict(trial) for trial in trials],
        best=asdict(best) if best else None,
        files=[str(file) for file in files],
    )


def best_document(study: Study, trial: Trial, found: Spread | None, file: Path | None) -> Document:
    """What `sweep best --json` prints; `found` is what fresh seeds came to."""
    return as_document(
        objective=study.objective,
        best=asdict(trial),
        seeds_of_study=study.seeds,
        confirmed=asdict(found) if found else None,
        files=[str(file)] if file else [],
    )


def trial_table(document: Document) -> Table:
    """The best trials first, then those that are not complete, in order."""
    sign = -1 if document["objective"] == "val_accuracy" else 1
    complete = [t for t in document["trials"] if t["state"] == "complete"]
    others = [t for t in document["trials"] if t["state"] != "complete"]
    rows = [*sorted(complete, key=lambda t: sign * t["objective"]), *others]
    more = len(rows) - SHOWN_TRIALS
    table = new_table(
        "Trials", "Trial", "State", _heading(document["objective"]), "Epochs", "Settings",
        names=("State", "Settings"), caption=f"and {more} more" if more > 0 else "",
    )  # fmt: skip
    for trial in rows[:SHOWN_TRIALS]:
        value = trial["objective"]
        table.add_row(
            str(trial["number"]),
            trial["state"],
            "--" if value is None else _number(document["objective"], value),
            str(trial["epochs"]),
            values_text(trial["values"]),
        )
    return table


def sweep_lines(document: Document) -> list[str]:
    """How the study stands, and what to do next."""
    counts = ", ".join(
        f"{document[name]} {name}" for name in ("pruned", "failed", "running", "lost")
        if document[name]
    )  # fmt: skip
    lines = [
        f"{document['finished']} of {document['wanted']} trials are finished"
        f"{f' ({counts})' if counts else ''}."
    ]
    if best := document["best"]:
        came_to = objective_text(document["objective"], best["objective"])
        lines.append(f"Best: trial {best['number']}, {came_to}, {values_text(best['values'])}.")
        lines.append(
            "The best of many looks better than it is. Confirm it with: cifar-resnet sweep best "
            "STUDY --write FILE"
        )
    return lines


def best_lines(document: Document) -> list[str]:
    """The best trial, and what it came to on fresh seeds."""
    best, found = document["best"], document["confirmed"]
    in_study = objective_text(document["objective"], best["objective"])
    seeds = document["seeds_of_study"]
    lines = [
        f"Trial {best['number']}: {values_text(best['values'])}.",
        f"In the study: {in_study}, n = {seeds}, chosen as the best.",
    ]
    if found:
        low, high = found["interval"]
        lines.append(
            f"On fresh seeds: {objective_text(document['objective'], found['mean'])}, "
            f"n = {found['n']}, 95% interval {_number(document['objective'], low)} to "
            f"{_number(document['objective'], high)}."
        )
    return lines


def objective_text(objective: str, value: float | None) -> str:
    """An objective with its name and unit."""
    name = "validation accuracy" if objective == "val_accuracy" else "validation loss"
    unit = "%" if objective == "val_accuracy" else ""
    return f"{name} --" if value is None else f"{name} {_number(objective, value)}{unit}"


def values_text(values: Mapping[str, Any]) -> str:
    """Settings and values: `optim.max_lr 0.0123, train.batch_size 64`."""
    return ", ".join(f"{key} {_short(value)}" for key, value in values.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value).strip('"')


def _heading(objective: str) -> str:
    return "Val acc %" if objective == "val_accuracy" else "Val loss"


def _number(objective: str, value: float) -> str:
    return f"{100 * value:.2f}" if objective == "val_accuracy" else f"{value:.4f}"
