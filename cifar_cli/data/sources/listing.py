"""Which images a source holds, before any is read: splits, classes, and other files.

Folders and archives list their files, and `arrange` finds the layout: `train/`, `val/` and `test/`
with class folders in each, or class folders alone. A file below a class folder belongs to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cifar_cli.data.sources.decode import EXTENSIONS, MISSING
from cifar_cli.data.types import IN_WORDS, SPLIT_NAMES, SplitName
from cifar_cli.errors import DataError
from cifar_cli.text import printable

NAMED_AT_MOST = 10
MAX_FILES = 2_000_000
SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""Names of the splits' folders, in lower case."""
LAYOUTS = (
    "Expected train/<class>/ folders, with or without val/ and test/, or <class>/ folders alone."
)


class Item(NamedTuple):
    """A file that may be an image, as its source lists it."""

    parts: tuple[str, ...]
    """Its path relative to the source."""
    size: int
    """In bytes."""
    stamp: str
    """Changes if the file changes."""
    read: Callable[[], bytes]
    """Reads it; raises `NoImageError` if it is too large or damaged, else `DataError`."""
    position: int = 0
    """Files are read in this order."""


class Entry(NamedTuple):
    """An image file, and what it is an image of."""

    split: SplitName
    label: str
    """Its class."""
    item: Item

    @property
    def name(self) -> str:
        """Its path relative to the source, with `/`."""
        return "/".join(self.item.parts)


@dataclass
class Listing:
    """The content of a source."""

    root: Path
    """The folder, archive or table."""
    folders: dict[SplitName, str] = field(default_factory=dict)
    """By split that there is: its folder, relative to the source; empty: the source itself."""
    classes: dict[SplitName, list[str]] = field(default_factory=dict)
    """By split: its class folders, empty ones too, sorted."""
    entries: list[Entry] = field(default_factory=list)
    """Every image, in order of split, class and name."""
    other_files: list[str] = field(default_factory=list)
    other_folders: list[str] = field(default_factory=list)

    def place(self, split: SplitName) -> str:
        """The folder of a split, to be shown."""
        return printable(str(self.root / self.folders[split]))

    def notes(self) -> tuple[str, ...]:
        """What was found, and what was skipped, a sentence each."""
        counts = Counter(entry.split for entry in self.entries)
        parts = [f"{counts[split]:,} {IN_WORDS[split]}" for split in self.folders]
        found = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
        notes = [f"Found {found} images of {len(self.classes['train']):,} classes."]
        kinds = (("file", self.other_files), ("folder", self.other_folders))
        skipped = [f"{len(n):,} {kind}{'s' if len(n) > 1 else ''}" for kind, n in kinds if n]
        names = sorted({printable(name) for _, skipped in kinds for name in skipped})
        if skipped:
            notes.append(f"Skipped {' and '.join(skipped)} that are not images: {first_of(names)}.")
        missing = sum(name.lower().endswith(MISSING) for name in self.other_files) if MISSING else 0
        if missing:
            notes.append(
                f"{missing:,} of them could be read with other packages: .heic with pillow-heif, "
                ".avif with a newer Pillow."
            )
        return tuple(notes)


def arrange(
    root: Path,
    items: Sequence[Item],
    folders: Iterable[tuple[str, ...]],
    other_files: list[str],
    other_folders: list[str],
) -> Listing:
    """Find the layout of the files of a folder or an archive.

    Args:
        root: The folder or archive.
        items: Its files that look like images.
        folders: The paths of its folders, empty ones too.
        other_files, other_folders: Names of what is skipped.

    Raises:
        DataError: It has none of the layouts.
    """
    listing = Listing(root, other_files=other_files, other_folders=other_folders)
    every = {path for path in folders if path}
    top: tuple[str, ...] = ()
    while len(inner := _below(every, top)) == 1 and not _splits(inner):
        # One folder around everything: only if there are folders for classes in it.
        if not all(len(item.parts) > len(top) + 2 for item in items) or not items:
            break
        top = (*top, *inner)
    splits = _splits(_below(every, top))
    for kind, names in splits.items():
        if len(names) > 1:
            raise DataError(
                f"{_shown(root, top)} holds {' and '.join(f'{n}/' for n in names)}, which are both "
                f"for {IN_WORDS[kind]} images.",
                "Remove or rename one of them.",
            )
    if splits and "train" not in splits:
        (name,) = next(iter(splits.values()))
        raise DataError(
            f"{_shown(root, top)} has a {name}/ folder but no train/ folder.",
            "Put the training images into train/<class>/.",
        )
    where: dict[tuple[str, ...], SplitName] = {
        (*top, names[0]): kind for kind, names in splits.items()
    } or {top: "train"}
    depth = len(next(iter(where)))
    listing.folders = {kind: "/".join(path) for path, kind in where.items()}
    listing.classes = {kind: sorted(_below(every, path)) for path, kind in where.items()}
    for item in items:
        split = where.get(item.parts[:depth])
        if split and len(item.parts) > depth + 1:
            listing.entries.append(Entry(split, item.parts[depth], item))
        elif split or len(item.parts) == 1:
            listing.other_files.append(item.parts[-1])
    if splits:
        listing.other_folders += sorted(_below(every, top) - {path[-1] for path in where})
    else:  # a folder without images is no class
        filled = {entry.label for entry in listing.entries}
        listing.other_folders += sorted(set(listing.classes["train"]) - filled)
        listing.classes["train"] = sorted(filled)
        if not filled:
            raise _no_classes(root, items)
    listing.entries.sort(
        key=lambda e: (SPLIT_NAMES.index(e.split), e.label, e.item.parts[depth + 1 :])
    )
    return listing


