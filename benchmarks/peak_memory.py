"""Peak memory of a `baseline` run on a CPU at batch 512, and what it is made of (Linux).

    python benchmarks/peak_memory.py [--out FILE.json]

Goes through a run stage by stage, on as many images as CIFAR-10 has, and reads the process's
resident memory after each. What a forward pass keeps for the backward pass is counted by the
kind of layer that keeps it.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections import defaultdict
from pathlib import Path
from typing import Any

GIB = 2**30


def resident() -> int:
    """Bytes of this process that lie in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def kept_for_backward(model: Any, images: Any) -> dict[str, int]:
    """Bytes that a forward pass keeps, by what keeps them; each piece of memory counted once.

    Only batch norm can be told by hooks: those on other layers would keep these from being done
    together with their neighbours, as they are in training.
    """
    import torch

    rest = "convolutions, ReLU and dropout"
    kinds: list[str] = [rest]
    seen: set[int] = set()
    total: dict[str, int] = defaultdict(int)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen | own:
            seen.add(storage.data_ptr())
            is_argmax = tensor.dtype in (torch.int64, torch.uint8)
            total["argmax indices" if is_argmax else kinds[-1]] += storage.nbytes()
        return tensor

    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_pre_hook(lambda *_: kinds.append("batch norm"))
            layer.register_forward_hook(lambda *_: kinds.pop() and None)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(images)
    del output
    return dict(total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    stages: dict[str, int] = {"Python": resident()}

    import torch

    from cifar_cli.config import load_config
    from cifar_cli.data.loader import TrainLoader
    from cifar_cli.data.types import ImageSet
    from cifar_cli.training.evaluation import predict_logits
    from cifar_cli.training.loop import train_epochs
    from cifar_cli.training.runtime import Runtime
    from cifar_cli.training.state import new_state

    stages["torch and the program"] = resident()
    config = load_config("baseline", overrides=["device=cpu"], env={})
    runtime = Runtime.start(config)
    train, test = (
        ImageSet(
            torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8),
            torch.arange(count) % 10,
            torch.arange(count),
        )
        for count in (50_000, 10_000)
    )
    stages["60,000 images"] = resident()
    loader = TrainLoader(train, config, runtime.device)
    stages["Albumentations"] = resident()
    state = new_state(config, 10, runtime)
    done: list[int] = []
    records = train_epochs(
        state,
        loader,
        test,
        config,
        runtime,
        pause=lambda: len(done) == 3,
        on_step=lambda *_: done.append(1),
    )
    assert next(records, None) is None, "the loop stops before the epoch ends"
    stages["after three steps"] = resident()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    predict_logits(state.model, test.images[:2000], loader.normalise, runtime)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    images, _ = next(iter(loader.epoch(1)))
    kept = kept_for_backward(state.model.train(), images)

    for name, size in stages.items():
        print(f"resident, {name:<24} {size / GIB:6.2f} GiB")
    for name, size in sorted(kept.items(), key=lambda item: -item[1]):
        print(f"kept for the backward pass, {name:<30} {size / GIB:6.2f} GiB")
    print(f"kept for the backward pass, in all {sum(kept.values()) / GIB:31.2f} GiB")
    print(f"peak of training {peak / GIB:6.2f} GiB, with validation {after / GIB:.2f} GiB")
    if arguments.out:
        figures = {"resident": stages, "kept": kept, "peak": peak, "peak_with_validation": after}
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
