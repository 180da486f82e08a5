"""Images per second of `baseline` on a CPU: the plain loop against the engine, A B B A.

    python benchmarks/train_throughput.py [--steps 6] [--threads 2] [--out FILE.json]

A, the plain loop, is what one writes without thinking of speed: NCHW, torch's own layers, a
`DataLoader` without workers, Albumentations, Adam, `OneCycleLR`, and `.item()` at each step, with
memory as torch and the C library have it by default. B is the engine, with the same network,
weights, images, batch size and augmentation. Each turn is a process of its own. Both stop after the
same steps; the first step of each turn is the warm-up and is left out.

The large fp32 matrix product of the same machine is measured beside them, as the ceiling.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from cifar_cli.config import Config, load_config
from cifar_cli.data.augment.by_albumentations import AlbumentationsAugment
from cifar_cli.data.loader import TrainLoader
from cifar_cli.data.sources.shapes import load_shapes
from cifar_cli.data.types import ImageSet
from cifar_cli.models import build_model
from cifar_cli.training.loop import train_epochs
from cifar_cli.training.runtime import Runtime
from cifar_cli.training.state import new_state

MULT_ADDS = 379_274_240  # of one image forward; the backward pass takes twice as many more


class PlainImages(Dataset[tuple[Tensor, int]]):
    """One augmented, normalised image at a time, as a course notebook does it."""

    def __init__(self, images: ImageSet, config: Config) -> None:
        self.images = images
        assert config.augment.form == "albumentations"
        augment = AlbumentationsAugment(config.augment, config.data.mean_colour, config.seed, 32)
        self.transform = augment.transform
        self.mean = torch.tensor(config.data.normalisation[0])[:, None, None]
        self.std = torch.tensor(config.data.normalisation[1])[:, None, None]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        pixels = self.transform(image=self.images.images[row].numpy())["image"]
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        return (image - self.mean) / self.std, int(self.images.labels[row])


def plain_loop(images: ImageSet, config: Config, steps: int) -> list[float]:
    """Seconds of each step of the plain loop."""
    torch.manual_seed(config.seed)
    model = build_model(config.model, 10, 32)
    assert not isinstance(config.optim.max_lr, str)
    assert config.schedule.name == "one_cycle"
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config.optim.max_lr, weight_decay=config.optim.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=config.optim.max_lr,
        total_steps=24 * 98,
        pct_start=config.schedule.pct_start,
        div_factor=config.schedule.div_factor,
        final_div_factor=config.schedule.final_div_factor,
        anneal_strategy="linear",
    )
    batches = DataLoader(
        PlainImages(images, config), batch_size=config.train.batch_size, shuffle=True
    )
    seconds, total_loss, correct = [], 0.0, 0
    model.train()
    started = time.perf_counter()
    for pixels, labels in batches:
        optimizer.zero_grad()
        logits = model(pixels)
        loss = F.cross_entropy(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total_loss += loss.item()
        correct += (logits.argmax(1) == labels).sum().item()
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        if len(seconds) == steps:
            break
    return seconds


def engine_loop(images: ImageSet, config: Config, steps: int) -> list[float]:
    """Seconds of each step of the engine's own loop."""
    runtime = Runtime.start(config)
    state = new_state(config, 10, runtime)
    ends: list[float] = [time.perf_counter()]
    records = train_epochs(
        state,
        TrainLoader(images, config, runtime.device),
        images,
        config,
        runtime,
        pause=lambda: len(ends) > steps,
        on_step=lambda epoch, step: ends.append(time.perf_counter()),
    )
    assert next(records, None) is None, "the loop stops before the epoch ends"
    return [end - start for start, end in itertools.pairwise(ends)]


def matrix_product() -> float:
    """Multiply-adds per second, in units of 1e9, of a large fp32 matrix product; best of five."""
    a, b = torch.randn(2, 4096, 4096)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 4096**3 / min(seconds) / 1e9


def turn(name: str, arguments: argparse.Namespace) -> list[float]:
    """Seconds of the steps of one turn, measured in a process of its own."""
    command = [sys.executable, __file__, "--turn", name, "--steps", str(arguments.steps)]
    command += ["--threads", str(arguments.threads)]
    command += [part for setting in arguments.set for part in ("--set", setting)]
    defaults = {"THP_MEM_ALLOC_ENABLE": "0"} if name == "plain" else {}
    done = subprocess.run(
        command, env={**os.environ, **defaults}, capture_output=True, text=True, check=True
    )
    seconds: list[float] = json.loads(done.stdout)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6, help="steps a turn, the first left out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--turn", choices=["plain", "engine"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    own = ["device=cpu", f"runtime.threads={arguments.threads}", *arguments.set]
    config = load_config("baseline", overrides=own, env={})
    size = config.train.batch_size
    torch.set_num_threads(arguments.threads)
    if arguments.turn:
        images = load_shapes(n_train=(arguments.steps + 1) * size).train
        loop = engine_loop if arguments.turn == "engine" else plain_loop
        print(json.dumps(loop(images, config, arguments.steps)[1:]))
        return
    seconds: dict[str, list[float]] = {"plain": [], "engine": []}
    for name in ("plain", "engine", "engine", "plain"):
        steps = turn(name, arguments)
        seconds[name] += steps
        print(f"{name:<7} {size / statistics.mean(steps):6.2f} images/s", flush=True)
    speed = {name: size / statistics.mean(values) for name, values in seconds.items()}
    ceiling = matrix_product()
    figures: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": arguments.threads,
        "batch_size": size,
        "steps_each": len(seconds["plain"]),
        "plain_images_per_second": speed["plain"],
        "engine_images_per_second": speed["engine"],
        "ratio": speed["engine"] / speed["plain"],
        "deviation": {n: statistics.stdev(size / s for s in v) for n, v in seconds.items()},
        "matrix_product_gmac_per_second": ceiling,
        "matrix_product_images_per_second": ceiling * 1e9 / (3 * MULT_ADDS),
    }
    print(json.dumps(figures, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
