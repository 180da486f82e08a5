"""Seconds from a command line to its help, for the app and each command; median of N starts.

python benchmarks/startup.py [--runs 9] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = (
    "", "summary", "preview-augs", "find-lr", "train", "evaluate", "misclassified", "plot",
    "bench", "doctor", "recipes",
)  # fmt: skip


def seconds(command: str) -> float:
    """Wall-clock time of one whole process."""
    program = [sys.executable, "-m", "cifar_cli", *command.split(), "--help"]
    started = time.perf_counter()
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    figures = {}
    for command in COMMANDS:
        seconds(command)  # the first start reads the files from disk
        figures[command] = statistics.median(seconds(command) for _ in range(arguments.runs))
        print(f"{f'cifar-resnet {command}'.strip():<28} {figures[command]:.3f} s", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
