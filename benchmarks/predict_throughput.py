"""Images per second of `predict` on files, and of the plain network on pixels in memory.

python benchmarks/predict_throughput.py [--recipe baseline] [--images 1000] [--side 32]
    [--format png] [--times 5] [--batch-size N] [--device cpu]

The files are noise, which no format compresses, in a folder that is read once before. The process
is warm: the network has computed, and the files are in the system's cache. The two take turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cifar_cli.analysis.predict import classify_files
from cifar_cli.analysis.trained import Trained
from cifar_cli.config import load_config
from cifar_cli.data.finding import find_pictures
from cifar_cli.models import build_model
from cifar_cli.training.runtime import Runtime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="baseline")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--side", type=int, default=32, help="of the files, in pixels")
    parser.add_argument("--format", default="png")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    config = load_config(arguments.recipe, env={}, settings={"device": arguments.device})
    size = config.data.image_size
    model = build_model(config.model, 10, size, eval_size=config.eval_size)
    runtime = Runtime.start(config)
    trained = Trained(
        runtime.place(model).eval(), tuple("abcdefghij"), config, runtime, Path("untrained")
    )
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(
        random.integers(0, 256, (arguments.images, size, size, 3), dtype=np.uint8)
    )
    seconds: dict[str, list[float]] = {"network": [], "predict": []}
    with tempfile.TemporaryDirectory() as folder:
        shape = (arguments.side, arguments.side, 3)
        for number in range(arguments.images):
            picture = Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8))
            picture.save(Path(folder) / f"{number:06}.{arguments.format}")
        for _ in range(arguments.times + 1):  # the first is the warm-up
            started = time.perf_counter()
            trained.logits(pixels)
            between = time.perf_counter()
            results = classify_files(
                trained, find_pictures([folder]), batch_size=arguments.batch_size, threshold=0.0
            )
            assert all(one.error is None for one in results)
            seconds["network"].append(between - started)
            seconds["predict"].append(time.perf_counter() - between)
    rates = {
        name: arguments.images / statistics.median(values[1:]) for name, values in seconds.items()
    }
    shares = [n / p for n, p in zip(seconds["network"][1:], seconds["predict"][1:], strict=True)]
    print(
        f"{arguments.recipe}, {arguments.images:,} {arguments.format} files of {arguments.side} "
        f"pixels, median of {arguments.times}: plain network {rates['network']:,.0f} images/s, "
        f"predict {rates['predict']:,.0f} images/s: {statistics.median(shares):.1%} of it "
        f"({min(shares):.1%} to {max(shares):.1%})"
    )


if __name__ == "__main__":
    main()
