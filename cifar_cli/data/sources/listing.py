"""The content of class folders, before any image is read: images, classes, and other files."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cifar_cli.data.sources.decode import EXTENSIONS
from cifar_cli.errors import DataError
from cifar_cli.text import printable

NAMED_AT_MOST = 10


class Entry(NamedTuple):
    """One image file."""

    split: str
    """`train` or `test`."""
    label: str
    """Its class."""
    name: str
    """Its path relative to the data folder, with `/`."""
    path: Path
    stat: os.stat_result


@dataclass
class Listing:
    """The content of a data folder."""

    folders: dict[str, Path]
    """By split, `train` and then `test`: its folder."""
    classes: dict[str, list[str]] = field(default_factory=dict)
    """By split: its class folders, empty ones too, sorted."""
    entries: list[Entry] = field(default_factory=list)
    """Every image, in order of split, class and name."""
    other_files: list[str] = field(default_factory=list)
    other_folders: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """A sentence on what was skipped, if anything was."""
        kinds = (("file", self.other_files), ("folder", self.other_folders))
        counts = [f"{len(n):,} {kind}{'s' if len(n) > 1 else ''}" for kind, n in kinds if n]
        names = sorted({printable(name) for _, skipped in kinds for name in skipped})
        if not counts:
            return ()
        return (f"Skipped {' and '.join(counts)} that are not images: {first_of(names)}.",)


def list_folders(root: Path) -> Listing:
    """List the class folders of both splits.

    Skips hidden files and folders, folders within a class, and files without an image's extension.

    Raises:
        DataError: There is no test split, or something cannot be read.
    """
    listing = Listing({"train": root / "train", "test": _test_folder(root)})
    try:
        for split, folder in listing.folders.items():
            classes = listing.classes[split] = []
            for label in _scan(folder):
                if label.name.startswith(".") or not label.is_dir():
                    _skip(label, listing)
                    continue
                classes.append(label.name)
                for file in _scan(label.path):
                    if not _is_image(file):
                        _skip(file, listing)
                        continue
                    name = f"{folder.name}/{label.name}/{file.name}"
                    entry = Entry(split, label.name, name, Path(file.path), file.stat())
                    listing.entries.append(entry)
    except OSError as error:
        raise DataError(f"Cannot read {error.filename}: {error.strerror}.") from error
    return listing


def class_names(listing: Listing, entries: Sequence[Entry]) -> tuple[str, ...]:
    """Names of the classes, sorted; `entries` must hold images of each in both splits.

    Raises:
        DataError: A split or a class is empty, the splits differ, or there is one class only.
    """
    filled = {(entry.split, entry.label) for entry in entries}
    for split, folder in listing.folders.items():
        if split not in {filled_split for filled_split, _ in filled}:
            raise DataError(
                f"{folder} holds no readable images: expected "
                f"{folder.name}/<class>/<image>.png (or {', '.join(EXTENSIONS[1:])})."
            )
    train, test = listing.folders.values()
    in_train, in_test = (set(listing.classes[split]) for split in listing.folders)
    empty = [
        f"{folder.name}/{name}"
        for split, folder in listing.folders.items()
        for name in listing.classes[split]
        if (split, name) not in filled
    ]
    differences = {
        f"only in {train.name}/:": sorted(in_train - in_test),
        f"only in {test.name}/:": sorted(in_test - in_train),
        "no images that can be read in": empty,
    }
    problems = [f"{what} {first_of(names)}" for what, names in differences.items() if names]
    if problems:
        raise DataError(
            f"The classes of {train} and {test} differ: {'; '.join(problems)}.",
            "Every class needs images in both: add them, or remove its folder.",
        )
    if len(in_train) < 2:
        raise DataError(
            f"{train} has only one class, {listing.classes['train'][0]}.",
            "Training needs at least two classes.",
        )
    return tuple(listing.classes["train"])


def first_of(names: Sequence[str]) -> str:
    """The first ten, and how many more there are."""
    more = f", and {len(names) - NAMED_AT_MOST:,} more" if len(names) > NAMED_AT_MOST else ""
    return ", ".join(names[:NAMED_AT_MOST]) + more


def _test_folder(root: Path) -> Path:
    for name in ("test", "val"):
        if (root / name).is_dir():
            return root / name
    raise DataError(
        f"{root} has a train/ folder but neither test/ nor val/.",
        "Put the validation images into test/<class>/.",
    )


def _scan(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as items:
        return sorted(items, key=lambda item: item.name)


def _is_image(file: os.DirEntry[str]) -> bool:
    if file.name.startswith(".") or not file.name.lower().endswith(EXTENSIONS):
        return False
    return stat.S_ISREG(file.stat().st_mode)  # raises if a link is broken


def _skip(item: os.DirEntry[str], listing: Listing) -> None:
    (listing.other_folders if item.is_dir() else listing.other_files).append(item.name)
