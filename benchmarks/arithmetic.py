"""How near a recipe's steps on the CPU come to the machine's own matrix product, and what they do.

python benchmarks/arithmetic.py [RECIPE] [--set KEY=VALUE]... [--steps 6] [--threads 2] [--out FILE]

For each size of image that the recipe trains on: time of a step, split into its parts, between
matrix products; operations a second of both; then the same over the whole of training, each size
with its share of the steps. Operations are those of the direct way, also where convolutions take
fewer (Winograd), so this is speed, not how busy the machine is.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from cifar_cli.config import Config, load_config
from cifar_cli.data.loader import TrainLoader
from cifar_cli.data.types import ImageSet
from cifar_cli.experiments.flops import training_flops
from cifar_cli.training.runtime import Runtime
from cifar_cli.training.state import new_state
from cifar_cli.training.step import Step

MATRIX = 2048
KINDS = {
    "convolutions, with pooling done in one": ("convolution",),
    "batch norm": ("batch_norm",),
    "max-pooling apart": ("max_pool", "aten::fill_"),
    "SiLU": ("silu",),
    "matrix products of Muon": ("aten::mm", "aten::addmm"),
}


def product_rate() -> float:
    """Operations a second of a large fp32 matrix product."""
    a, b = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    started = time.perf_counter()
    for _ in range(3):
        a @ b
    return 3 * 2 * MATRIX**3 / (time.perf_counter() - started)


class Steps:
    """Training steps at one size of image, with a clock on their parts."""

    def __init__(self, config: Config, runtime: Runtime, side: int) -> None:
        count = config.train.batch_size
        generator = torch.Generator().manual_seed(1)
        pixels = torch.randint(256, (count, 32, 32, 3), generator=generator, dtype=torch.uint8)
        labels = torch.randint(10, (count,), generator=generator)
        images = ImageSet(pixels, labels, torch.arange(count))
        self.loader = TrainLoader(images, config, runtime.device)
        stages = ((1.0, side),) if side != 32 else ()
        train = config.train.model_copy(update={"resolutions": stages})
        config = config.model_copy(update={"train": train})
        state = new_state(config, 10, runtime, self.loader)
        self.step = Step(state.model.train(), state.optimizer, config, runtime)

    def __call__(self, epoch: int) -> dict[str, float]:
        """Take one step; seconds by part."""
        marks = [time.perf_counter()]
        ((images, labels),) = self.loader.epoch(epoch)
        marks.append(time.perf_counter())
        _, loss = self.step.forward(images, labels, 0.0)
        marks.append(time.perf_counter())
        self.step.backward(loss)
        marks.append(time.perf_counter())
        self.step.optimizer.step()
        marks.append(time.perf_counter())
        parts = ("images", "forward", "backward", "optimiser")
        return {part: b - a for part, (a, b) in zip(parts, pairwise(marks), strict=True)}


def stages(config: Config) -> Iterator[tuple[float, int]]:
    """Shares of the steps and the side of the images in them."""
    before = 0.0
    for until, side in (*config.train.resolutions, (1.0, config.data.image_size)):
        if until > before:
            yield until - before, side
            before = until


def operators(steps: Steps) -> dict[str, float]:
    """Share of each kind of operator in a step's own time."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for epoch in range(1, 4):
            steps(epoch)
    times: dict[str, float] = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for event in profiled.events() or ():
        times[kind_of(event)] += event.self_cpu_time_total
    total = sum(times.values())
    return {kind: time / total for kind, time in times.items()}


def kind_of(event: FunctionEvent) -> str:
    """Of an operator: that of the outermost one which called it and has a kind, or its own."""
    kind = "the rest"
    at: FunctionEvent | None = event
    while at is not None:
        name = at.name.lower()
        kind = next((k for k, parts in KINDS.items() if any(p in name for p in parts)), kind)
        at = at.cpu_parent
    return kind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="fast90")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    threads = [f"runtime.threads={arguments.threads}"]
    config = load_config(arguments.recipe, overrides=[*arguments.set, *threads])
    runtime = Runtime.start(config)
    product_rate()
    found, seconds, flops, products = [], 0.0, 0.0, []
    for share, side in stages(config):
        only = config.model_copy(
            update={
                "train": config.train.model_copy(
                    update={"epochs": 1, "resolutions": ((1.0, side),)}
                )
            }
        )
        work = training_flops(only, 10, config.train.batch_size)
        steps = Steps(config, runtime, side)
        steps(1)
        rows, rates = [], []
        for epoch in range(2, arguments.steps + 2):
            rates.append(product_rate())
            rows.append(steps(epoch))
        step, rate = median(sum(row.values()) for row in rows), median(rates)
        parts = {part: median(row[part] for row in rows) / step for part in rows[0]}
        kinds = operators(steps)
        seconds, flops = seconds + share * step, flops + share * work
        products += [rate]
        found.append(
            {
                "side": side,
                "share_of_steps": share,
                "images_per_second": config.train.batch_size / step,
                "flops_per_second": work / step,
                "product_flops_per_second": rate,
                "parts": parts,
                "operators": kinds,
            }
        )
        print(
            f"{side} pixels, {share:.0%} of the steps: {config.train.batch_size / step:.0f} "
            f"images/s, {work / step / 1e9:.1f} GFLOP/s, matrix product {rate / 1e9:.1f}: "
            f"{work / step / rate:.0%}"
        )
        for shares in (parts, kinds):
            print("    " + ", ".join(f"{name} {part:.1%}" for name, part in shares.items()))
    overall = flops / seconds / (sum(products) / len(products))
    print(f"over the whole of training: {flops / seconds / 1e9:.1f} GFLOP/s, {overall:.0%}")
    if arguments.out:
        report = {"recipe": arguments.recipe, "stages": found, "share_of_product": overall}
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
