"""Each convolution 3x3 of a recipe's network: direct, by Winograd's filtering in torch, compiled.

    python benchmarks/convolutions.py [RECIPE] [--threads 2] [--repeats 3] [--out FILE.json]

Forward and backward pass of one layer at a time, with the pooling that follows some of them, at the
recipe's batch size and, if images grow during training, at each of their sizes; all three in turn
and back again. A layer for which Winograd's filtering is estimated not to pay is direct in all.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar_cli.config import Config, load_config
from cifar_cli.kernels import accelerate, restore
from cifar_cli.kernels.library import load
from cifar_cli.models import build_model
from cifar_cli.training.runtime import Runtime, compiled_code_folder


def blocks(config: Config) -> dict[tuple[int, int, int], nn.Sequential]:
    """By (side of its images, channels in, channels out), each block's start once."""
    starts: dict[tuple[int, int, int], nn.Sequential] = {}
    model = build_model(config.model, 10, config.data.image_size)

    def note(block: nn.Module, arguments: tuple[Tensor], _: Tensor) -> None:
        convolution, following, *_rest = block.children()
        assert isinstance(convolution, nn.Conv2d)
        pooling = [following] if isinstance(following, nn.MaxPool2d) else []
        key = arguments[0].shape[2], convolution.in_channels, convolution.out_channels
        starts.setdefault(key, nn.Sequential(convolution, *pooling))

    for layer in model.modules():
        if isinstance(layer, nn.Sequential) and isinstance(layer[0], nn.Conv2d):
            layer.register_forward_hook(note)
    stages = config.train.resolutions
    sides = [side for _, side in stages]
    if not stages or stages[-1][0] < 1:
        sides.append(config.data.image_size)
    for side in sides:
        model(torch.zeros(2, 3, side, side))
    return starts


def seconds(block: nn.Sequential, x: Tensor, repeats: int) -> tuple[float, float]:
    """Of a forward and of a backward pass, the best of some."""
    forward, backward = [], []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        out = block(x)
        forward.append(time.perf_counter() - started)
        gradient = torch.ones_like(out)
        started = time.perf_counter()
        torch.autograd.grad(out, [x, *block.parameters()], gradient)
        backward.append(time.perf_counter() - started)
    return min(forward[1:]), min(backward[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="baseline")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    own = ["device=cpu", f"runtime.threads={arguments.threads}"]
    config = load_config(arguments.recipe, overrides=own, env={})
    Runtime.start(config)
    folder = compiled_code_folder()
    names = ["direct", "Winograd", *(["compiled"] if load(folder) else [])]
    rows = []
    print("side  channels    " + "".join(f"{name + ', ms':>14s}  times" for name in names))
    for (side, inputs, outputs), block in blocks(config).items():
        block.to(memory_format=torch.channels_last)
        x = torch.randn(config.train.batch_size, inputs, side, side)
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for name in (*names, *reversed(names)):
            restore(block)
            if name != "direct":
                accelerate(block, cache=folder if name == "compiled" else None)
            turns[name].append(seconds(block, x, arguments.repeats))
        ms = {
            name: [1e3 * min(passes) for passes in zip(*turns[name], strict=True)] for name in names
        }
        macs = 3 * 9 * side**2 * inputs * outputs * config.train.batch_size
        line = f"{side:4d}  {inputs:3d} to {outputs:3d}"
        for forward, backward in ms.values():
            times = sum(ms["direct"]) / (forward + backward)
            line += f"   {forward:4.0f} + {backward:4.0f}  {times:5.2f}"
        print(line, flush=True)
        rows.append({
            "side": side, "in": inputs, "out": outputs, "macs": macs, "forward_backward_ms": ms,
        })  # fmt: skip
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
