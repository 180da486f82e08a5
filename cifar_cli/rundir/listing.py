"""What is known of runs from their small files alone: for lists, and for what may be pruned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cifar_cli.errors import CheckpointError, ConfigError
from cifar_cli.rundir.folder import STATES, RunDir
from cifar_cli.rundir.naming import known_runs
from cifar_cli.rundir.records import EpochRecord
from cifar_cli.storage import storage_errors

Sort = Literal["accuracy", "date", "name"]
# What a run and the commands that look at it write; a folder with more is not removed.
OWN_ENTRIES = frozenset({
    "checkpoints", "compare", "config.yaml", "damaged-steps.csv", "env.json", "eval",
    "events.jsonl", "metrics.csv", "misclassified", "plots", "report", "result.json",
    "skipped_images.csv", "status.json", "steps.csv", "tensorboard",
})  # fmt: skip
# Options of one training rather than parts of a recipe.
_NOT_OF_RECIPE = {
    "data": {"dir", "workers", "skip_bad_images"},
    "model": {"dropout", "residual_dropout"},
    "optim": {"max_lr", "weight_decay", "bias_lr", "head_lr"},
    "schedule": {"div_factor", "final_div_factor", "pct_start"},
    "train": {"batch_size", "save_minutes", "class_weights"},
}


@dataclass(frozen=True)
class RunFacts:
    """One run. Accuracies are fractions; None: unknown."""

    name: str
    path: str
    state: str
    """running, completed, interrupted or failed; empty: unknown."""
    data: str
    epochs_completed: int
    val_accuracy: float | None
    """After the last epoch."""
    best_val_accuracy: float | None
    seconds: float | None
    updated: str
    """Date and time of the last change of state."""
    recipe: str
    """Equal for runs of the same images, network, augmentation and epochs."""


def list_runs(sort: Sort = "date") -> list[RunFacts]:
    """The runs under `runs/`: the newest first, the most accurate first, or by name."""
    found = [facts_of(run) for run in map(RunDir, known_runs()) if run.is_run][::-1]
    if sort == "accuracy":
        found.sort(key=lambda run: -1.0 if run.val_accuracy is None else run.val_accuracy)
        found.reverse()
    if sort == "name":
        found.sort(key=lambda run: run.name)
    return found


def facts_of(run: RunDir) -> RunFacts:
    """What is known of a run; what is missing or damaged is unknown."""
    status, recipe, data = run.peek_json("status.json"), "", ""
    records: list[EpochRecord] = []
    with suppress(CheckpointError):
        records = run.read_metrics()
    with suppress(CheckpointError):
        tree: dict[str, Any] = run.read_config().model_dump(mode="json")
        data, recipe = str(tree["data"]["source"]), _recipe_key(tree)
    state = "running" if run.is_running else run.noted_state
    if state not in STATES:
        state = ""
    elif state == "running" and not run.is_running:
        state = "interrupted"  # killed, without a moment to say so
    return RunFacts(
        name=run.name,
        path=str(run.path),
        state=state,
        data=data,
        epochs_completed=len(records),
        val_accuracy=records[-1].val_accuracy if records else None,
        best_val_accuracy=max((r.val_accuracy for r in records), default=None),
        seconds=sum(r.seconds for r in records) if records else None,
        updated=str(status.get("updated", ""))[:25],
        recipe=recipe,
    )


def kept_because(runs: Sequence[RunFacts]) -> dict[str, str]:
    """Why a run is never pruned, by the path of each run that is not."""
    reasons = {}
    best: dict[str, RunFacts] = {}
    for run in runs:
        if run.val_accuracy is None:
            continue
        other = best.get(run.recipe)
        if other is None or (run.val_accuracy, run.name) > (other.val_accuracy, other.name):
            best[run.recipe] = run
    for run in runs:
        folder = RunDir(Path(run.path))
        strange = ["what cannot be listed"]
        with suppress(OSError):
            strange = sorted({e.name for e in folder.path.iterdir()} - OWN_ENTRIES)
        if run.state == "running":
            reasons[run.path] = "it is running"
        elif best.get(run.recipe) is run:
            reasons[run.path] = "the best of its recipe"
        elif not run.recipe:
            reasons[run.path] = "its config.yaml cannot be read"
        elif folder.path.is_symlink():
            reasons[run.path] = "it is a link"
        elif strange:
            reasons[run.path] = f"it holds other files, such as {strange[0]}"
    return reasons


def remove_runs(runs: Iterable[RunFacts]) -> None:
    """Delete runs that `kept_because` does not name.

    Raises:
        ConfigError: One has begun to train again, or is the best of its recipe by now.
        StorageError: One cannot be removed.
    """
    kept = kept_because(list_runs())  # as it is now: a user may have been asked since
    for run in runs:
        if reason := kept.get(run.path):
            raise ConfigError(f"{run.path} stays: {reason}.", "Nothing more was removed.")
        folder = RunDir(Path(run.path))
        with folder.locked(), storage_errors(folder.path):
            shutil.rmtree(folder.path)


def whole_number(run: RunDir, key: str) -> int | None:
    """A count that `result.json` holds; None if it does not."""
    value = run.peek_json(run.result.name).get(key)
    return value if isinstance(value, int) and 0 < value < 10**9 else None


def about_run(run: RunDir) -> str:
    """Its images, for the foot of a figure: `data shapes · split val · n = 1,000`."""
    parts = []
    with suppress(CheckpointError):
        parts.append(f"data {run.read_config().data.source}")
    parts.append("split val")
    if images := whole_number(run, "val_images"):
        parts.append(f"n = {images:,}")
    return " · ".join(parts)


def _recipe_key(tree: dict[str, Any]) -> str:
    """The settings that make a recipe, as a text that is equal for equal ones."""
    chosen = {
        section: {k: v for k, v in tree[section].items() if k not in left_out}
        for section, left_out in _NOT_OF_RECIPE.items()
    }
    return json.dumps({**chosen, "augment": tree["augment"]}, sort_keys=True)
