"""What a listing tells of its training images before any is decoded."""

from __future__ import annotations

from collections import Counter
from statistics import median

from cifar_cli.config import DataConfig
from cifar_cli.config.fitting import Facts
from cifar_cli.data.sources import cifar10, shapes
from cifar_cli.data.sources.decode import image_sides
from cifar_cli.data.sources.listing import Entry, Listing, class_names
from cifar_cli.data.sources.pixels import NoImageError
from cifar_cli.data.splits import HELD_OUT

MEASURED = 100
"""Images whose size is looked at."""
_KNOWN_CLASSES = (set(cifar10.CLASS_NAMES), set(shapes.CLASS_NAMES))


def listing_facts(listing: Listing, data: DataConfig) -> Facts | None:
    """Number, classes and size of the training images; None if the classes are not the user's own.

    Raises:
        DataError: Splits or classes are empty, or differ.
    """
    names = class_names(listing, listing.entries)
    if set(names) in _KNOWN_CLASSES:
        return None
    own = [entry for entry in listing.entries if entry.split == "train"]
    counts = Counter(entry.split for entry in listing.entries)
    held_out = data.val_fraction or (HELD_OUT if len(listing.folders) == 1 else 0)
    validation = round(len(own) * held_out) or counts["val"] or counts["test"]
    images = min(max(1, len(own) - round(len(own) * held_out)), data.limit_train or len(own))
    sides = [side for entry in _sample(own) if (side := _side(entry))]
    return Facts(
        images,
        min(validation, data.limit_val or validation),
        len(names),
        round(median(sides)) if sides else None,
    )


def _sample(entries: list[Entry]) -> list[Entry]:
    """Some of them, evenly spaced, in the order in which they are read fast."""
    step = max(1, len(entries) // MEASURED)
    return sorted(entries[::step][:MEASURED], key=lambda entry: entry.item.position)


def _side(entry: Entry) -> int | None:
    try:
        return min(image_sides(entry.item.read()))
    except NoImageError:
        return None
