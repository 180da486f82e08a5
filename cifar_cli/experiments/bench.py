"""Recipes against each other: whole runs in processes of their own, interleaved, summed up.

Three clocks: the whole process from a cold start to the checkpoint; training alone; evaluation.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_cli.config import Config
from cifar_cli.config.loading import build_config, config_yaml, flat_settings
from cifar_cli.config.migration import no_longer, take_dropped, used_dropped
from cifar_cli.errors import CheckpointError, ConfigError
from cifar_cli.experiments.child import call
from cifar_cli.experiments.flops import training_flops
from cifar_cli.rundir import RunDir
from cifar_cli.storage import write_json, write_text
from cifar_cli.training.temporary import temporary_folder

# Student's t, 97.5 %, for 1 to 30 degrees of freedom; beyond them the normal distribution's.
STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
NORMAL = 1.960

RECORD = "bench.json"
FIGURES = (
    "accuracy", "accuracy_six_views", "process_seconds", "cpu_seconds", "evaluate_seconds",
    "peak_bytes",
)  # fmt: skip
MAX_CLASSES, LARGEST_COUNT = 100_000, 2**53


@dataclass(frozen=True)
class BenchRun:
    """One run of one recipe."""

    recipe: str
    seed: int
    accuracy: float
    """Single view, last checkpoint; a fraction."""
    accuracy_six_views: float
    process_seconds: float
    """Wall clock of the whole process, start of Python to the last checkpoint."""
    cpu_seconds: float
    """Of all threads of that process."""
    train_seconds: float
    """Wall clock of training alone."""
    evaluate_seconds: float
    """Wall clock of one view of all validation images."""
    peak_bytes: int
    """Largest resident memory of the process."""
    train_flops: float
    curve: tuple[tuple[float, float], ...]
    """Seconds of training and validation accuracy at each epoch's end."""


@dataclass(frozen=True)
class Spread:
    """Mean and spread of one figure over n runs."""

    n: int
    mean: float
    deviation: float | None
    """Sample standard deviation; None for one run."""
    interval: tuple[float, float] | None
    """95% interval of the mean (Student); None for one run."""


def spread(values: Sequence[float]) -> Spread:
    """Sum up the figures of several runs."""
    n, mean = len(values), statistics.fmean(values)
    if n < 2:
        return Spread(n, mean, None, None)
    deviation = statistics.stdev(values)
    t = STUDENT[n - 2] if n - 2 < len(STUDENT) else NORMAL
    half = t * deviation / math.sqrt(n)
    return Spread(n, mean, deviation, (mean - half, mean + half))


@dataclass(frozen=True)
class PlannedRun:
    """One run, as `bench` will make it or has kept it."""

    recipe: str
    config: Config
    """With the run's own seed."""
    path: Path

    @property
    def title(self) -> str:
        return f"{self.recipe}, seed {self.config.seed}"

    @property
    def is_complete(self) -> bool:
        """Whether the record is there, which is written last."""
        return os.path.lexists(self.path / RECORD)


def plan(
    recipes: Mapping[str, Config], runs: int, folder: Path, first_seed: int = 1
) -> list[PlannedRun]:
    """All runs, A B B A, in their order; arguments as of `bench`.

    Raises:
        ConfigError: A run that is complete in `folder` was made with other settings, something else
            lies where a run is to go, or a seed is out of range.
    """
    planned = []
    for recipe, number in interleaved(dict.fromkeys(recipes, runs)):
        seed = first_seed + number
        config = build_config(recipes[recipe].model_dump() | {"seed": seed})
        run = PlannedRun(recipe, config, folder / f"{Path(recipe).stem}-{seed}")
        place = RunDir(run.path)
        if run.is_complete:
            _check_settings(run)
        elif os.path.lexists(run.path) and not (place.is_run or _is_empty_folder(place)):
            raise ConfigError(f"{run.path} exists and is not a run.", "Give another --out.")
        planned.append(run)
    return planned


def interleaved(runs: Mapping[str, int]) -> list[tuple[str, int]]:
    """Who runs when, A B B A, until all have had their runs: (name, number from 0)."""
    order = []
    for number in range(max(runs.values())):
        turn = [(name, number) for name, wanted in runs.items() if number < wanted]
        order += turn if number % 2 == 0 else turn[::-1]
    return order


def _is_empty_folder(run: RunDir) -> bool:
    return run.path.is_dir() and run.is_empty


def _check_settings(run: PlannedRun) -> None:
    kept = _read_record(run.path)[1]
    wanted = flat_settings(run.config)
    differ = [f"{key} {kept.get(key)!r:.60}, not {wanted[key]!r}" for key in wanted
              if kept.get(key) != wanted[key]]  # fmt: skip
    differ += no_longer(used_dropped(take_dropped(_sections(kept)), run.config))
    if differ:
        raise ConfigError(
            f"{run.path} was run with other settings: {'; '.join(differ)}.",
            "Give another --out, or delete it.",
        )


