"""A CSV file of `path,label`, or `path,label,split`: images in any folders beside it."""

from __future__ import annotations

import csv
import io
import os
import stat
from contextlib import nullcontext
from functools import partial
from pathlib import Path, PurePosixPath

from cifar_cli.data.sources.folder import read_file
from cifar_cli.data.sources.listing import (
    NAMED_AT_MOST,
    SPLIT_FOLDERS,
    Entry,
    Item,
    Listing,
)
from cifar_cli.data.sources.pictures import picture_format
from cifar_cli.data.types import SPLIT_NAMES
from cifar_cli.errors import DataError
from cifar_cli.storage import read_regular
from cifar_cli.text import printable

MAX_TABLE_BYTES = 64 * 2**20
HEADERS = {"path", "file", "filename", "image"}
EXPECTED = "Expected rows of path,label or path,label,split, with paths relative to the CSV file."


def list_table(path: Path) -> Listing:
    """List the images that a CSV file names.

    Raises:
        DataError: It cannot be read, or rows are wrong; the first ten are named by their line.
    """
    try:
        text = read_regular(path, MAX_TABLE_BYTES).decode("utf-8-sig")
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        numbered = [(rows.line_num, row) for row in rows if any(cell.strip() for cell in row)]
    except OSError as error:
        raise DataError(f"Cannot read {printable(str(path))}: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{printable(str(path))} is not a CSV file: {error}.", EXPECTED) from error
    if numbered and numbered[0][1][0].strip().lower() in HEADERS:
        numbered = numbered[1:]
    entries: dict[str, Entry] = {}
    problems: list[str] = []
    for line, row in numbered:
        entry = _entry(path.parent, row)
        if isinstance(entry, Entry) and entry.name in entries:
            entry = f"{entry.name} is named twice"
        if isinstance(entry, Entry):
            entries[entry.name] = entry
        else:
            problems.append(f"line {line}: {printable(entry)}")
    if problems or not entries:
        more = len(problems) - NAMED_AT_MOST
        told = "; ".join(problems[:NAMED_AT_MOST]) or "it names no images"
        more_told = f"; and {more:,} more" if more > 0 else ""
        raise DataError(f"{printable(str(path))} cannot be used: {told}{more_told}.", EXPECTED)
    listing = Listing(path)
    for split in SPLIT_NAMES:
        own = [entry for entry in entries.values() if entry.split == split]
        if own or split == "train":
            listing.folders[split] = split
            listing.classes[split] = sorted({entry.label for entry in own})
            listing.entries += sorted(own, key=lambda entry: (entry.label, entry.item.parts))
    return listing


def _entry(folder: Path, row: list[str]) -> Entry | str:
    """What a row names, or what is wrong with it."""
    cells = [cell.strip() for cell in row]
    if not 2 <= len(cells) <= 3 or not cells[0] or not cells[1]:
        return f"{len(cells)} columns, or an empty one"
    name, label, *rest = cells
    split = SPLIT_FOLDERS.get(rest[0].lower() if rest and rest[0] else "train")
    if split is None:
        return f"split {rest[0]!r:.60} is not train, val or test"
    relative = PurePosixPath(name.replace("\\", "/") if os.sep == "\\" else name)
    if relative.is_absolute() or ".." in relative.parts or Path(name).is_absolute():
        return f"{name:.200} leads out of the folder of the CSV file"
    target = folder / relative
    try:
        status = target.stat()
    except (OSError, ValueError) as error:
        return f"{name:.200}: {getattr(error, 'strerror', None) or error}"
    if not stat.S_ISREG(status.st_mode):
        return f"{name:.200} is not a file"
    stamp = f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    return Entry(
        split, label, Item(relative.parts, status.st_size, stamp, partial(read_file, target))
    )


IMAGE_TABLE = picture_format(
    "a CSV file of paths and labels",
    lambda path: nullcontext(list_table(path)),
    lambda path: path.is_file() and path.suffix.lower() == ".csv",
)
