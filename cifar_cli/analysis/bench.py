"""Recipes against each other: whole runs in processes of their own, interleaved, summed up.

Three clocks: the whole process from a cold start to the checkpoint; training alone; evaluation.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_cli.analysis.flops import training_flops
from cifar_cli.config import Config
from cifar_cli.config.loading import (
    build_config,
    config_yaml,
    flat_settings,
    read_config,
    without_settings,
)
from cifar_cli.errors import CifarError, ConfigError
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
    """95 % interval of the mean (Student); None for one run."""


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
    def record(self) -> Path:
        """What is written last: where it lies, the run is complete."""
        return self.path / RECORD


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
        if run.record.is_file():
            _check_settings(run)
        elif run.path.exists() and not RunDir(run.path).begun and any(run.path.iterdir()):
            raise ConfigError(f"{run.path} is in the way, and no run. Give another --out.")
        planned.append(run)
    return planned


def interleaved(runs: Mapping[str, int]) -> list[tuple[str, int]]:
    """Who runs when, A B B A, until all have had their runs: (name, number from 0)."""
    order = []
    for number in range(max(runs.values())):
        turn = [(name, number) for name, wanted in runs.items() if number < wanted]
        order += turn if number % 2 == 0 else turn[::-1]
    return order


def _check_settings(run: PlannedRun) -> None:
    kept = json.loads(run.record.read_text(encoding="utf-8")).get("settings", {})
    wanted = flat_settings(run.config)
    differ = [f"{key} {kept.get(key)!r}, not {wanted[key]!r}" for key in wanted
              if kept.get(key) != wanted[key]]  # fmt: skip
    if differ:
        raise ConfigError(
            f"{run.path} was run with other settings: {'; '.join(differ)}. Give another --out, or "
            "delete it."
        )


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
        if run.record.is_file():
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
    with temporary_folder() as place:
        _train(run, place / "run", steps)


def _train(run: PlannedRun, path: Path, flags: Sequence[str] = ()) -> dict[str, Any]:
    """Train in a process of its own; what it used."""
    with temporary_folder() as place:
        settings = place / "settings.yaml"
        write_text(settings, config_yaml(run.config))
        train = ["train", "--recipe", str(settings), "--run-dir", str(path), *flags]
        return _call(run.title, train)[1]


def _run(run: PlannedRun) -> None:
    if RunDir(run.path).begun:  # a bench's, or somebody's own of that name: nothing is deleted
        with RunDir(run.path).locked():
            aside = tempfile.mkdtemp(prefix=f"{run.path.name}-unfinished-", dir=run.path.parent)
            run.path.replace(aside)
    usage = _train(run, run.path)
    evaluate = ["evaluate", str(run.path), "--device", run.config.device, "--tta"]
    single, _ = _call(run.title, [*evaluate, "none"])
    six, _ = _call(run.title, [*evaluate, "flip-translate"])
    figures = {
        **usage,
        "accuracy": single["accuracy"],
        "evaluate_seconds": single["seconds"],
        "accuracy_six_views": six["accuracy"],
        "settings": flat_settings(run.config),
    }
    write_json(run.record, figures)


def read_run(recipe: str, seed: int, path: Path) -> BenchRun:
    """What `bench` has left of a run in its folder `path`."""
    figures = json.loads((path / RECORD).read_text(encoding="utf-8"))
    del figures["settings"]
    run = RunDir(path)
    result = run.read_json("result.json")
    seconds, curve = 0.0, []
    for epoch in run.read_metrics():
        seconds += epoch.train_seconds
        curve.append((seconds, epoch.val_accuracy))
    return BenchRun(
        recipe=recipe,
        seed=seed,
        train_seconds=seconds,
        curve=tuple(curve),
        train_flops=training_flops(
            read_config(run.config), result["num_classes"], result["train_images"]
        ),
        **figures,
    )


def _call(title: str, arguments: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a command in a process of its own; its JSON document, and what it used."""
    command = [sys.executable, "-m", "cifar_cli", *arguments, "--json", "--quiet"]
    started = time.perf_counter()
    with (
        temporary_folder() as place,
        (place / "out").open("w+b") as out,
        (place / "err").open("w+b") as err,
    ):
        environment = without_settings(os.environ)  # the configuration has them
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if process.returncode:
        lines = texts[1].strip().splitlines() or ["it said nothing"]
        error = CifarError(f"{title}: {lines[-1].removeprefix('Error: ')}")
        error.exit_code = max(1, process.returncode)
        raise error
    scale = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return json.loads(texts[0]), {
        "process_seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * scale,
    }
