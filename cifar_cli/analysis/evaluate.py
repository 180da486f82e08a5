"""Evaluate a run or a checkpoint file: the public `evaluate` and `load_model`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from cifar_cli.analysis.metrics import (
    ClassFigures,
    class_figures,
    confusion_matrix,
    wilson_interval,
)
from cifar_cli.analysis.tta import KINDS, Tta, tta_forward
from cifar_cli.config import Config
from cifar_cli.config.checking import build_config
from cifar_cli.data.sources.load import load_dataset
from cifar_cli.data.splits import choose_splits
from cifar_cli.data.types import Dataset, ImageSet, Progress
from cifar_cli.errors import CheckpointError, ConfigError, DataError, DivergedError, nearest_hint
from cifar_cli.models import build_model
from cifar_cli.rundir import RunDir, find_run
from cifar_cli.training.checkpoint import Checkpoint, load_checkpoint, load_weights
from cifar_cli.training.evaluation import predict_logits, score
from cifar_cli.training.runtime import fewer_images, memory_errors, place_model, prepare_runtime

Split = Literal["val", "test", "train"]
SPLITS: tuple[str, ...] = get_args(Split)
FEWER_IMAGES = "while looking at images", "Try --limit-val 1000, or --device cpu."


@dataclass(frozen=True)
class Predictions:
    """Logits of a split, and what they belong to."""

    checkpoint: Checkpoint
    run: RunDir | None
    """The run that the checkpoint belongs to; None for a file outside of one."""
    images: ImageSet
    logits: Tensor
    """float32 (N, C)."""
    seconds: float
    """Wall-clock time of the network's work, from images in memory to logits."""
    notes: tuple[str, ...]
    """What the user should know of how the images were read."""


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


def load_model(
    run: str | os.PathLike[str] | None = None, checkpoint: str | os.PathLike[str] = "last"
) -> nn.Module:
    """The trained network of a run, on the CPU, in evaluation mode.

    Args:
        run: Run directory or name under `runs/`; None: the newest.
        checkpoint: `last`, `best`, or the path of a file, which needs no run.

    Raises:
        CheckpointError: Not found, damaged, or of another program.
    """
    _, found = find_checkpoint(run, checkpoint)
    return _model(found).eval()


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
) -> Evaluation:
    """Accuracy, loss and confusion of a trained network; see `predict` for the arguments."""
    return summarise_predictions(
        predict(
            run,
            checkpoint=checkpoint,
            split=split,
            tta=tta,
            data=data,
            data_dir=data_dir,
            device=device,
            limit=limit,
            skip_bad_images=skip_bad_images,
        )
    )


def predict(
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
) -> Predictions:
    """Logits of a trained network over a split.

    Args:
        run: Run directory or name under `runs/`; None: the newest.
        checkpoint: `last`, `best`, or the path of a file, which needs no run.
        split: `val`, the images that the run was validated on; `test`, the whole test split;
            `train`, the images that it was trained on, not augmented.
        tta: Views of each image to take the mean over.
        data, device: In the place of the run's own.
        data_dir: Folder of downloads and caches; None: CIFAR_RESNET_HOME or the platform's. The
            run's own is only read, and only if CIFAR-10 is in it.
        limit: Use this many images, a seeded, class-balanced draw.
        skip_bad_images: Go on without files that cannot be read as images, as the run may do.
        progress: Told of progress.

    Raises:
        CifarError: One of its kinds; see `cifar_cli.errors`.
    """
    for name, value, known in (("--split", split, SPLITS), ("--tta", tta, KINDS)):
        if value not in known:
            hint = nearest_hint(value, known)
            raise ConfigError(f"{name} {value!r}{hint}: choose one of {', '.join(known)}.")
    found_run, found = find_checkpoint(run, checkpoint)
    config = _with_changes(found.config, split, data, data_dir, device, limit, skip_bad_images)
    place = prepare_runtime(config)

    def on_batch(done: int, total: int) -> None:
        if progress:
            progress("Evaluating", done, total)

    with memory_errors(*FEWER_IMAGES):
        with memory_errors(*fewer_images(config)):
            dataset = _dataset(config, found, progress)
        splits = choose_splits(dataset, config.data, config.seed)
        images = splits.train if split == "train" else splits.val
        model = place_model(_model(found), config, place)
        started = time.perf_counter()
        logits = predict_logits(model, images, config, place, tta_forward(model, tta), on_batch)
        seconds = time.perf_counter() - started
    if not logits.isfinite().all():
        raise DivergedError(
            f"{found.path} gives outputs that are not numbers: its training diverged.",
            "Train again with a lower --max-lr.",
        )
    notes = dataset.notes
    if split == "val" and data is None and limit is None and splits.fingerprint != found.data:
        notes += ("These are not the images that the run was trained and validated on.",)
    return Predictions(found, found_run, images, logits, seconds, notes)


def summarise_predictions(predictions: Predictions) -> Evaluation:
    """All figures of a set of predictions."""
    logits, labels = predictions.logits, predictions.images.labels
    names = predictions.checkpoint.class_names
    scores = score(logits, labels)
    correct = int((logits.argmax(1) == labels).sum())
    confusion = confusion_matrix(labels, logits.argmax(1), len(names))
    return Evaluation(
        accuracy=scores.accuracy,
        interval=wilson_interval(correct, len(labels)),
        loss=scores.loss,
        correct=correct,
        num_images=len(labels),
        per_class=class_figures(confusion, names),
        confusion=confusion,
        class_names=names,
    )


def find_checkpoint(
    run: str | os.PathLike[str] | None, checkpoint: str | os.PathLike[str]
) -> tuple[RunDir | None, Checkpoint]:
    """The checkpoint that is meant, and the run that it belongs to, if any.

    Raises:
        CheckpointError: There is no such run or file, or it is damaged.
    """
    if checkpoint in ("last", "best"):
        found = find_run(run)
        return found, load_checkpoint(found.last if checkpoint == "last" else found.best)
    path = Path(checkpoint)
    if not path.is_file():
        raise CheckpointError(
            f"--checkpoint {os.fspath(checkpoint)!r}: not last or best, and there is no such file."
        )
    return (find_run(run) if run is not None else None), load_checkpoint(path)


def _model(checkpoint: Checkpoint) -> nn.Module:
    config = checkpoint.config
    state = torch.get_rng_state()
    classes, size = len(checkpoint.class_names), config.data.image_size
    model = build_model(config.model, classes, size, eval_size=checkpoint.eval_size)
    torch.set_rng_state(state)
    load_weights(model, checkpoint)
    return model


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
