"""Each convolution 3x3 of a recipe's network: the direct way, Winograd's, and the compiled one.

    python benchmarks/convolutions.py [RECIPE] [--threads 2] [--repeats 3] [--out FILE.json]

Forward and backward pass of one layer at a time, with the pooling that follows some of them, at the
recipe's batch size and, where images grow during training, at each of their sizes; all ways in turn
and back again. Where Winograd's way is estimated not to pay, it is the direct one too.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar_cli.config import Config, load_config
from cifar_cli.models import build_model
from cifar_cli.models.convolution import Conv2d, start_of_block
from cifar_cli.training.runtime import load_compiled_code, prepare_runtime


def blocks(config: Config) -> dict[tuple[int, int, int], nn.Module]:
    """By (side of its images, channels in, channels out), each block's start once."""
    found: dict[tuple[int, int, int], nn.Module] = {}
    model = build_model(config.model, 10, config.data.image_size)

    def note(block: nn.Module, arguments: tuple[Tensor], _: Tensor) -> None:
        layer = convolution_of(block)
        found.setdefault((arguments[0].shape[2], layer.in_channels, layer.out_channels), block)

    for layer in model.modules():
        if isinstance(layer, nn.Sequential) and isinstance(layer[0], Conv2d):
            layer.register_forward_hook(note)
    stages = config.train.resolutions
    sides = [side for _, side in stages]
    if not stages or stages[-1][0] < 1:
        sides.append(config.data.image_size)
    for side in sides:
        model(torch.zeros(2, 3, side, side))
    return found


def convolution_of(block: nn.Module) -> Conv2d:
    layer = next(block.children())
    assert isinstance(layer, Conv2d)
    return layer


def convolved(block: nn.Module, x: Tensor) -> Tensor:
    """What comes out of the convolution and, where one follows, of the pooling."""
    x, left = start_of_block(list(block.children()), x)
    return left[0](x) if isinstance(left[0], nn.MaxPool2d) else x


def seconds(block: nn.Module, x: Tensor, repeats: int) -> tuple[float, float]:
    """Of a forward and of a backward pass, the best of some."""
    forward, backward = [], []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        out = convolved(block, x)
        forward.append(time.perf_counter() - started)
        gradient = torch.ones_like(out)
        started = time.perf_counter()
        torch.autograd.grad(out, [x, convolution_of(block).weight], gradient)
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
    prepare_runtime(config)
    ways = {"direct": (False, False), "Winograd": (True, False)}
    if load_compiled_code():
        ways["compiled"] = (True, True)
    rows = []
    print("side  channels    " + "".join(f"{way + ', ms':>14s}  times" for way in ways))
    for (side, inputs, outputs), block in blocks(config).items():
        block.to(memory_format=torch.channels_last)
        x = torch.randn(config.train.batch_size, inputs, side, side)
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for way in (*ways, *reversed(ways)):
            layer = convolution_of(block)
            layer.winograd, layer.compiled = ways[way]
            found[way].append(seconds(block, x, arguments.repeats))
        ms = {way: [1e3 * min(passes) for passes in zip(*found[way], strict=True)] for way in ways}
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
