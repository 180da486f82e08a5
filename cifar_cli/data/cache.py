"""The cache of decoded images: one file a dataset, named by its content, whole or not there.

Files are uncompressed `.npz` archives; their CRC-32 is checked on every read, and a file that
fails is drawn up anew from the source.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import platformdirs
import torch

from cifar_cli.data.types import BadImage, Dataset, ImageSet
from cifar_cli.errors import ConfigError
from cifar_cli.storage import atomic_file

FORMAT = 2


def home(data_dir: str | None) -> Path:
    """Folder of downloads and caches: `data_dir`, CIFAR_RESNET_HOME, or the platform's own."""
    chosen = data_dir or os.environ.get("CIFAR_RESNET_HOME")
    try:
        return Path(chosen or platformdirs.user_cache_dir("cifar-resnet")).expanduser()
    except RuntimeError as error:
        which = f"{chosen!r} is none" if chosen else "the system names none"
        raise ConfigError(
            f"No folder for caches: {which} ({error}). Give --data-dir or CIFAR_RESNET_HOME."
        ) from error


def cached(folder: Path, key: str, decode: Callable[[], Dataset]) -> Dataset:
    """Return the dataset stored under `key`, else decode it and store it."""
    path = folder / "decoded" / f"{key}-v{FORMAT}.npz"
    dataset = _read(path)
    if dataset is None:
        dataset = decode()
        _write(path, dataset)
    return dataset


def _read(path: Path) -> Dataset | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            about = json.loads(bytes(arrays["about"]).decode("utf-8"))
            splits = [
                ImageSet(images, labels, torch.arange(len(labels)))
                for images, labels in (
                    (
                        torch.from_numpy(arrays[f"{s}_images"]),
                        torch.from_numpy(arrays[f"{s}_labels"]),
                    )
                    for s in ("train", "test")
                )
            ]
        return Dataset(
            about["name"],
            tuple(about["class_names"]),
            splits[0],
            splits[1],
            notes=tuple(about["notes"]),
            skipped=tuple(BadImage(*fields) for fields in about["skipped"]),
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None  # absent or damaged: the source decides


def _write(path: Path, dataset: Dataset) -> None:
    about = json.dumps(
        {
            "name": dataset.name,
            "class_names": dataset.class_names,
            "notes": dataset.notes,
            "skipped": dataset.skipped,
        }
    )
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            about=np.frombuffer(about.encode("utf-8"), np.uint8),
            train_images=dataset.train.images.numpy(),
            train_labels=dataset.train.labels.numpy(),
            test_images=dataset.test.images.numpy(),
            test_labels=dataset.test.labels.numpy(),
        )
