"""Pictures named on a command line: files, folders, patterns, and lists on standard input."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cifar_cli.data.sources.folder import MAX_DEPTH
from cifar_cli.data.sources.listing import is_image_name

_BLOCK = 2**16
MAX_PATH_BYTES = 2**16
"""A longer line of standard input is no path."""


class Found(NamedTuple):
    """A file that may be a picture."""

    file: str
    error: str = ""
    """Why there is none."""


def find_pictures(paths: Iterable[str]) -> Iterator[Found]:
    """The files that paths name, one by one, as they are found.

    A file is taken whatever its name. Of a folder, and of all folders in it, the files with the
    ending of an image are taken, in the order of their names; hidden ones and links to folders
    are passed over. A pattern (`*`, `?`, `[abc]`, `**`) stands for what matches it.
    """
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 - takes what no path can be, too
            yield from _in_folder(path)
        elif os.path.lexists(path) or not glob.has_magic(path):
            yield _one(path)
        else:
            matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - as a shell does it
            if not matches:
                yield Found(path, "no file matches this pattern")
            for match in matches:
                is_folder = os.path.isdir(match)  # noqa: PTH112
                if is_folder and not path.endswith("**"):
                    yield from _in_folder(match)
                elif not is_folder:
                    yield Found(match)


def may_be_picture(path: str) -> bool:
    """Whether something is there, or the name is a pattern or that of an image file."""
    return os.path.lexists(path) or glob.has_magic(path) or is_image_name(Path(path).name)


def paths_of(stream: BinaryIO) -> Iterator[str]:
    """Paths from a stream, one a line, or separated by NUL bytes if its first block has one."""
    left, separator = b"", b""
    while block := stream.read(_BLOCK):
        separator = separator or (b"\0" if b"\0" in block else b"\n")
        *whole, left = (left + block).split(separator)
        left = left[:MAX_PATH_BYTES]
        yield from _decoded(whole, separator)
    yield from _decoded([left], separator)


def _decoded(names: Iterable[bytes], separator: bytes) -> Iterator[str]:
    for name in names:
        if separator == b"\n":
            name = name.removesuffix(b"\r")
        if name:
            yield os.fsdecode(name)


def _one(path: str) -> Found:
    try:
        os.stat(path)  # noqa: PTH116 - takes what no path can be, too
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Found(path, f"it cannot be opened: {reason}")
    return Found(path)


def _in_folder(folder: str, depth: int = 0) -> Iterator[Found]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield Found(folder, f"it cannot be listed: {error.strerror}")
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if not entry.name.startswith(".") and depth < MAX_DEPTH:
                yield from _in_folder(entry.path, depth + 1)
        elif is_image_name(entry.name) and not Path(entry.path).is_dir():
            yield Found(entry.path)
