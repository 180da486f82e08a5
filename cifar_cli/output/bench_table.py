"""The figures of `bench` as plain values, and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from cifar_cli.experiments.bench import BenchRun, spread
from cifar_cli.output.console import counted
from cifar_cli.rundir import SCHEMA_VERSION
from cifar_cli.text import printable

FIGURES = (
    "accuracy", "accuracy_six_views", "train_seconds", "process_seconds", "evaluate_seconds",
    "cpu_seconds", "peak_bytes", "train_flops",
)  # fmt: skip


def bench_report(runs: Sequence[BenchRun]) -> dict[str, Any]:
    """All runs, and each figure's mean, deviation and 95% interval by recipe."""
    names = dict.fromkeys(run.recipe for run in runs)
    return {
        "schema_version": SCHEMA_VERSION,
        "recipes": {
            name: {
                figure: asdict(spread([getattr(r, figure) for r in runs if r.recipe == name]))
                for figure in FIGURES
            }
            for name in names
        },
        "runs": [asdict(run) for run in runs],
    }


def bench_table(report: dict[str, Any]) -> Table:
    """One column a recipe, one row a figure; ± is half of the 95% interval of the mean."""
    table = Table(
        title="Bench", caption="± half of the 95% interval of the mean", header_style="bold"
    )
    table.add_column("")
    for name, figures in report["recipes"].items():
        runs = figures["accuracy"]["n"]
        table.add_column(Text(f"{printable(name)}\n{counted(runs, 'run')}"), justify="right")
    for title, figure, unit, digits in (
        ("Accuracy %", "accuracy", 0.01, 2),
        ("Accuracy, 6 views %", "accuracy_six_views", 0.01, 2),
        ("Training s", "train_seconds", 1, 1),
        ("Whole process s", "process_seconds", 1, 1),
        ("Evaluation s", "evaluate_seconds", 1, 2),
        ("CPU s", "cpu_seconds", 1, 1),
        ("Peak memory GiB (host)", "peak_bytes", 2**30, 2),
        ("Training PFLOP", "train_flops", 1e15, 4),
    ):
        cells = [_cell(figures[figure], unit, digits) for figures in report["recipes"].values()]
        table.add_row(title, *cells)
    return table


def _cell(figure: dict[str, Any], unit: float, digits: int) -> str:
    mean = f"{figure['mean'] / unit:.{digits}f}"
    if not figure["interval"] or not figure["deviation"]:
        return mean
    half = (figure["interval"][1] - figure["interval"][0]) / 2
    return f"{mean} ± {half / unit:.{digits}f}"
