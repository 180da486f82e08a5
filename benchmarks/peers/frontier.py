"""What accuracy a time buys: recipes here against another system cut to fewer epochs, drawn.

python benchmarks/peers/frontier.py [--out build/peers] [--plot FILE.png]

Reads what compare.py left under --out, and runs nothing.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from cifar_cli.experiments.bench import RECORD, read_run
from cifar_cli.output.figures.style import BLUE, VERMILION, new_figure


class Point(NamedTuple):
    """Means over the runs of one recipe, or of one number of epochs."""

    name: str
    runs: int
    seconds: float
    """Of training alone."""
    accuracy: float
    """Single view, a fraction."""
    accuracy_six_views: float


def recipes(folder: Path) -> list[Point]:
    """Of all runs of recipes that are complete under `folder`."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for record in sorted(folder.glob(f"*/{RECORD}")):
        recipe, seed = record.parent.name.rsplit("-", 1)
        run = read_run(recipe, int(seed), record.parent)
        found.setdefault(recipe, []).append(
            (run.train_seconds, run.accuracy, run.accuracy_six_views)
        )
    return [point(name, runs) for name, runs in found.items()]


def peers(folder: Path) -> list[Point]:
    """Of all runs of another system under `folder`: NAME-EPOCHS-THREADS-SEED.json."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for record in sorted(folder.glob("*.json")):
        parts = re.fullmatch(r"(.+)-([\d.]+)-\d+-\d+", record.stem)
        if not parts:
            continue  # a report of compare.py
        name, epochs = parts[1], f"{parts[2]} epoch" + ("s" if parts[2] != "1" else "")
        run = json.loads(record.read_text(encoding="utf-8"))
        found.setdefault(f"{name}, {epochs}", []).append(
            (run["train_seconds"], run["accuracy"], run["accuracy_six_views"])
        )
    return [point(name, runs) for name, runs in found.items()]


def point(name: str, runs: Sequence[tuple[float, float, float]]) -> Point:
    """Their mean."""
    return Point(name, len(runs), *(fmean(column) for column in zip(*runs, strict=True)))


def best_within(points: Sequence[Point], seconds: float) -> Point | None:
    """The most accurate one that is ready within `seconds`."""
    ready = [p for p in points if p.seconds <= seconds]
    return max(ready, key=lambda p: p.accuracy, default=None)


def draw(path: Path, ours: Sequence[Point], theirs: Sequence[Point]) -> None:
    """Accuracy against minutes, on a logarithmic axis: ours as steps, theirs joined."""
    end = max(p.seconds for p in [*ours, *theirs]) / 60 * 1.3
    with new_figure(path, 8, 4.5) as figure:
        axis = figure.subplots()
        minutes, _ = columns(ours)
        best = [best_within(ours, seconds) for seconds in sorted(p.seconds for p in ours)]
        percent = [100 * p.accuracy for p in best if p]
        axis.step([*minutes, end], [*percent, percent[-1]], BLUE, where="post")
        axis.plot(*columns(theirs), VERMILION)
        systems = ", ".join(sorted({p.name.split(",")[0] for p in theirs}))
        for points, label, colour, marker, offset, side in (
            (ours, "recipes here", BLUE, "o", (-4, 8), "right"),
            (theirs, f"{systems}, cut to fewer epochs", VERMILION, "s", (8, -14), "left"),
        ):
            axis.plot(*columns(points), color=colour, marker=marker, linestyle="none", label=label)
            for p in points:
                axis.annotate(
                    f"{p.name.split(', ')[-1]} (n = {p.runs})",
                    (p.seconds / 60, 100 * p.accuracy), offset, textcoords="offset points",
                    color=colour, fontsize=8, ha=side,
                )  # fmt: skip
        axis.margins(y=0.1)
        axis.legend(loc="upper left")
        axis.set_xscale("log")
        ticks = [t for t in (1, 2, 3, 5, 10, 20, 30, 60, 120) if t <= end]
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.minorticks_off()
        axis.set(
            title="What accuracy a time buys",
            xlabel="minutes of training alone",
            ylabel="test images classified correctly, %",
        )


def columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """Minutes and percent, in the order of time."""
    ordered = sorted(points, key=lambda p: p.seconds)
    return [p.seconds / 60 for p in ordered], [100 * p.accuracy for p in ordered]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/peers"))
    parser.add_argument("--plot", type=Path, help="default: frontier.png under --out")
    arguments = parser.parse_args()
    ours, theirs = recipes(arguments.out), peers(arguments.out)
    if not (ours and theirs):
        raise SystemExit(f"{arguments.out} needs runs of both sides; compare.py makes them")
    for p in sorted([*ours, *theirs], key=lambda p: p.seconds):
        print(
            f"{p.name}: {p.seconds:.1f} s, {p.accuracy:.2%} single view, "
            f"{p.accuracy_six_views:.2%} six views, n = {p.runs}"
        )
    for p in theirs:
        best = best_within(ours, p.seconds)
        told = f"{best.accuracy - p.accuracy:+.2%} by {best.name}" if best else "nothing here"
        print(f"within the time of {p.name}: {told}")
    draw(arguments.plot or arguments.out / "frontier.png", ours, theirs)


if __name__ == "__main__":
    main()
