"""`cifar-resnet bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cifar_cli.cli import options
from cifar_cli.errors import ConfigError


def bench(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE]...", help="Names or files. Default: fast90."),
    ] = None,
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", min=1, max=1000, help="Runs of each recipe.")
    ] = 3,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    limit_train: options.LimitTrain = None,
    limit_val: options.LimitVal = None,
    val_fraction: options.ValFraction = None,
    set_: options.Set = None,
    device: options.Device = None,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=2**31 - 1001,  # so that the last of 1,000 runs has one, too
            help="Seed of the first run. Each further run adds one.",
        ),
    ] = 1,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for runs, table and plot. Complete runs are kept, others start over.",
        ),
    ] = Path("bench"),
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train recipes several times, and report accuracy with its interval, time, FLOPs and memory.

    Each run is a process of its own, and recipes take turns. Writes bench.json and a plot of
    accuracy against time.
    """
    given = {**locals(), "seed": None}  # each run has its own
    configs = {name: options.resolve(given, name) for name in recipes or ["fast90"]}
    names = list(configs)
    if len({Path(name).stem for name in names}) < len(names):
        raise ConfigError(f"Recipes {', '.join(names)}: each needs a file name of its own.")

    from cifar_cli.experiments.bench import bench as run_bench
    from cifar_cli.output.console import remarks, results, show
    from cifar_cli.output.documents import bench_document
    from cifar_cli.output.figures.speed import accuracy_against_seconds
    from cifar_cli.output.tables import bench_table
    from cifar_cli.storage import write_json

    def progress(text: str) -> None:
        if not quiet:
            remarks().say(text)

    done = run_bench(configs, runs, out, seed, progress)
    files = [out / "bench.json", out / "accuracy_seconds.png"]
    curves = {name: [run.curve for run in done if run.recipe == name] for name in names}
    accuracy_against_seconds(files[1], curves)
    document = bench_document(done, files)
    write_json(files[0], document)
    show(document, json, bench_table(document, results().width))
