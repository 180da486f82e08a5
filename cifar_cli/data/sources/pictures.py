"""From a listing to decoded images: reads every file once, and keeps the pixels in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from cifar_cli.config.fitting import Facts
from cifar_cli.data.cache import Expected, cached
from cifar_cli.data.sources.decode import decode_image
from cifar_cli.data.sources.format import Format, Request
from cifar_cli.data.sources.listing import Entry, Listing, class_names, first_of
from cifar_cli.data.sources.listing_facts import listing_facts
from cifar_cli.data.sources.pixels import NoImageError, Picture, Rules, picture_notes
from cifar_cli.data.types import BadImage, Dataset, ImageSet, Progress, SplitName
from cifar_cli.errors import DataError
from cifar_cli.storage import is_replaceable, read_regular, write_text
from cifar_cli.text import printable

KEEP_BYTES = 512 * 2**20  # of files that are read for their hash and then decoded
LARGE_BYTES = 8 * 2**20  # files above this are decoded one at a time, whatever their pixels
AHEAD = 16  # files that are read before the oldest of them is decoded


def picture_format(
    title: str,
    opened: Callable[[Path], AbstractContextManager[Listing]],
    recognises: Callable[[Path], bool],
) -> Format:
    """A format whose images are files of a listing, which can be read while it is open."""

    def load(request: Request) -> Dataset:
        with opened(request.path) as listing:
            rules, skip = Rules.of(request.data), request.data.skip_bad_images
            return load_pictures(listing, rules, request.cache, request.progress, skip)

    def count_classes(request: Request) -> int:
        with opened(request.path) as listing:
            return len(class_names(listing, listing.entries))

    def facts(request: Request) -> Facts | None:
        with opened(request.path) as listing:
            return listing_facts(listing, request.data)

    return Format(title, load, count_classes, facts, recognises=recognises)


def load_pictures(
    listing: Listing,
    rules: Rules,
    cache: Path,
    progress: Progress | None = None,
    skip_bad_images: bool = False,
) -> Dataset:
    """Read and decode every image of a listing.

    The cache is keyed by the content of the files. Reading every file to compute that key would
    cost seconds. So the key is stored under a list of names, sizes and change times, and holds
    as long as that list stays the same.

    Raises:
        DataError: A split or class is empty or in one split only, or files cannot be read as
            images (and are not to be skipped).
    """
    entries = listing.entries
    names = class_names(listing, entries)
    key_file = cache / "decoded" / "listings" / f"{_listing_key(entries)}.json"
    stored_key = _stored_key(key_file)
    contents: dict[int, bytes] = {}
    hashes: dict[int, bytes] = {}
    key = stored_key or _content_key(entries, contents, hashes, progress)

    def decode() -> Dataset:
        dataset, read = _decode(listing, names, rules, contents, hashes, progress)
        _allow(dataset.skipped, len(entries), skip_bad_images)
        class_names(listing, read)
        return dataset

    counts = {s: sum(entry.split == s for entry in entries) for s in listing.folders}
    expected = Expected(names, rules.size, counts, keyed=True)
    colour = bytes(rules.colour).hex()
    dataset = cached(cache, f"images-{key}-{rules.key}", expected, decode, colour)
    # The cache may come from a run that was to skip them.
    _allow(dataset.skipped, len(entries), skip_bad_images)
    if stored_key is None and is_replaceable(key_file):
        write_text(key_file, json.dumps({"content": key}))
    notes = (*listing.notes(), *dataset.notes)
    if skipped := dataset.skipped:
        notes += (f"Skipped {len(skipped):,} images that cannot be read: {_reasons(skipped)}.",)
    name = listing.root.resolve().name
    return replace(dataset, name=name, notes=notes, files=_files(listing, dataset.skipped))


def _listing_key(entries: Sequence[Entry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(os.fsencode(f"{entry.split}\0{entry.label}\0{entry.name}\0"))
        digest.update(f"{entry.item.size}\0{entry.item.stamp}\n".encode())
    return digest.hexdigest()[:32]


def _stored_key(path: Path) -> str | None:
    try:
        key = str(json.loads(read_regular(path, 4096))["content"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return key if re.fullmatch("[0-9a-f]{32}", key) else None  # it becomes part of a path


def _in_reading_order(entries: Sequence[Entry]) -> list[int]:
    return sorted(range(len(entries)), key=lambda row: entries[row].item.position)


def _content_key(
    entries: Sequence[Entry],
    contents: dict[int, bytes],
    hashes: dict[int, bytes],
    progress: Progress | None,
) -> str:
    """Hash of all names and bytes.

    Each file's own hash, and the bytes of small collections, are kept for decoding, by row.
    """
    keep = sum(entry.item.size for entry in entries) < KEEP_BYTES
    unread: dict[int, bytes] = {}
    for number, row in enumerate(_in_reading_order(entries)):
        try:
            data = entries[row].item.read()
        except NoImageError as error:  # too large to be read at all, or damaged
            unread[row] = f"{entries[row].item.size} bytes, {error}".encode()
            continue
        hashes[row] = hashlib.sha256(data).digest()
        if keep:
            contents[row] = data
        if progress and number % 500 == 0:
            progress("Reading images", number, len(entries))
    digest = hashlib.sha256()
    for row, entry in enumerate(entries):
        content = hashes.get(row) or unread[row]
        digest.update(os.fsencode(f"{entry.split}\0{entry.label}\0{entry.name}\0"))
        digest.update(f"{len(content)}\0".encode() + content)
    return digest.hexdigest()[:32]


class _Done(NamedTuple):
    """One decoded file."""

    picture: Picture
    key: int
    """int64, the first 8 bytes of the hash of its content."""


def _decode(
    listing: Listing,
    names: Sequence[str],
    rules: Rules,
    contents: dict[int, bytes],
    hashes: dict[int, bytes],
    progress: Progress | None,
) -> tuple[Dataset, list[Entry]]:
    """The images that can be read, and their entries."""
    entries = listing.entries
    images = np.empty((len(entries), rules.size, rules.size, 3), np.uint8)
    outcomes: dict[int, _Done | BadImage] = {}

    def one(row: int, data: bytes) -> _Done | BadImage:
        try:
            picture = decode_image(data, rules)
        except NoImageError as error:
            return _bad(entries[row], error)
        images[row] = picture.pixels
        content = hashes.get(row) or hashlib.sha256(data).digest()
        key = int.from_bytes(content[:8], "big", signed=True)
        return _Done(picture._replace(pixels=images[row]), key)

    # Pillow warns about files that it reads anyway, or that are refused here. The filter holds for
    # the whole process, so it is set around the threads.
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")
        for row, outcome in _outcomes(pool, entries, contents, one):
            if progress and len(outcomes) % 500 == 0:
                progress("Decoding images", len(outcomes), len(entries))
            outcomes[row] = outcome
    number_of = {name: number for number, name in enumerate(names)}
    rows = [row for row in range(len(entries)) if isinstance(outcomes[row], _Done)]
    done = {row: outcome for row, outcome in outcomes.items() if isinstance(outcome, _Done)}
    parts: dict[SplitName, ImageSet] = {}
    for split in listing.folders:
        own = [row for row in rows if entries[row].split == split]
        # Rows of one split follow each other: without gaps, they are a view.
        is_whole = bool(own) and own[-1] - own[0] + 1 == len(own)
        pixels = images[own[0] : own[-1] + 1] if is_whole else images[own]
        parts[split] = ImageSet(
            torch.from_numpy(pixels),
            torch.tensor([number_of[entries[row].label] for row in own], dtype=torch.int64),
            torch.arange(len(own)),
            torch.tensor([done[row].key for row in own], dtype=torch.int64),
        )
    pictures = [done[row].picture for row in rows]
    bad = [outcome for _, outcome in sorted(outcomes.items()) if isinstance(outcome, BadImage)]
    dataset = Dataset(
        listing.root.name,
        tuple(names),
        parts["train"],
        parts.get("test"),
        val=parts.get("val"),
        notes=picture_notes(pictures, rules),
        skipped=tuple(bad),
        composited=sum(picture.is_transparent or picture.is_padded for picture in pictures),
    )
    return dataset, [entries[row] for row in rows]


def _outcomes(
    pool: ThreadPoolExecutor,
    entries: Sequence[Entry],
    contents: dict[int, bytes],
    one: Callable[[int, bytes], _Done | BadImage],
) -> Iterator[tuple[int, _Done | BadImage]]:
    """Decode every entry: read here, in the order in which that is fast, decoded in threads."""
    pending: deque[tuple[int, Future[_Done | BadImage]]] = deque()
    has_threads = True
    for row in _in_reading_order(entries):
        is_large = entries[row].item.size > LARGE_BYTES
        while pending and (is_large or len(pending) >= AHEAD):
            first, future = pending.popleft()
            yield first, future.result()
        try:
            data = contents.pop(row) if row in contents else entries[row].item.read()
        except NoImageError as error:
            yield row, _bad(entries[row], error)
            continue
        if has_threads and not is_large:
            try:
                pending.append((row, pool.submit(one, row, data)))
                continue
            except RuntimeError:  # no thread can be started
                has_threads = False
        yield row, one(row, data)
    for row, future in pending:
        yield row, future.result()


def _bad(entry: Entry, error: NoImageError) -> BadImage:
    return BadImage(entry.split, printable(entry.name), str(error))


def _files(listing: Listing, skipped: Sequence[BadImage]) -> dict[str, tuple[str, ...]]:
    """By split, the names of the files that were read, in order."""
    bad = deque((image.split, image.path) for image in skipped)
    names: dict[str, list[str]] = {split: [] for split in listing.folders}
    for entry in listing.entries:
        name = printable(entry.name)
        if bad and bad[0] == (entry.split, name):
            bad.popleft()
        else:
            names[entry.split].append(name)
    return {split: tuple(own) for split, own in names.items()}


def _allow(bad: Sequence[BadImage], total: int, skip: bool) -> None:
    if bad and not skip:
        raise DataError(
            f"{len(bad):,} of {total:,} images cannot be read: {_reasons(bad)}.",
            "Remove or replace them, or skip them with --skip-bad-images.",
        )


def _reasons(bad: Sequence[BadImage]) -> str:
    return first_of([f"{image.path} ({image.reason})" for image in bad])
