"""Evaluate a run or a checkpoint file: the public `evaluate`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from cifar_cli.analysis.metrics import (
    ClassFigures,
    ConfusedPair,
    class_figures,
    confused_pairs,
    confusion_matrix,
    mean_of,
    top_k_accuracy,
    wilson_interval,
)
from cifar_cli.analysis.trained import Trained, find_checkpoint, load_trained
from cifar_cli.analysis.tta import KINDS, Tta
from cifar_cli.config import Config
from cifar_cli.config.checking import build_config
from cifar_cli.data.sources.load import load_dataset
from cifar_cli.data.splits import Splits, choose_splits
from cifar_cli.data.types import Dataset, ImageSet, Progress
from cifar_cli.errors import ConfigError, DataError, nearest_hint
from cifar_cli.rundir import RunDir
from cifar_cli.training.checkpoint import Checkpoint
from cifar_cli.training.evaluation import score
from cifar_cli.training.memory import fewer_images, memory_errors
from cifar_cli.training.runtime import Runtime

Split = Literal["val", "test", "train"]
SPLITS: tuple[str, ...] = get_args(Split)
OTHER_IMAGES = "These are not the images that the run was trained and validated on."
FEWER_IMAGES = "while evaluating", "Try --limit-val 1000, or --device cpu."


@dataclass(frozen=True)
class Predictions:
    """Logits of a split, and what they belong to."""

    trained: Trained
    run: RunDir | None
    """The run that the checkpoint belongs to; None for a file outside of one."""
    images: ImageSet
    logits: Tensor
    """float32 (N, C)."""
    seconds: float
    """Wall-clock time of the network's work, from images in memory to logits."""
    notes: tuple[str, ...]
    """Remarks for the user on how the images were read."""
    data: str = ""
    """Name of the data."""
    files: tuple[str, ...] = ()
    """File of each image, relative to the data; empty: the images have none."""


@dataclass(frozen=True)
class Evaluation:
    """Figures of one checkpoint on one split. Accuracies are fractions, the loss a mean."""

    accuracy: float
    interval: tuple[float, float]
    """95% interval of the accuracy (Wilson)."""
    loss: float
    correct: int
    num_images: int
    per_class: tuple[ClassFigures, ...]
    confusion: list[list[int]]
    """Row: true class, column: predicted class."""
    class_names: tuple[str, ...]
    predictions: Predictions = field(repr=False, compare=False)
    balanced_accuracy: float | None
    """Mean of the classes' accuracies (recalls)."""
    macro_f1: float | None
    """Mean of the classes' F1 scores."""
    top5_accuracy: float | None
    """Fraction of images whose class is among the five likeliest; None up to five classes."""
    confused: tuple[ConfusedPair, ...]
    """The pairs of classes that are confused most often."""


