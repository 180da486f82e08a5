"""Evaluate a run or a checkpoint file: the public `evaluate`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Literal, get_args

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
from cifar_cli.data.splits import choose_splits
from cifar_cli.data.types import Dataset, ImageSet, Progress
from cifar_cli.errors import ConfigError, DataError, nearest_hint
from cifar_cli.rundir import RunDir
from cifar_cli.training.checkpoint import Checkpoint
from cifar_cli.training.evaluation import score
from cifar_cli.training.memory import fewer_images, memory_errors
from cifar_cli.training.runtime import Runtime

Split = Literal["val", "test", "train"]
SPLITS: tuple[str, ...] = get_args(Split)
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
    for name, value, known in (("--split", split, SPLITS), ("--tta", tta, KINDS)):
        if value not in known:
            hint = nearest_hint(value, known)
            raise ConfigError(f"{name} {value!r}{hint}: choose one of {', '.join(known)}.")
    owner, found = find_checkpoint(run, checkpoint)
    config = _with_changes(found.config, split, data, data_dir, device, limit, skip_bad_images)
    runtime = Runtime.start(config)

    def on_batch(done: int, total: int) -> None:
        if progress:
            progress("Evaluating", done, total)

    with memory_errors(*FEWER_IMAGES):
        with memory_errors(*fewer_images(config)):
            dataset = _dataset(config, found, progress)
        splits = choose_splits(dataset, config.data, config.seed)
        images = {"train": splits.train, "val": splits.val, "test": splits.test}[split]
        if images is None:
            raise DataError(
                f"--split test: {config.data.source} has no test split, only "
                f"{' and '.join(dataset.splits)}.",
                "Choose --split val or train, or add test/<class>/ folders.",
            )
        trained = load_trained(found, runtime)
        started = time.perf_counter()
        logits = trained.logits(images.images, tta, on_batch)
        seconds = time.perf_counter() - started
    notes = dataset.notes
    if split == "val" and data is None and limit is None and splits.fingerprint != found.data:
        notes += ("These are not the images that the run was trained and validated on.",)
    files = splits.file_names(split)
    return summarise_predictions(
        Predictions(trained, owner, images, logits, seconds, notes, dataset.name, files)
    )


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


def _with_changes(
    config: Config,
    split: Split,
    data: str | None,
    data_dir: str | None,
    device: str | None,
    limit: int | None,
    skip_bad_images: bool,
) -> Config:
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


def _dataset(config: Config, checkpoint: Checkpoint, progress: Progress | None) -> Dataset:
    dataset = load_dataset(config.data, progress, checkpoint.config.data.dir)
    if dataset.class_names != checkpoint.class_names:
        raise DataError(
            f"{checkpoint.path} was trained on the classes {', '.join(checkpoint.class_names)}; "
            f"{config.data.source} has {', '.join(dataset.class_names)}."
        )
    return dataset