def class_names(listing: Listing, entries: Sequence[Entry]) -> tuple[str, ...]:
    """Names of the classes, sorted; `entries` must hold images of each in every split.

    Raises:
        DataError: A split or a class is empty, the splits differ, or there is one class only.
    """
    filled = {(entry.split, entry.label) for entry in entries}
    for split in listing.folders:
        if split not in {filled_split for filled_split, _ in filled}:
            place = Path(listing.folders[split]).name
            raise DataError(
                f"{listing.place(split)} holds no readable images: expected "
                f"{place + '/' if place else ''}<class>/<image>.png (or "
                f"{', '.join(EXTENSIONS[1:])})."
            )
    train = set(listing.classes["train"])
    others: list[SplitName] = [split for split in listing.folders if split != "train"]
    for split in others or [SPLIT_NAMES[0]]:
        own = set(listing.classes[split])
        problems = {
            f"only in {_short(listing, 'train')}:": sorted(train - own),
            f"only in {_short(listing, split)}:": sorted(own - train),
            "no images that can be read in": [
                f"{_short(listing, each)}{name}"
                for each in dict.fromkeys(("train", split))
                for name in listing.classes[each]
                if (each, name) not in filled
            ],
        }
        told = "; ".join(f"{what} {first_of(names)}" for what, names in problems.items() if names)
        if told and split == "train":
            raise DataError(
                f"Classes of {listing.place('train')} are empty: {told}.",
                "Every class needs images: add them, or remove its folder.",
            )
        if told:
            raise DataError(
                f"The classes of {listing.place('train')} and {listing.place(split)} differ: "
                f"{told}.",
                "Every class needs images in both: add them, or remove its folder.",
            )
    if len(train) < 2:
        raise DataError(
            f"{listing.place('train')} has only one class, {printable(*train)}.",
            "Training needs at least two classes.",
        )
    return tuple(listing.classes["train"])


def first_of(names: Sequence[str]) -> str:
    """The first ten, and how many more there are."""
    more = f", and {len(names) - NAMED_AT_MOST:,} more" if len(names) > NAMED_AT_MOST else ""
    return ", ".join(map(printable, names[:NAMED_AT_MOST])) + more


def is_image_name(name: str) -> bool:
    """Whether a file of that name is taken for an image."""
    return not name.startswith(".") and name.lower().endswith(EXTENSIONS)


def _below(folders: set[tuple[str, ...]], path: tuple[str, ...]) -> set[str]:
    """Names of the folders directly in the one at `path`."""
    depth = len(path)
    return {f[depth] for f in folders if len(f) == depth + 1 and f[:depth] == path}


def _splits(names: Iterable[str]) -> dict[SplitName, list[str]]:
    """By split, in their order: the folders that are named for it."""
    found: dict[SplitName, list[str]] = {}
    for name in sorted(names):
        if split := SPLIT_FOLDERS.get(name.lower()):
            found.setdefault(split, []).append(name)
    return {split: found[split] for split in SPLIT_NAMES if split in found}


def _short(listing: Listing, split: SplitName) -> str:
    name = Path(listing.folders[split]).name
    return f"{printable(name)}/" if name else ""


def _shown(root: Path, top: tuple[str, ...]) -> str:
    return printable(str(root.joinpath(*top)))


def _no_classes(root: Path, items: Sequence[Item]) -> DataError:
    if items:
        return DataError(
            f"{_shown(root, ())} holds {len(items):,} images but no class folders.",
            "Make one folder per class and move the images into them, or give a CSV file of "
            "path,label.",
        )
    return DataError(f"{_shown(root, ())} holds no images in class folders.", LAYOUTS)
