"""How well a training ends with what the LR range test suggests, against a grid of seven rates.

    python benchmarks/lr_range.py NAME [--recipe demo] [--data FOLDER] [--set KEY=VALUE]...
        [--steps 50 100 200 400] [--no-grid] [--out FILE.json]

Trains once with each rate of the grid, runs the test with each number of steps, and trains with the
lowest and the highest suggestion. What FILE.json holds already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from cifar_cli import load_config, train
from cifar_cli.config import Config
from cifar_cli.data.opening import open_images
from cifar_cli.errors import DivergedError
from cifar_cli.training.lr_search import lr_range_test
from cifar_cli.training.runtime import Runtime

GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""For Adam. For Muon these are multiples of a hundredth of the recipe's own rates."""


def with_rate(config: Config, rate: float) -> Config:
    """The same with that peak rate; with Muon, its other rates in their proportion to it."""
    update = {"max_lr": rate}
    if config.optim.name == "muon":
        factor = rate / float(config.optim.max_lr)
        for name in ("bias_lr", "head_lr"):
            update[name] = factor * getattr(config.optim, name)
    return config.model_copy(update={"optim": config.optim.model_copy(update=update)})


def trained(config: Config, rate: float) -> float:
    """Validation accuracy after a training with that peak rate; 0 if it diverged."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return train(with_rate(config, rate), Path(folder) / "run").val_accuracy
        except DivergedError:
            return 0.0


def suggested(config: Config, steps: int) -> float:
    """The suggestion of an LR range test with that number of steps."""
    runtime = Runtime.start(config)
    opened = open_images(config)
    return lr_range_test(opened.config, opened.splits, runtime, num_iter=steps).suggestion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--data")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 100, 200, 400])
    parser.add_argument("--no-grid", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    config = load_config(arguments.recipe, data=arguments.data, overrides=arguments.set)
    kept = json.loads(arguments.out.read_text()) if arguments.out and arguments.out.exists() else {}

    def measured(key: str, measure: object) -> float:
        if key not in kept:
            kept[key] = measure()  # type: ignore[operator]
            print(arguments.name, key, f"{kept[key]:.4g}", flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(kept, indent=1))
        return float(kept[key])

    scale = 1.0 if config.optim.name == "adam" else 100 * float(config.optim.max_lr)
    rates = [] if arguments.no_grid else [scale * rate for rate in GRID]
    found = [measured(f"{n} steps", lambda n=n: suggested(config, n)) for n in arguments.steps]
    grid = [measured(f"rate {rate:.3g}", lambda r=rate: trained(config, r)) for rate in rates]
    ends = [
        measured(f"rate {rate:.3g}", lambda r=rate: trained(config, float(f"{r:.3g}")))
        for rate in sorted({min(found), max(found)})
    ]
    print("|", arguments.name, *(f"| {100 * a:.1f}" for a in grid), "|")
    print("|", arguments.name, *(f"| {rate:.1e}" for rate in found), "|")
    print("lowest and highest suggestion:", *(f"{100 * a:.1f}%" for a in ends))


if __name__ == "__main__":
    main()
