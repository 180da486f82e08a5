"""From a configuration to its images: loaded, split, and with their own mean and deviation."""

from __future__ import annotations

from typing import NamedTuple

import torch

from cifar_cli.config import Config
from cifar_cli.data.sources.load import load_dataset
from cifar_cli.data.splits import Splits, choose_splits
from cifar_cli.data.types import Dataset, ImageSet, Progress

SMALLEST_DEVIATION = 0.001
_BLOCK = 1000  # images that are counted at once


class Opened(NamedTuple):
    """The images of a configuration."""

    config: Config
    """With numbers for `data.mean` and `data.std`, if they were `auto`."""
    dataset: Dataset
    splits: Splits


def open_images(
    config: Config, progress: Progress | None = None, suggested: str | None = None
) -> Opened:
    """Load and split the images; arguments and errors as of `load_dataset` and `choose_splits`."""
    dataset = load_dataset(config.data, progress, suggested)
    splits = choose_splits(dataset, config.data, config.seed)
    measured = with_statistics(config, splits.train)
    # Transparent pixels have the mean colour: that of the images, once it is known, as whoever
    # reads the images later with the numbers gets it.
    if dataset.composited and measured.data.mean_colour != config.data.mean_colour:
        dataset = load_dataset(measured.data, progress, suggested)
        splits = choose_splits(dataset, measured.data, measured.seed)
    return Opened(measured, dataset, splits)


def with_statistics(config: Config, images: ImageSet) -> Config:
    """The configuration with the mean and deviation of `images` for those that are `auto`."""
    if "auto" not in (config.data.mean, config.data.std):
        return config
    mean, std = channel_statistics(images)
    own = {"mean": mean, "std": std}
    update = {key: value for key, value in own.items() if getattr(config.data, key) == "auto"}
    return config.model_copy(update={"data": config.data.model_copy(update=update)})


def channel_statistics(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of pixels scaled to 0..1, to four digits.

    They are exact sums over counts of the 256 values, and so the same on every machine.
    """
    counts = torch.zeros(3, 256, dtype=torch.int64)
    for start in range(0, len(images), _BLOCK):
        for channel in range(3):
            block = images.images[start : start + _BLOCK, :, :, channel].flatten()
            counts[channel] += torch.bincount(block, minlength=256)
    values, total = torch.arange(256, dtype=torch.float64) / 255, counts.sum(1)
    mean = (counts * values).sum(1) / total
    std = ((counts * values**2).sum(1) / total - mean**2).clamp(min=0).sqrt()
    return (
        tuple(round(float(m), 4) for m in mean),
        tuple(max(SMALLEST_DEVIATION, round(float(s), 4)) for s in std),
    )
