"""The cache of decoded images: one file per dataset, named by its content, written atomically.

Files are uncompressed `.npz` archives. Their CRC-32, shapes, types and ranges are checked on every
read. If one does not fit, the images are decoded again.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from numpy.lib import format as npy

from cifar_cli.data.types import BadImage, Dataset, ImageSet, SplitName
from cifar_cli.errors import ConfigError
from cifar_cli.storage import atomic_file, is_replaceable, open_regular, remove_temporary

FORMAT = 2
# Temporary files older than this were left by a killed process.
ABANDONED_SECONDS = 24 * 3600.0
BLOCK_BYTES = 2**20
BYTES_BESIDE = 8192  # an image's label and, where it is skipped, its path and the reason


@dataclass(frozen=True)
class Expected:
    """What a dataset must be, known without decoding it."""

    class_names: tuple[str, ...]
    size: int
    """Side of the images in pixels."""
    counts: Mapping[SplitName, int]
    """Images of each split that there is, including those that are skipped."""
    exactly: bool = True
    """False: there may be fewer."""
    keyed: bool = False
    """Whether each image has a key of its file's content."""


class _UnfitError(Exception):
    """A cache file that does not hold what it should."""


def home(data_dir: str | None) -> Path:
    """Folder of downloads and caches: `data_dir`, CIFAR_RESNET_HOME, or the platform's own."""
    chosen = data_dir or os.environ.get("CIFAR_RESNET_HOME")
    try:
        return Path(chosen or platformdirs.user_cache_dir("cifar-resnet")).expanduser()
    except RuntimeError as error:
        which = f"{chosen!r} is none" if chosen else "the system names none"
        raise ConfigError(
            f"No folder for caches: {which} ({error}).", "Give --data-dir or CIFAR_RESNET_HOME."
        ) from error


def cached(
    folder: Path, key: str, expected: Expected, decode: Callable[[], Dataset], colour: str = ""
) -> Dataset:
    """Return the dataset stored under `key`, else decode it and store it.

    With images that were composited on a colour, it is stored under `key` and that `colour`.
    """
    plain, coloured = (
        folder / "decoded" / f"{name}-v{FORMAT}.npz" for name in (key, f"{key}-{colour}")
    )
    for path in (plain, coloured) if colour else (plain,):
        if dataset := _read(path, expected):
            return dataset
    dataset = decode()
    path = coloured if dataset.composited else plain
    if is_replaceable(path):  # anything but a regular file stays
        _write(path, dataset)
    return dataset


def _read(path: Path, expected: Expected) -> Dataset | None:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            image_bytes = 3 * expected.size**2 + BYTES_BESIDE
            _need(size <= sum(expected.counts.values()) * image_bytes + BLOCK_BYTES)
            with zipfile.ZipFile(file) as archive:
                return _dataset(archive, size, expected)
    except (
        OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError, struct.error,
        zipfile.BadZipFile, zlib.error, _UnfitError,
    ):  # fmt: skip
        return None  # absent or damaged: the source decides


def _dataset(archive: zipfile.ZipFile, size: int, expected: Expected) -> Dataset:
    """Check everything that is small before images take memory."""
    about = json.loads(bytes(_array(archive, "about", size, np.uint8, (None,))).decode("utf-8"))
    names, skipped = _about(about)
    _need(names == expected.class_names)
    small: dict[SplitName, tuple[torch.Tensor, torch.Tensor | None]] = {}
    for split, most in expected.counts.items():
        count = most - sum(image.split == split for image in skipped)
        labels = _array(archive, f"{split}_labels", size, np.int64, (None,), count)
        _need(len(labels) == count or (not expected.exactly and 0 < len(labels) < count))
        _need(labels.size > 0 and labels.min() >= 0 and labels.max() < len(names))
        keys = None
        if expected.keyed:
            keys = torch.from_numpy(_array(archive, f"{split}_keys", size, np.int64, (count,)))
        small[split] = torch.from_numpy(labels), keys
    side = expected.size
    parts: dict[SplitName, ImageSet] = {}
    for split, (numbers, keys) in small.items():
        count = len(numbers)
        images = _array(archive, f"{split}_images", size, np.uint8, (count, side, side, 3), count)
        parts[split] = ImageSet(torch.from_numpy(images), numbers, torch.arange(count), keys)
    return Dataset(
        about["name"],
        names,
        parts["train"],
        parts.get("test"),
        tuple(about["notes"]),
        skipped,
        parts.get("val"),
        composited=about.get("composited", 0),
    )


def _about(about: Any) -> tuple[tuple[str, ...], tuple[BadImage, ...]]:
    """The names of the classes and what is skipped, after everything in it was checked."""
    _need(isinstance(about, dict) and isinstance(about["name"], str))
    _need(type(about.get("composited", 0)) is int)
    for texts in (about["class_names"], about["notes"], *about["skipped"]):
        _need(isinstance(texts, list) and all(isinstance(text, str) for text in texts))
    return tuple(about["class_names"]), tuple(BadImage(*fields) for fields in about["skipped"])


def _array(
    archive: zipfile.ZipFile,
    name: str,
    size: int,
    dtype: type[np.generic],
    shape: tuple[int | None, ...],
    most: int | None = None,
) -> np.ndarray[Any, Any]:
    """Read one array of that type and shape; None stands for any length, at most `most`."""
    with archive.open(f"{name}.npy") as member:
        _need(npy.read_magic(member) == (1, 0))
        actual, is_fortran, kind = npy.read_array_header_1_0(member)
        info = archive.getinfo(f"{name}.npy")
        _need(kind == np.dtype(dtype) and not is_fortran and len(actual) == len(shape))
        _need(all(n >= 0 and want in (None, n) for n, want in zip(actual, shape, strict=True)))
        _need(most is None or actual[0] <= most)
        # Memory is allocated only after the file is known to have as many bytes.
        count = math.prod(actual) * kind.itemsize
        _need(info.compress_type == zipfile.ZIP_STORED and info.file_size <= size)
        _need(count + member.tell() == info.file_size)
        array = np.empty(actual, kind)
        rest = memoryview(array.reshape(-1).view(np.uint8).data)
        while block := member.read(BLOCK_BYTES):  # to its end, where the CRC is compared
            _need(len(block) <= len(rest))
            rest[: len(block)] = block
            rest = rest[len(block) :]
        _need(not rest)
    return array


def _need(fits: bool) -> None:
    if not fits:
        raise _UnfitError


def _write(path: Path, dataset: Dataset) -> None:
    about = json.dumps(
        {
            "name": dataset.name,
            "class_names": dataset.class_names,
            "notes": dataset.notes,
            "skipped": dataset.skipped,
            "composited": dataset.composited,
        }
    )
    arrays: dict[str, Any] = {}
    for split, part in dataset.splits.items():
        arrays[f"{split}_images"] = part.images.numpy()
        arrays[f"{split}_labels"] = part.labels.numpy()
        if part.keys is not None:
            arrays[f"{split}_keys"] = part.keys.numpy()
    remove_temporary(path.parent, ["*-v*.npz"], ABANDONED_SECONDS)
    with atomic_file(path) as file:
        np.savez(file, about=np.frombuffer(about.encode("utf-8"), np.uint8), **arrays)
