"""Images per second of the two forms of the augmentation, on one thread, A B B A.

    python benchmarks/augmentation.py [--images 8192] [--batch-size 512] [--out FILE.json]

Both do what training has them do: gather a batch, augment it with the settings of `baseline`,
and hand over uint8 images. The first batch of each form is the warm-up and is left out.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

from cifar_cli.config import load_config
from cifar_cli.data.loader import make_augment
from cifar_cli.data.sources.shapes import load_shapes
from cifar_cli.training.runtime import Runtime


def images_per_second(form: str, images: Tensor, batch_size: int) -> float:
    """Augment all images, batch by batch, once and then again until a second has passed."""
    augment = make_augment(load_config("baseline", overrides=[f"augment.form={form}"], env={}))
    rows = torch.split(torch.randperm(len(images)), batch_size)
    augment(images.index_select(0, rows[0]), rows[0], 1)
    started, epoch = time.perf_counter(), 0
    while epoch == 0 or time.perf_counter() - started < 1:
        epoch += 1
        for batch in rows:
            augment(images.index_select(0, batch), batch, epoch)
    return epoch * len(images) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    # Threads, and what training asks of the allocator.
    Runtime.start(load_config("baseline", overrides=["device=cpu", "runtime.threads=1"], env={}))
    images = load_shapes(n_train=arguments.images).train.images
    speeds: dict[str, list[float]] = {"albumentations": [], "tensor": []}
    for form in ("albumentations", "tensor", "tensor", "albumentations"):
        speeds[form].append(images_per_second(form, images, arguments.batch_size))
        print(f"{form:<15} {speeds[form][-1]:10,.0f} images/s", flush=True)
    mean = {form: sum(values) / len(values) for form, values in speeds.items()}
    figures = {**mean, "ratio": mean["tensor"] / mean["albumentations"], "turns": speeds}
    print(f"ratio {figures['ratio']:.1f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
