"""Networks against each other on the same images: is B better than A?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cifar_cli.analysis.evaluate import (
    FEWER_IMAGES,
    OTHER_IMAGES,
    Split,
    changed_settings,
    check_choices,
    open_split,
    renumbered,
)
from cifar_cli.analysis.matching import match_images, only_in
from cifar_cli.analysis.paired import ComparedRun, Comparison, compared_run, pair_of
from cifar_cli.analysis.significance import corrected
from cifar_cli.analysis.trained import find_checkpoint, load_trained
from cifar_cli.config import Config
from cifar_cli.config.loading import flat_settings
from cifar_cli.data.splits import limited
from cifar_cli.data.types import Dataset, ImageSet, Progress
from cifar_cli.errors import CheckpointError, ConfigError, DataError
from cifar_cli.rundir import RunDir, find_run
from cifar_cli.training.checkpoint import Checkpoint
from cifar_cli.training.memory import memory_errors
from cifar_cli.training.runtime import Runtime

# What one image is loaded as depends on all settings of `data` but these.
_NOT_OF_IMAGES = {"limit_train", "limit_val", "val_fraction", "workers"}


class _Entry(NamedTuple):
    """A network that is to be compared, and its images."""

    name: str
    source: _Source
    run: RunDir | None
    path: Path
    config: Config
    """Of the training."""
    settings: Config
    """For this evaluation."""
    class_names: tuple[str, ...]
    digest: str
    """Equal for equal networks."""
    images: ImageSet
    files: tuple[str, ...]
    dataset: str


class _Source(NamedTuple):
    """Where a network is, as `find_checkpoint` takes it."""

    run: str | None
    checkpoint: str

    @property
    def label(self) -> str:
        if self.run is None:
            return Path(self.checkpoint).name
        return find_run(self.run).name + ("" if self.checkpoint == "last" else "@best")


def compare(
    runs: Sequence[str],
    *,
    checkpoint: str = "last",
    split: Split = "val",
    data: str | None = None,
    data_dir: str | None = None,
    device: str | None = None,
    limit: int | None = None,
    skip_bad_images: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Evaluate trained networks on the same images, and compare each with the first one.

    Args:
        runs: Two or more: run directories, names under `runs/`, `NAME@best` or `NAME@last`, or
            files of checkpoints.
        checkpoint: `last` or `best`, of the runs that do not say it.
        split, data, data_dir, device, skip_bad_images: As of `evaluate`.
        limit: Use this many images, a draw by the first run's seed.
        progress: Receives progress.

    Raises:
        CheckpointError: There is no such run or checkpoint, or it is damaged.
        DataError: The classes differ, or the images do.
        CifarError: As of `evaluate`.
    """
    check_choices(split)
    if checkpoint not in ("last", "best"):
        raise ConfigError(
            f"--checkpoint {checkpoint!r}: choose last or best.",
            "Give the file of a checkpoint in the place of a run.",
        )
    if len(runs) < 2:
        raise ConfigError("Two runs are needed.", "For example: cifar-resnet compare first second")
    sources = [_source(word, checkpoint) for word in runs]
    names = _labels([source.label for source in sources], runs)
    entries: list[_Entry] = []
    notes: list[str] = []
    loaded: tuple[dict[str, Any], Dataset] | None = None
    with memory_errors(*FEWER_IMAGES):
        for name, source in zip(names, sources, strict=True):
            owner, found = find_checkpoint(source.run, source.checkpoint)
            if entries:
                _check_classes(entries[0], name, found.class_names)
            changes = split, data, data_dir, device, None, skip_bad_images
            settings = changed_settings(found.config, *changes)
            key = settings.data.model_dump(exclude=_NOT_OF_IMAGES)
            if loaded is not None and loaded[0] != key:
                loaded = None  # before others take its place in memory
            opened = open_split(settings, found, split, progress, loaded[1] if loaded else None)
            loaded = key, opened.dataset
            notes += opened.dataset.notes
            if split == "val" and data is None and not opened.is_own(found):
                notes.append(f"{name}: {OTHER_IMAGES}")
            where = name, source, owner, found.path, found.config, settings, found.class_names
            entries.append(
                _Entry(*where, _digest(found), opened.images, opened.files, opened.dataset.name)
            )
            del found, opened
        del loaded
        first = entries[0]
        rows = [_matched(first, entry, split) for entry in entries]
        drawn = torch.arange(len(first.images))
        if limit is not None:
            numbered = replace(first.images, indices=drawn)
            seed = first.config.seed + (1 if split == "train" else 2)  # as evaluate draws them
            drawn = limited(numbered, limit, seed).indices
        images = first.images.subset(drawn)
        compared: list[ComparedRun] = []
        for number, entry in enumerate(entries):
            twin = next((i for i in range(number) if entries[i].digest == entry.digest), None)
            if twin is None:
                compared.append(_run(entry, first, rows[number][drawn], images, progress))
            else:
                compared.append(
                    replace(
                        compared[twin],
                        name=entry.name,
                        run=entry.run,
                        checkpoint=entry.path,
                        config=entry.config,
                    )
                )
    files = tuple(first.files[row] for row in drawn.tolist()) if first.files else ()
    pairs = [
        pair_of(compared[0], after, images, first.class_names, entry.digest == first.digest)
        for after, entry in zip(compared[1:], entries[1:], strict=True)
    ]
    return Comparison(
        runs=tuple(compared),
        pairs=tuple(
            replace(pair, difference=own)
            for pair, own in zip(pairs, corrected([p.difference for p in pairs]), strict=True)
        ),
        images=images,
        files=files,
        class_names=first.class_names,
        data=first.dataset,
        settings=different_settings([entry.config for entry in entries]),
        notes=tuple(dict.fromkeys(notes)),
    )


