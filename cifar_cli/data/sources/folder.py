"""Images in folders on disk: one folder per class, with or without folders per split."""

from __future__ import annotations

import os
import stat
from contextlib import nullcontext
from errno import EFBIG
from functools import partial
from pathlib import Path

from cifar_cli.data.sources.cifar10 import is_batches_folder
from cifar_cli.data.sources.decode import MAX_BYTES
from cifar_cli.data.sources.listing import (
    MAX_FILES,
    Item,
    Listing,
    arrange,
    is_image_name,
)
from cifar_cli.data.sources.pictures import picture_format
from cifar_cli.data.sources.pixels import NoImageError
from cifar_cli.errors import DataError
from cifar_cli.storage import read_regular
from cifar_cli.text import printable

MAX_DEPTH = 50
# Links to folders are followed so far down: splits and classes may be links.
LINKED_DEPTH = 3


def list_folders(root: Path) -> Listing:
    """List the files of all class folders.

    Skips hidden files and folders, and files without an image's extension.

    Raises:
        DataError: There are no class folders, or something cannot be read.
    """
    items: list[Item] = []
    folders: list[tuple[str, ...]] = []
    other_files: list[str] = []
    other_folders: list[str] = []

    def scan(folder: Path | str, parts: tuple[str, ...]) -> None:
        with os.scandir(folder) as found:
            inner = sorted(found, key=lambda entry: entry.name)
        for entry in inner:
            path = (*parts, entry.name)
            if entry.is_dir():
                is_loop = entry.is_symlink() and len(path) > LINKED_DEPTH
                if entry.name.startswith(".") or is_loop or len(path) > MAX_DEPTH:
                    other_folders.append(entry.name)
                    continue
                folders.append(path)
                scan(entry.path, path)
            elif is_image_name(entry.name) and stat.S_ISREG((s := entry.stat()).st_mode):
                stamp = f"{s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}"
                read = partial(read_file, Path(entry.path))
                items.append(Item(path, s.st_size, stamp, read))
            elif parts:
                other_files.append(entry.name)
            if len(items) + len(other_files) > MAX_FILES:
                raise DataError(
                    f"{printable(str(root))} holds more than {MAX_FILES:,} files.",
                    "Give the folder that holds the class folders.",
                )

    try:
        scan(root, ())
    except OSError as error:
        raise DataError(f"Cannot read {error.filename}: {error.strerror}.") from error
    return arrange(root, items, folders, other_files, other_folders)


def read_file(path: Path) -> bytes:
    """The content of an image file.

    Raises:
        NoImageError: It is too large.
        DataError: It cannot be read.
    """
    try:
        return read_regular(path, MAX_BYTES)
    except OSError as error:
        if error.errno == EFBIG:
            raise NoImageError(str(error.strerror)) from error
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error


CLASS_FOLDERS = picture_format(
    "class folders",
    lambda path: nullcontext(list_folders(path)),
    lambda path: path.is_dir() and not is_batches_folder(path),
)
