"""Files that are whole or not there, and errors of writing that name the path and the size."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cifar_cli.errors import StorageError


@contextmanager
def storage_errors(path: Path, size: int | None = None) -> Iterator[Path]:
    """Turn an `OSError` of writing `path` into a `StorageError`; `size` in bytes, where known."""
    try:
        yield path
    except OSError as error:
        reason = error.strerror or str(error)
        bytes_ = f" ({size:,} bytes)" if size is not None else ""
        raise StorageError(
            f"Cannot write {path}{bytes_}: {reason}. Free some space or choose another place."
        ) from error


@contextmanager
def atomic_file(path: Path, size: int | None = None, keep: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; afterwards sync it and rename it to `path`.

    A reader sees the old file or the whole new one. After an error nothing is left. What is
    replaced stays under the name `keep`, if one is given.

    Raises:
        StorageError: The file cannot be written; it names `size`, in bytes, where that is given.
    """
    temporary = _temporary(path)
    try:
        with storage_errors(path, size):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            if keep and path.is_file():
                _keep(path, keep)
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes | bytearray, keep: Path | None = None) -> None:
    """Write bytes atomically; what they replace stays under the name `keep`, if one is given."""
    with atomic_file(path, len(data), keep) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; bytes of names that are none stand in it as escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of plain values as CSV, atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def remove_temporary(folder: Path) -> None:
    """Remove what a killed process left half-written; only for a folder with one writer."""
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            path.unlink()


def check_place(path: Path) -> None:
    """Refuse early what could not be written in the end: the folder `path`, made or not.

    Raises:
        StorageError: Something on the way to it is no folder, or may not be written to.
    """
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    reason = None
    if not place.is_dir():
        reason = f"{place} is not a folder"
    elif not os.access(place, os.W_OK | os.X_OK):
        reason = f"{place} may not be written to"
    if reason:
        raise StorageError(f"Cannot write {path}: {reason}. Choose another place.")


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut (POSIX; elsewhere nothing)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _keep(path: Path, keep: Path) -> None:
    """Give a file a second name, or, where the file system has no links, another one."""
    link = _temporary(keep)
    try:
        try:
            link.hardlink_to(path)
        except OSError:
            path.replace(keep)
        else:
            link.replace(keep)
    finally:
        with suppress(OSError):
            link.unlink(missing_ok=True)
