"""Images in class folders: `train/<class>/*` and `test/<class>/*` (or `val/`)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from errno import EFBIG
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from cifar_cli.data.cache import Expected, cached
from cifar_cli.data.sources.decode import MAX_BYTES, NoImageError, decode_image
from cifar_cli.data.sources.format import Format, Request
from cifar_cli.data.sources.listing import Entry, class_names, first_of, list_folders
from cifar_cli.data.types import BadImage, Dataset, ImageSet, Progress
from cifar_cli.errors import DataError
from cifar_cli.storage import is_replaceable, read_regular, write_text
from cifar_cli.text import printable

KEEP_BYTES = 512 * 2**20  # of files that are read for their hash and then decoded
LARGE_BYTES = 8 * 2**20  # files above this are decoded one at a time, whatever their pixels
_one_large = threading.Lock()


def load_folder(
    root: Path,
    size: int,
    cache: Path,
    progress: Progress | None = None,
    skip_bad_images: bool = False,
) -> Dataset:
    """Read class folders, resizing each image to `size` x `size` once.

    The cache is keyed by the content of the files. Reading every file to compute that key would
    cost seconds. So the key is stored under a list of names, sizes and change times, and holds
    as long as that list stays the same.

    Raises:
        DataError: A split or class is empty or in one split only, or files cannot be read as
            images (and are not to be skipped).
    """
    listing = list_folders(root)
    entries = listing.entries
    names = class_names(listing, entries)
    key_file = cache / "decoded" / "listings" / f"{_listing_key(entries)}.json"
    stored_key = _stored_key(key_file)
    contents: dict[Path, bytes] = {}
    key = stored_key or _content_key(entries, contents, progress)

    def decode() -> Dataset:
        parts = [
            _decode([e for e in entries if e.split == split], size, contents, progress)
            for split in listing.folders
        ]
        bad = tuple(image for part in parts for image in part.bad)
        _allow(bad, len(entries), skip_bad_images)
        class_names(listing, [entry for part in parts for entry in part.entries])
        number_of = {name: number for number, name in enumerate(names)}
        train, test = (
            ImageSet(
                part.images,
                torch.tensor([number_of[entry.label] for entry in part.entries]),
                torch.arange(len(part.entries)),
            )
            for part in parts
        )
        return Dataset(root.name, names, train, test, _resize_notes(parts, size), bad)

    train, test = (sum(entry.split == split for entry in entries) for split in listing.folders)
    expected = Expected(names, size, (train, test))
    dataset = cached(cache, f"folder-{key}-{size}px", expected, decode)
    # The cache may come from a run that was to skip them.
    _allow(dataset.skipped, len(entries), skip_bad_images)
    if stored_key is None and is_replaceable(key_file):
        write_text(key_file, json.dumps({"content": key}))
    notes = (*listing.notes(), *dataset.notes)
    if skipped := dataset.skipped:
        notes += (f"Skipped {len(skipped):,} images that cannot be read: {_reasons(skipped)}.",)
    return replace(dataset, name=root.resolve().name, notes=notes)


def _count_classes(request: Request) -> int:
    listing = list_folders(request.path)
    return len(class_names(listing, listing.entries))


CLASS_FOLDERS = Format(
    "class folders",
    load=lambda request: load_folder(
        request.path,
        request.data.image_size,
        request.cache,
        request.progress,
        request.data.skip_bad_images,
    ),
    count_classes=_count_classes,
    recognises=lambda path: (path / "train").is_dir(),
)


def _listing_key(entries: Sequence[Entry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        s = entry.stat
        digest.update(os.fsencode(entry.name))
        digest.update(f"\0{s.st_size}\0{s.st_mtime_ns}\0{s.st_ctime_ns}\0{s.st_ino}\n".encode())
    return digest.hexdigest()[:32]


def _stored_key(path: Path) -> str | None:
    try:
        key = str(json.loads(read_regular(path, 4096))["content"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return key if re.fullmatch("[0-9a-f]{32}", key) else None  # it becomes part of a path


def _content_key(
    entries: Sequence[Entry], contents: dict[Path, bytes], progress: Progress | None
) -> str:
    """Hash of all names and bytes; the bytes of small collections are kept for decoding."""
    digest = hashlib.sha256()
    keep = sum(entry.stat.st_size for entry in entries) < KEEP_BYTES
    for number, entry in enumerate(entries):
        digest.update(os.fsencode(entry.name))
        try:
            data = _read(entry.path)
        except NoImageError:  # too large to be read at all
            digest.update(f"\0{entry.stat.st_size} bytes\0".encode())
            continue
        digest.update(f"\0{len(data)}\0".encode())
        digest.update(data)
        if keep:
            contents[entry.path] = data
        if progress and number % 500 == 0:
            progress("Reading images", number, len(entries))
    return digest.hexdigest()[:32]


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_BYTES)
    except OSError as error:
        if error.errno == EFBIG:
            raise NoImageError(str(error.strerror)) from error
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error


class _Decoded(NamedTuple):
    """One split: uint8 (N, size, size, 3) images, their entries, and files that are not images."""

    images: torch.Tensor
    entries: list[Entry]
    resized: int
    bad: list[BadImage]


def _decode(
    entries: Sequence[Entry], size: int, contents: dict[Path, bytes], progress: Progress | None
) -> _Decoded:
    images = np.empty((len(entries), size, size, 3), np.uint8)

    def one(row: int) -> bool | BadImage:
        """Whether the image had to be resized, or why it cannot be read."""
        entry = entries[row]
        try:
            with _one_large if entry.stat.st_size > LARGE_BYTES else nullcontext():
                data = contents[entry.path] if entry.path in contents else _read(entry.path)
                images[row], resized = decode_image(data, size)
        except NoImageError as error:
            return BadImage(entry.split, printable(entry.name), str(error))
        return resized

    outcomes = []
    # Pillow warns about files that it reads anyway, or that are refused here. The filter holds for
    # the whole process, so it is set around the threads.
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")
        for done, outcome in enumerate(_mapped(pool, one, range(len(entries)))):
            outcomes.append(outcome)
            if progress and done % 500 == 0:
                progress(f"Decoding {entries[0].split} images", done, len(entries))
    rows = [row for row, outcome in enumerate(outcomes) if not isinstance(outcome, BadImage)]
    return _Decoded(
        torch.from_numpy(images if len(rows) == len(entries) else images[rows]),
        [entries[row] for row in rows],
        outcomes.count(True),
        [outcome for outcome in outcomes if isinstance(outcome, BadImage)],
    )


def _mapped(
    pool: ThreadPoolExecutor, one: Callable[[int], bool | BadImage], rows: Iterable[int]
) -> Iterable[bool | BadImage]:
    """The outcomes of all rows, in order; without threads if none can be started."""
    try:
        return pool.map(one, rows)
    except RuntimeError:
        return map(one, rows)


def _allow(bad: Sequence[BadImage], total: int, skip: bool) -> None:
    if bad and not skip:
        raise DataError(
            f"{len(bad):,} of {total:,} images cannot be read: {_reasons(bad)}.",
            "Remove or replace them, or skip them with --skip-bad-images.",
        )


def _resize_notes(parts: Sequence[_Decoded], size: int) -> tuple[str, ...]:
    resized, total = sum(p.resized for p in parts), sum(len(p.entries) for p in parts)
    if not resized:
        return ()
    return (f"Resized {resized:,} of {total:,} images to {size} x {size} pixels.",)


def _reasons(bad: Sequence[BadImage]) -> str:
    return first_of([f"{image.path} ({image.reason})" for image in bad])
