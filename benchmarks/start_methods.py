"""Training seconds with two loader processes under each of multiprocessing's start methods.

python benchmarks/start_methods.py [--rounds 2] [--out FILE.json]

2,000 images of `shapes`, a narrow network, seven epochs of which the first is left out; each run
is a process of its own, in the order A B C C B A, after one that is not counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SETTINGS = {
    "data.source": "shapes",
    "data.workers": 2,
    "data.limit_train": 2000,
    "data.limit_val": 100,
    "model.width": 4,
    "optim.max_lr": 0.01,
    "train.batch_size": 128,
    "train.epochs": 7,
    "device": "cpu",
}
PROGRAM = """
import json, multiprocessing, sys
multiprocessing.set_start_method(sys.argv[1])
from cifar_cli import load_config, train
result = train(load_config(env={}, settings=json.loads(sys.argv[2])), sys.argv[3])
print(json.dumps([epoch.train_seconds for epoch in result.history]))
"""


def seconds(method: str) -> tuple[float, float]:
    """Of the first epoch, in which loader processes start, and of all after it together."""
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-c", PROGRAM, method, json.dumps(SETTINGS), f"{folder}/run"]
        epochs = json.loads(subprocess.check_output(program, text=True))
    return epochs[0], sum(epochs[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    methods = multiprocessing.get_all_start_methods()
    found: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    seconds(methods[0])  # a warm-up: it reads the files from disk
    for turn in range(arguments.rounds):
        for method in methods if turn % 2 == 0 else reversed(methods):
            found[method].append(seconds(method))
    print(f"Python {sys.version.split()[0]}, {arguments.rounds} runs each")
    print("| start method | epoch 1, s | epochs 2 to 7, s | times the first row |")
    print("|---|---|---|---|")
    first = statistics.mean(later for _, later in found[methods[0]])
    for method, runs in found.items():
        start, later = (statistics.mean(column) for column in zip(*runs, strict=True))
        each = ", ".join(f"{one:.2f}" for _, one in runs)
        print(f"| {method} | {start:.2f} | {later:.2f} ({each}) | {later / first:.2f} |")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
