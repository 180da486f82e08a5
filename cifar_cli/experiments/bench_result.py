"""What a bench has left in its folder, for comparing its recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cifar_cli.errors import CheckpointError, ConfigError, nearest_hint
from cifar_cli.rundir import RunDir

# Settings by which the validation images differ.
IMAGES = ("source", "val_fraction", "limit_val")


def read_accuracies(folder: Path, recipes: list[str]) -> dict[str, list[float]]:
    """Accuracy of every run of a bench, by recipe, as its `bench.json` has them.

    Args:
        folder: The bench's.
        recipes: Which, in this order; empty: all.

    Raises:
        CheckpointError: There is no result of a bench, or it is damaged.
        ConfigError: It has no such recipe, fewer than two, one of a single run, or such as were
            validated on other images.
    """
    document = RunDir(folder).read_json("bench.json")
    if not document:
        raise CheckpointError(
            f"There is no bench.json in {folder}: no bench has ended there.",
            f"Run one: cifar-resnet bench fast90 fast92 --out {folder}",
        )
    found: dict[str, list[float]] = {}
    seeds: dict[str, int] = {}
    runs = document.get("runs")
    for run in runs if isinstance(runs, list) else [None]:
        recipe, seed, accuracy = _entry(run, folder)
        found.setdefault(recipe, []).append(accuracy)
        seeds.setdefault(recipe, seed)
    for name in recipes:
        if name not in found:
            hint = nearest_hint(name, found)
            raise ConfigError(f"{folder} has no recipe {name!r}{hint}: it has {', '.join(found)}.")
    chosen = {name: found[name] for name in recipes or found}
    if len(chosen) < 2:
        raise ConfigError(f"{folder}: two recipes are needed, and this is {', '.join(chosen)}.")
    for name, accuracies in chosen.items():
        if len(accuracies) < 2:
            raise ConfigError(
                f"{name} has a single run in {folder}. One seed does not show by how much seeds "
                "differ.",
                "Run the same bench with --runs 3 or more.",
            )
    _check_images(folder, {name: seeds[name] for name in chosen})
    return chosen


def _entry(run: Any, folder: Path) -> tuple[str, int, float]:
    if isinstance(run, dict):
        recipe, seed, accuracy = (run.get(key) for key in ("recipe", "seed", "accuracy"))
        is_known = isinstance(recipe, str) and type(seed) is int
        if is_known and isinstance(accuracy, int | float) and 0 <= accuracy <= 1:
            return str(recipe), int(seed or 0), float(accuracy)
    raise CheckpointError(
        f"{folder / 'bench.json'} is damaged: an entry of runs is wrong.",
        "Run bench again: it keeps complete runs, and writes the file again.",
    )


def _check_images(folder: Path, seeds: dict[str, int]) -> None:
    """Find out whether the recipes were validated on the same images."""
    first = ""
    wanted: dict[str, Any] = {}
    for name, seed in seeds.items():
        config = RunDir(folder / f"{Path(name).stem}-{seed}").read_config()
        own = {key: getattr(config.data, key) for key in IMAGES}
        first, wanted = first or name, wanted or own
        differ = [f"data.{key} {wanted[key]} and {own[key]}" for key in IMAGES
                  if wanted[key] != own[key]]  # fmt: skip
        if differ:
            raise ConfigError(
                f"{first} and {name} were validated on different images: {'; '.join(differ)}.",
                "Run bench with --data, which gives all recipes the same images.",
            )
