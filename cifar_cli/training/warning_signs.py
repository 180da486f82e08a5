"""Signs that a training goes wrong, or that its figures mean less than they seem to."""

from __future__ import annotations

import hashlib
import math

import torch

from cifar_cli.data.splits import Splits
from cifar_cli.data.types import ImageSet
from cifar_cli.text import printable
from cifar_cli.training.observer import Sign
from cifar_cli.training.state import TrainState
from cifar_cli.training.step import IMBALANCE

FEW_STEPS = 20
"""Per epoch; fewer leave batch norm and the learning rate too few updates."""
ENOUGH_STEPS = 300
"""In all; so many make up for few steps per epoch."""
SMALLEST_BATCH = 8
HIGH_LOSS = 3
"""Times ln(classes), the loss of a network that knows nothing."""
PATIENCE = 3
"""Epochs in a row before the last one; a high learning rate spoils a few."""
COPIES = 0.005
"""Of the validation images; fewer change the accuracy by less than its interval."""
LISTED = 5
Z = 3
"""Standard errors by which an accuracy must be above chance."""


def signs_before(
    splits: Splits, batch_size: int, weighted: bool = False, epochs: int = 1
) -> list[Sign]:
    """Signs that are there before the first step.

    Args:
        splits: What is trained and validated on.
        batch_size: Images per step.
        weighted: Whether training makes up for classes of different sizes.
        epochs: Number of epochs.
    """
    signs = []
    images, counts = len(splits.train), _counts(splits.train, splits)
    steps = -(-images // batch_size)
    if steps < FEW_STEPS and steps * epochs < ENOUGH_STEPS and batch_size > SMALLEST_BATCH:
        better = max(SMALLEST_BATCH, 2 ** int(math.log2(max(1, images / FEW_STEPS))))
        if better < batch_size:
            number = f"{steps} step{'s' * (steps != 1)} per epoch"
            signs.append(
                Sign("few_steps", f"Only {number}.", f"Try --batch-size {better} or more epochs.")
            )
    present = [(count, name) for count, name in zip(counts, splits.class_names, strict=True)]
    (fewest, rare), (most, common) = min(present), max(present)
    if most > IMBALANCE * fewest and not weighted:
        signs.append(
            Sign(
                "imbalance",
                f"The classes differ by more than {IMBALANCE} times: {most:,} training images of "
                f"{printable(common)}, {fewest:,} of {printable(rare)}.",
                "Add images of the rare ones, or try --set train.class_weights=true.",
            )
        )
    copies = copies_in(splits.train, splits.val)
    if copies > COPIES * len(splits.val):
        signs.append(
            Sign(
                "copies",
                f"{copies:,} of {len(splits.val):,} validation images are training images too.",
                "The accuracy will be too high. Remove the copies from one of the splits.",
            )
        )
    return signs


def signs_after(state: TrainState, splits: Splits, epochs: int) -> list[Sign]:
    """Signs that the epochs so far show; `epochs` is that of the whole run."""
    history, is_over = state.history, len(state.history) >= epochs
    # Before the end a few bad epochs are normal, while the learning rate is at its highest.
    recent = history[-1:] if is_over else history[-PATIENCE:]
    if not recent or (not is_over and len(recent) < PATIENCE):
        return []
    class_names, counts = splits.class_names, torch.tensor(_counts(splits.val, splits))
    signs = []
    images, classes = len(splits.val), len(class_names)
    high = HIGH_LOSS * math.log(classes)
    if all(max(record.train_loss, record.val_loss) > high for record in recent):
        last = recent[-1]
        signs.append(
            Sign(
                "high_loss",
                f"The loss is {last.train_loss:.3g} in training and {last.val_loss:.3g} in "
                f"validation; guessing would give {math.log(classes):.3g}.",
                "Lower --max-lr (cifar-resnet find-lr suggests one).",
            )
        )
    chance = _above_chance(int(counts.max()) / images, images)
    if all(record.val_accuracy <= chance for record in recent):
        common = printable(class_names[int(counts.argmax())])
        share = int(counts.max()) / images
        # With few images, a higher accuracy may be chance.
        clearly = "clearly " if recent[-1].val_accuracy > share else ""
        signs.append(
            Sign(
                "chance",
                f"Validation accuracy is {recent[-1].val_accuracy:.1%} of {images:,} images, not "
                f"{clearly}better than answering {common} every time ({share:.1%}); training "
                f"accuracy is {recent[-1].train_accuracy:.1%}.",
                "Lower --max-lr, train for more epochs, or look at the labels "
                "(cifar-resnet preview-augs).",
            )
        )
    if is_over and state.predicted is not None:
        never = ((state.predicted == 0) & (counts > 0)).nonzero()[:, 0].tolist()
        if never:
            names = ", ".join(printable(class_names[i]) for i in never[:LISTED])
            more = f" and {len(never) - LISTED} more" if len(never) > LISTED else ""
            is_weighted = state.class_weights is not None
            weigh = "" if is_weighted else ", or try --set train.class_weights=true"
            signs.append(
                Sign(
                    "never_predicted",
                    f"Never predicted in validation: {names}{more}.",
                    f"Add images of it, or train for more epochs{weigh}.",
                )
            )
    return signs


def copies_in(train: ImageSet, val: ImageSet) -> int:
    """How many images of `val` are in `train`, pixel by pixel."""
    known = {_digest(image) for image in train.images.numpy()}
    return sum(_digest(image) in known for image in val.images.numpy())


def _digest(image: object) -> bytes:
    return hashlib.blake2b(image, digest_size=16).digest()  # type: ignore[arg-type]


def _counts(images: ImageSet, splits: Splits) -> list[int]:
    classes = len(splits.class_names)
    counts: list[int] = torch.bincount(images.labels, minlength=classes).tolist()
    return counts


def _above_chance(share: float, images: int) -> float:
    """The accuracy that guessing a class of that share hardly ever exceeds."""
    return share + Z * math.sqrt(share * (1 - share) / images)
