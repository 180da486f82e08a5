"""Recipes against each other: whole runs in processes of their own, interleaved, summed up.

Three clocks: the whole process from a cold start to the checkpoint; training alone; evaluation.
"""

from __future__ import annotations

import json
import math
import os
import shutil
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
from cifar_cli.config.loading import config_yaml, flat_settings, read_config, without_settings
from cifar_cli.errors import CifarError, ConfigError
from cifar_cli.rundir import RunDir
from cifar_cli.storage import write_json, write_text

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


def bench(
    recipes: Mapping[str, Config],
    runs: int,
    folder: Path,
    first_seed: int = 1,
    progress: Callable[[str], None] = lambda text: None,
) -> list[BenchRun]:
    """Run each recipe `runs` times with seeds of its own, A B B A, under `folder`.

    Before that, each recipe takes two steps, which fills caches and is thrown away. Runs that are
    complete in `folder` already are not run again.

    Args:
        recipes: Names or files, and the settings that they come to here, seeds aside.
        runs: How many of each.
        folder: Where the runs are left.
        first_seed: Seed of the first run; the others follow.
        progress: Told what comes next.

    Raises:
        ConfigError: A run that is complete in `folder` was made with other settings.
        CifarError: A run failed; with its own message and exit code.
    """
    found: list[BenchRun] = []
    warm: set[str] = set()
    for number in range(runs):
        order = list(recipes) if number % 2 == 0 else list(recipes)[::-1]
        for recipe in order:
            seed = first_seed + number
            config = recipes[recipe].model_copy(update={"seed": seed})
            path = folder / f"{Path(recipe).stem}-{seed}"
            record = path / RECORD
            if record.is_file():
                _check_kept(path, config)
                progress(f"{recipe}, seed {seed}: already there")
            else:
                progress(f"{recipe}, seed {seed}: run {number + 1} of {runs}")
                if recipe not in warm:
                    _warm_up(config, folder)
                    warm.add(recipe)
                _run(config, path, record)
            found.append(read_run(recipe, seed, path))
    return found


def _check_kept(path: Path, config: Config) -> None:
    """See that a run which is not made again is the one that is asked for."""
    kept, wanted = flat_settings(read_config(RunDir(path).config)), flat_settings(config)
    if wanted["optim.max_lr"] == "auto":
        wanted["optim.max_lr"] = kept["optim.max_lr"]
    differ = [
        f"{key} {kept[key]!r}, not {wanted[key]!r}" for key in kept if kept[key] != wanted[key]
    ]
    if differ:
        raise ConfigError(
            f"{path} was run with other settings: {'; '.join(differ)}. Give another --out, or "
            "delete it."
        )


def _warm_up(config: Config, folder: Path) -> None:
    path = folder / ".warm-up"
    steps = ["--epochs", "1", "--limit-train", "1024", "--batch-size", "512", "--limit-val", "100"]
    _train(config, path, steps)
    shutil.rmtree(path)


def _train(config: Config, path: Path, flags: Sequence[str] = ()) -> dict[str, Any]:
    """Train in a process of its own; what it used."""
    with tempfile.TemporaryDirectory() as place:
        settings = Path(place) / "settings.yaml"
        write_text(settings, config_yaml(config))
        return _call(["train", "--recipe", str(settings), "--run-dir", str(path), *flags])[1]


def _run(config: Config, path: Path, record: Path) -> None:
    usage = _train(config, path)
    views = {
        tta: _call(["evaluate", str(path), "--tta", tta])[0] for tta in ("none", "flip-translate")
    }
    figures = {
        **usage,
        "accuracy": views["none"]["accuracy"],
        "evaluate_seconds": views["none"]["seconds"],
        "accuracy_six_views": views["flip-translate"]["accuracy"],
    }
    write_json(record, figures)


def read_run(recipe: str, seed: int, path: Path) -> BenchRun:
    """What `bench` has left of a run in its folder `path`."""
    figures = json.loads((path / RECORD).read_text(encoding="utf-8"))
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


def _call(arguments: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a command in a process of its own; its JSON document, and what it used."""
    command = [sys.executable, "-m", "cifar_cli", *arguments, "--json", "--quiet"]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
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
        error = CifarError(f"{' '.join(arguments)}: {lines[-1].removeprefix('Error: ')}")
        error.exit_code = max(1, process.returncode)
        raise error
    scale = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return json.loads(texts[0]), {
        "process_seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * scale,
    }
