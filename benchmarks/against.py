"""Speed and peak memory of this checkout against another one, A B B A.

    python benchmarks/against.py OTHER [RECIPE...] [--turns 2] [--threads 2] [--out FILE.json]

OTHER is the folder of another checkout; both use the Python that runs this script. Each turn is
one `cifar-resnet train` in a process of its own, on the built-in shapes. Its first epoch is the
warm-up; the others give images per second. A is the other checkout, B this one.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parents[1]
IMAGES = {"baseline": 1024, "fast94": 2560}
OTHERS = 5000
EPOCHS = {"baseline": 2, "fast94": 3}
PROGRAM = (
    "import resource, subprocess, sys\n"
    "code = subprocess.call(sys.argv[1:], stdout=sys.stderr)\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)\n"
    "sys.exit(code)\n"
)


class Turn(NamedTuple):
    """One run: images per second after the first epoch, and the peak of its memory."""

    images_per_second: float
    peak_bytes: int


def measure(checkout: Path, recipe: str, threads: int) -> Turn:
    """Train in a process of its own."""
    images, epochs = IMAGES.get(recipe, OTHERS), EPOCHS.get(recipe, 4)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [
            sys.executable, "-m", "cifar_cli", "train", "--recipe", recipe, "--data", "shapes",
            "--limit-train", images, "--limit-val", "500", "--epochs", epochs, "--device", "cpu",
            "--set", f"runtime.threads={threads}", "--quiet", "--run-dir", run,
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *map(str, command)],
            env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads)},
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        with (run / "metrics.csv").open(encoding="utf-8") as file:
            seconds = [float(row["train_seconds"]) for row in csv.DictReader(file)][1:]
    return Turn(images * len(seconds) / sum(seconds), int(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("recipes", nargs="*", default=["fast90", "fast94", "baseline"])
    parser.add_argument("--turns", type=int, default=2, help="of each side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, float | list[float]]] = {}
    for recipe in arguments.recipes:
        turns: dict[Path, list[Turn]] = {arguments.other.resolve(): [], HERE: []}
        other, here = turns
        for number in range(arguments.turns):
            for checkout in (other, here) if number % 2 == 0 else (here, other):
                turns[checkout].append(measure(checkout, recipe, arguments.threads))
        a, b = ([turn.images_per_second for turn in turns[side]] for side in (other, here))
        memory = [max(turn.peak_bytes for turn in turns[side]) for side in (other, here)]
        speed = statistics.mean(b) / statistics.mean(a)
        figures[recipe] = {"other": a, "here": b, "speed": speed, "memory": memory[1] / memory[0]}
        print(
            f"{recipe}: other {', '.join(f'{x:.1f}' for x in a)} images/s, "
            f"here {', '.join(f'{x:.1f}' for x in b)}: {speed:.3f} of its speed; peak memory "
            f"{memory[0] / 2**30:.2f} and {memory[1] / 2**30:.2f} GiB: "
            f"{memory[1] / memory[0]:.3f}",
            flush=True,
        )
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
