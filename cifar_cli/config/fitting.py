"""Settings that follow from the images: for recipes with `fit_to_images: true`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

SMALLEST_SIDE, LARGEST_SIDE = 32, 128
USUAL_SIDE = 64
WORK = 160_000
"""Images of 32 x 32 pixels that are trained on in all: about seven minutes on two cores."""
EPOCHS_WANTED = 40
"""Larger images are taken only if so many epochs are within the work."""
FEWEST_EPOCHS, MOST_EPOCHS = 20, 100
STEPS_PER_EPOCH = 16
SMALLEST_BATCH, LARGEST_BATCH = 16, 256


class Facts(NamedTuple):
    """What is known of a user's pictures before any is decoded."""

    images: int
    """Number of training images, without those that are held out."""
    validation: int
    """Number of images that are validated on."""
    classes: int
    side: int | None
    """Median of their shorter sides in pixels; None if none could be read."""


def fitted_settings(facts: Facts, image_size: int | None = None) -> dict[str, dict[str, Any]]:
    """Image size, batch size and number of epochs for so many pictures of that size.

    Few pictures are seen more often, and at a higher resolution, so that every training takes about
    the same time, up to some 8,000 pictures. The batch size, a power of two, leaves enough steps.

    Args:
        facts: Of the pictures.
        image_size: What the user chose, in pixels; None: nothing.
    """
    # A forward pass alone takes a third of the time of a step.
    passes = facts.images + facts.validation / 3
    affordable = SMALLEST_SIDE * math.sqrt(WORK / EPOCHS_WANTED / passes)
    side = int(min(facts.side or USUAL_SIDE, LARGEST_SIDE, affordable)) // 8 * 8
    side = image_size or max(SMALLEST_SIDE, side)
    work = passes * (side / SMALLEST_SIDE) ** 2
    batch = 2 ** round(math.log2(max(1, facts.images / STEPS_PER_EPOCH)))
    return {
        "data": {"image_size": side},
        "train": {
            "epochs": min(max(round(WORK / work), FEWEST_EPOCHS), MOST_EPOCHS),
            "batch_size": min(max(batch, SMALLEST_BATCH), LARGEST_BATCH),
        },
    }