def different_settings(configs: Sequence[Config]) -> dict[str, tuple[Any, ...]]:
    """The settings that differ, by dotted key; folders of downloads are none of them."""
    flat = [flat_settings(config) for config in configs]
    keys = dict.fromkeys(key for settings in flat for key in settings if key != "data.dir")
    values = {key: tuple(settings.get(key) for settings in flat) for key in keys}
    return {key: own for key, own in values.items() if any(value != own[0] for value in own)}


def _source(word: str, checkpoint: str) -> _Source:
    """What a word of the command line means: a run, a run and its checkpoint, or a file."""
    name, _, which = word.rpartition("@")
    if name and which in ("last", "best") and not Path(word).exists():
        find_run(name)
        return _Source(name, which)
    if Path(word).is_file():
        return _Source(None, word)
    find_run(word)
    return _Source(word, checkpoint)


def _labels(labels: Sequence[str], words: Sequence[str]) -> list[str]:
    """A name for each network that no other one has."""
    if len(set(labels)) == len(labels):
        return list(labels)
    if len(set(words)) == len(words):
        return list(words)
    return [f"{label} ({number})" for number, label in enumerate(labels, start=1)]


def _digest(checkpoint: Checkpoint) -> str:
    """A hash that is equal for equal networks; of an exported graph, which has no weights here,
    the hash of its path."""
    digest = hashlib.sha256(repr(checkpoint.config.model).encode())
    for name, tensor in checkpoint.weights.items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().data)
    if not checkpoint.weights:
        digest.update(str(checkpoint.path.resolve()).encode())
    digest.update(repr(checkpoint.config.data.normalisation).encode())
    return digest.hexdigest()


def _check_classes(first: _Entry, name: str, class_names: Sequence[str]) -> None:
    """Raise a `DataError` if a network has other classes than the first one."""
    only = [
        f"only {owner} has {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
        for owner, names in (
            (first.name, only_in(first.class_names, class_names)),
            (name, only_in(class_names, first.class_names)),
        )
        if names
    ]
    if only:
        raise DataError(
            f"{first.name} and {name} have different classes: {'; '.join(only)}.",
            "Compare runs of the same classes.",
        )


def _matched(first: _Entry, entry: _Entry, split: str) -> Tensor:
    """The rows, int64 (N,), of the network's images in the order of the first one's.

    Raises:
        DataError: One has other images, or they cannot be told apart.
    """
    labels = renumbered(entry.images.labels, entry.class_names, first.class_names)
    matching = match_images(first.images, replace(entry.images, labels=labels))
    both = f"{first.name} and {entry.name}"
    if matching is None:
        sizes = [one.images.images.shape[1] for one in (first, entry)]
        raise DataError(
            f"{both} cannot be compared: their images have {sizes[0]} and {sizes[1]} pixels and "
            "come from no files, so nothing says which are the same.",
            "Name a folder of images for both with --data.",
        )
    if matching.is_complete:
        return matching.rows
    counts = f"{len(first.images):,} and {len(entry.images):,}"
    relabelled = f"; {matching.other_labels:,} have another label" if matching.other_labels else ""
    remedy = "name the same images for all with --data."
    raise DataError(
        f"{both} have different images (--split {split}): of {counts}, both have "
        f"{len(matching.rows):,}{relabelled}.",
        f"Use --split test, or {remedy}" if split == "val" else remedy.capitalize(),
    )


def _run(
    entry: _Entry, first: _Entry, rows: Tensor, images: ImageSet, progress: Progress | None
) -> ComparedRun:
    """Classify the images in these rows by a network, which is loaded for it alone."""
    _, found = find_checkpoint(entry.source.run, entry.source.checkpoint)
    if _digest(found) != entry.digest:
        raise CheckpointError(
            f"{entry.path} has been replaced meanwhile.", "Wait until its training has ended."
        )

    def on_batch(done: int, total: int) -> None:
        if progress:
            progress(f"Evaluating {entry.name}", done, total)

    trained = load_trained(found, Runtime.start(entry.settings))
    logits = trained.logits(entry.images.images[rows], on_batch=on_batch)
    numbers = {name: number for number, name in enumerate(entry.class_names)}
    logits = logits[:, [numbers[name] for name in first.class_names]]
    about = entry.name, entry.run, entry.path, entry.config
    return compared_run(*about, logits, images.labels)