def evaluate(
    run: str | os.PathLike[str] | None = None,
    *,
    checkpoint: str | os.PathLike[str] = "last",
    split: Split = "val",
    tta: Tta = "none",
    data: str | None = None,
    data_dir: str | None = None,
    device: str | None = None,
    limit: int | None = None,
    skip_bad_images: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Accuracy, loss and confusion of a trained network on a split, and its predictions.

    Args:
        run: Run directory or name under `runs/`; None: the newest.
        checkpoint: `last`, `best`, or the path of a file, which needs no run.
        split: `val`, the images that the run was validated on; `test`, the whole test split;
            `train`, the images that it was trained on, not augmented.
        tta: Views of each image to take the mean over.
        data, device: Instead of the run's own.
        data_dir: Folder of downloads and caches; None: CIFAR_RESNET_HOME or the platform's. The
            run's own is only read, and only if CIFAR-10 is in it.
        limit: Use this many images, a seeded, class-balanced draw.
        skip_bad_images: Skip files that cannot be read as images, as the run may do.
        progress: Receives progress.

    Raises:
        CifarError: One of its kinds; see `cifar_cli.errors`.
    """
    check_choices(split, tta)
    owner, found = find_checkpoint(run, checkpoint)
    config = changed_settings(found.config, split, data, data_dir, device, limit, skip_bad_images)
    runtime = Runtime.start(config)

    def on_batch(done: int, total: int) -> None:
        if progress:
            progress("Evaluating", done, total)

    with memory_errors(*FEWER_IMAGES):
        opened = open_split(config, found, split, progress)
        trained = load_trained(found, runtime)
        started = time.perf_counter()
        logits = trained.logits(opened.images.images, tta, on_batch)
        seconds = time.perf_counter() - started
    notes = opened.dataset.notes
    if split == "val" and data is None and limit is None and not opened.is_own(found):
        notes += (OTHER_IMAGES,)
    return summarise_predictions(
        Predictions(
            trained, owner, opened.images, logits, seconds, notes, opened.dataset.name, opened.files
        )
    )


def check_choices(split: str, tta: str = "none") -> None:
    """Raise a `ConfigError` if there is no such split or test-time augmentation."""
    for name, value, known in (("--split", split, SPLITS), ("--tta", tta, KINDS)):
        if value not in known:
            hint = nearest_hint(value, known)
            raise ConfigError(f"{name} {value!r}{hint}: choose one of {', '.join(known)}.")


class OpenedSplit(NamedTuple):
    """Images of one split, labelled by the numbers of a checkpoint's classes."""

    dataset: Dataset
    """All that was loaded, its labels as in the source."""
    splits: Splits
    images: ImageSet
    files: tuple[str, ...]
    """As of `Predictions`."""

    def is_own(self, checkpoint: Checkpoint) -> bool:
        """Whether these are the images that the checkpoint was trained and validated on."""
        return self.splits.fingerprint == checkpoint.data


def open_split(
    config: Config,
    checkpoint: Checkpoint,
    split: Split,
    progress: Progress | None = None,
    loaded: Dataset | None = None,
) -> OpenedSplit:
    """Load the images of a split for a network.

    Args:
        config: As `changed_settings` returns it.
        checkpoint: The network's. Its classes may be in another order than those of the images.
        split: As of `evaluate`.
        progress: Receives progress.
        loaded: The images of `config.data`, if they are loaded already.

    Raises:
        DataError: As of `load_dataset`; or the classes are others, or there is no such split.
        OutOfMemoryError: They do not fit into memory.
    """
    with memory_errors(*fewer_images(config)):
        dataset = loaded or load_dataset(config.data, progress, checkpoint.config.data.dir)
    names = checkpoint.class_names
    if set(dataset.class_names) != set(names):
        raise DataError(
            f"{checkpoint.path} was trained on the classes {', '.join(names)}; "
            f"{config.data.source} has {', '.join(dataset.class_names)}."
        )

    def ours(images: ImageSet) -> ImageSet:
        return replace(images, labels=renumbered(images.labels, dataset.class_names, names))

    ordered = replace(
        dataset,
        class_names=names,
        train=ours(dataset.train),
        val=dataset.val and ours(dataset.val),
        test=dataset.test and ours(dataset.test),
    )
    splits = choose_splits(ordered, config.data, config.seed)
    images = {"train": splits.train, "val": splits.val, "test": splits.test}[split]
    if images is None:
        raise DataError(
            f"--split test: {config.data.source} has no test split, only "
            f"{' and '.join(dataset.splits)}.",
            "Choose --split val or train, or add test/<class>/ folders.",
        )
    return OpenedSplit(dataset, splits, images, splits.file_names(split))


def renumbered(labels: Tensor, names: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Labels, int64 (N,), of classes in the order `names` as numbers in the order `wanted`."""
    numbers = {name: number for number, name in enumerate(wanted)}
    return torch.tensor([numbers[name] for name in names])[labels]


def summarise_predictions(predictions: Predictions) -> Evaluation:
    """All figures of a set of predictions."""
    logits, labels = predictions.logits, predictions.images.labels
    names = predictions.trained.class_names
    scores = score(logits, labels)
    correct = int((logits.argmax(1) == labels).sum())
    confusion = confusion_matrix(labels, logits.argmax(1), len(names))
    per_class = class_figures(confusion, names)
    return Evaluation(
        accuracy=scores.accuracy,
        interval=wilson_interval(correct, len(labels)),
        loss=scores.loss,
        correct=correct,
        num_images=len(labels),
        per_class=per_class,
        confusion=confusion,
        class_names=names,
        predictions=predictions,
        balanced_accuracy=mean_of(one.accuracy for one in per_class),
        macro_f1=mean_of(one.f1 for one in per_class),
        top5_accuracy=top_k_accuracy(logits, labels, 5) if len(names) > 5 else None,
        confused=confused_pairs(confusion, names),
    )


def changed_settings(
    config: Config,
    split: Split,
    data: str | None,
    data_dir: str | None,
    device: str | None,
    limit: int | None,
    skip_bad_images: bool,
) -> Config:
    """A checkpoint's settings, for evaluating it on a split; arguments as of `evaluate`."""
    tree = config.model_dump()
    section = tree["data"]
    section["source"] = data or section["source"]
    section["dir"] = data_dir  # never the file's own: caches and downloads are written there
    section["skip_bad_images"] = skip_bad_images or section["skip_bad_images"]
    limited = "limit_train" if split == "train" else "limit_val"
    if limit is not None:
        # A draw of fewer images is a part of the draw of more: none that was not trained on.
        most = section[limited] if split == "train" else None
        section[limited] = min(limit, most or limit)
    if split == "test":
        section["val_fraction"] = 0.0
        section["limit_val"] = limit
    return build_config({**tree, "device": device or "auto"})
