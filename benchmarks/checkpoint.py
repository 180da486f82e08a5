"""Seconds to save and to load a checkpoint of `baseline`, as training does at an epoch's end.

python benchmarks/checkpoint.py [--times 9] [--folder DIR] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from cifar_cli.config import load_config
from cifar_cli.models import build_model
from cifar_cli.training.checkpoint import load_checkpoint, save_checkpoint
from cifar_cli.training.optim import build_optimizer
from cifar_cli.training.state import TrainState


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where the file is written")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    config = load_config("baseline", env={})
    model = build_model(config.model, 10, 32)
    state = TrainState(model, build_optimizer(model, config.optim, 0.01))
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    state.optimizer.step()
    seconds: dict[str, list[float]] = {"save": [], "load": []}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "last.pt"
        for _ in range(arguments.times + 1):  # the first is the warm-up
            started = time.perf_counter()
            save_checkpoint(path, state, config, tuple("abcdefghij"), "")
            saved = time.perf_counter()
            load_checkpoint(path)
            seconds["save"].append(saved - started)
            seconds["load"].append(time.perf_counter() - saved)
        size = path.stat().st_size
    figures = {
        "bytes": size,
        **{name: statistics.median(values[1:]) for name, values in seconds.items()},
        "slowest_save": max(seconds["save"][1:]),
    }
    print(f"{size:,} bytes; median of {arguments.times}: save {figures['save']:.3f} s ", end="")
    print(f"(slowest {figures['slowest_save']:.3f} s), load {figures['load']:.3f} s")
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