def _sections(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key as a tree."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        section, _, name = key.partition(".")
        if name:
            tree.setdefault(section, {})[name] = value
    return tree


def bench(
    recipes: Mapping[str, Config],
    runs: int,
    folder: Path,
    first_seed: int = 1,
    progress: Callable[[str], None] = lambda text: None,
) -> list[BenchRun]:
    """Run each recipe `runs` times with seeds of its own, A B B A, under `folder`.

    Before that, each recipe takes two steps, which fills caches and is thrown away. Runs that are
    complete in `folder` already are not run again; those that are not are put aside and begun anew.

    Args:
        recipes: Names or files, and the settings that they come to here, seeds aside.
        runs: How many of each.
        folder: Where the runs are left.
        first_seed: Seed of the first run; the others follow.
        progress: Told what comes next.

    Raises:
        ConfigError: As of `plan`, before anything is run.
        CifarError: A run failed; with its own message and exit code.
    """
    found: list[BenchRun] = []
    warm: set[str] = set()
    for run in plan(recipes, runs, folder, first_seed):
        if run.is_complete:
            progress(f"{run.title}: already there")
        else:
            number = run.config.seed - first_seed + 1
            progress(f"{run.title}: run {number} of {runs}")
            if run.recipe not in warm:
                _warm_up(run)
                warm.add(run.recipe)
            _run(run)
        found.append(read_run(run.recipe, run.config.seed, run.path))
    return found


def _warm_up(run: PlannedRun) -> None:
    steps = ["--epochs", "1", "--limit-train", "1024", "--batch-size", "512", "--limit-val", "100"]
    with temporary_folder() as folder:
        _train(run, folder / "run", steps)


def _train(run: PlannedRun, path: Path, flags: Sequence[str] = ()) -> dict[str, Any]:
    """Train in a process of its own; what it used."""
    with temporary_folder() as folder:
        settings = folder / "settings.yaml"
        write_text(settings, config_yaml(run.config))
        train = ["train", "--recipe", str(settings), "--run-dir", str(path), *flags]
        return call(run.title, train)[1]


def _run(run: PlannedRun) -> None:
    # A run of a bench that was stopped, or somebody's own of that name: nothing is deleted.
    if run.path.is_dir() and any(run.path.iterdir()):
        with RunDir(run.path).locked():
            aside = tempfile.mkdtemp(prefix=f"{run.path.name}-unfinished-", dir=run.path.parent)
            run.path.replace(aside)
    usage = _train(run, run.path)
    evaluate = ["evaluate", str(run.path), "--device", run.config.device, "--tta"]
    single, _ = call(run.title, [*evaluate, "none"])
    six, _ = call(run.title, [*evaluate, "flip-translate"])
    figures = {
        **usage,
        "accuracy": single["accuracy"],
        "evaluate_seconds": single["seconds"],
        "accuracy_six_views": six["accuracy"],
        "settings": flat_settings(run.config),
    }
    write_json(run.path / RECORD, figures)


def read_run(recipe: str, seed: int, path: Path) -> BenchRun:
    """What `bench` has left of a run in its folder `path`.

    Raises:
        CheckpointError: A file of it is missing or damaged.
    """
    figures, _ = _read_record(path)
    run = RunDir(path)
    result, epochs = run.read_json("result.json"), run.read_metrics()
    counts: list[Any] = [result.get(name) for name in ("num_classes", "train_images")]
    are_counts = all(type(n) is int and n >= 1 for n in counts)
    if not epochs or not are_counts or counts[0] > MAX_CLASSES or counts[1] > LARGEST_COUNT:
        raise CheckpointError(
            f"{path} lacks epochs in metrics.csv or counts in result.json.",
            "Delete it, and bench runs it again.",
        )
    seconds, curve = 0.0, []
    for epoch in epochs:
        seconds += epoch.train_seconds
        curve.append((seconds, epoch.val_accuracy))
    return BenchRun(
        recipe=recipe,
        seed=seed,
        train_seconds=seconds,
        curve=tuple(curve),
        train_flops=training_flops(run.read_config(), *counts),
        **figures,
    )


def _read_record(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures and the settings of a complete run.

    Raises:
        CheckpointError: They are damaged.
    """
    record = RunDir(path).read_json(RECORD)
    figures: dict[str, Any] = {name: record.get(name) for name in FIGURES}
    wrong = [name for name, value in figures.items()
             if type(value) not in (int, float) or not 0 <= value <= LARGEST_COUNT]  # fmt: skip
    settings = record.get("settings")
    if wrong or not isinstance(settings, dict):
        raise CheckpointError(
            f"{path / RECORD} is damaged: {wrong[0] if wrong else 'settings'} is missing or wrong.",
            "Delete it, and bench runs that run again.",
        )
    return figures, settings
