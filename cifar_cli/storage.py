"""Files that are whole or not there, and errors of writing that name the path and the size.

Files are written under random names that nobody can foresee, never through a link, and only
regular files of a bounded size are read.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import translate
from pathlib import Path
from typing import Any, BinaryIO

from cifar_cli.errors import StorageError

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp", re.DOTALL)  # .NAME.TOKEN.tmp
_PROBE = "probe"
_NAME_BYTES = 200  # of a file's name that its temporary name repeats; a name takes 255
# What file systems answer that cannot sync. All else, such as EIO, is a failure to write.
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
# Flags that not every system has, and of which each keeps a way of being held up or led astray off.
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_PLAIN = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def storage_errors(path: Path, size: int | None = None) -> Iterator[Path]:
    """Turn an `OSError` of writing `path` into a `StorageError`; `size` in bytes, where known."""
    try:
        yield path
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # too many open files: no fault of the place
        reason = error.strerror or str(error)
        bytes_ = f" ({size:,} bytes)" if size is not None else ""
        raise StorageError(
            f"Cannot write {path}{bytes_}: {reason}.", "Free some space or choose another place."
        ) from error


@contextmanager
def atomic_file(
    path: Path, size: int | None = None, keep: Path | None = None
) -> Iterator[BinaryIO]:
    """Yield a new file beside `path`, open for writing; afterwards sync it and rename it to `path`.

    A reader sees the old file or the whole new one. After an error nothing is left. What is
    replaced stays under the name `keep`, if one is given.

    Raises:
        StorageError: The file cannot be written; it names `size`, in bytes, where that is given.
    """
    temporary = _temporary(path)
    is_made = False
    try:
        with storage_errors(path, size):
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK | _PLAIN
            descriptor = os.open(temporary, flags, 0o666)
            is_made = True
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                _sync(file.fileno())
            if keep and path.is_file():
                _keep(path, keep)
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        if is_made:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes | bytearray, keep: Path | None = None) -> None:
    """Write bytes atomically; what they replace stays under the name `keep`, if one is given."""
    with atomic_file(path, len(data), keep) as file:
        file.write(data)


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


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, at once: a FIFO, a device or a folder is refused.

    Raises:
        OSError: It cannot be opened, or is no such file.
    """
    _need_regular(path.stat(), path)  # opening a device would already do something
    file = os.fdopen(os.open(path, os.O_RDONLY | _NO_WAIT | _PLAIN), "rb")
    try:
        _need_regular(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: Path, at_most: int) -> bytes:
    """The content of a regular file of at most so many bytes.

    Raises:
        OSError: It cannot be read, is not a regular file, or is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > at_most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, at most {at_most:,} are read", path)
        return file.read(size)  # files of the system, which have no end, say that they have 0


def is_replaceable(path: Path) -> bool:
    """Whether `path` is free or a regular file: no link, FIFO, device or folder has that name."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def open_own(path: Path, *, append: bool) -> BinaryIO:
    """Open a file that this program alone writes, to append to it or to start it over.

    Raises:
        OSError: It cannot be opened, or is a link, has a second name, or is not a regular file.
    """
    flags = os.O_WRONLY | os.O_CREAT | _NO_LINK | _NO_WAIT | _PLAIN
    file = os.fdopen(os.open(path, flags | (os.O_APPEND if append else 0), 0o666), "wb")
    try:
        found = os.fstat(file.fileno())
        _need_regular(found, path)
        if found.st_nlink > 1:
            raise OSError(errno.EMLINK, "it is a hard link to another file", path)
        if not append:
            file.truncate(0)
    except OSError:
        file.close()
        raise
    return file


def remove_temporary(folder: Path, names: Iterable[str], older_than: float = 0) -> None:
    """Remove what a killed process left half-written.

    Args:
        folder: A folder with one writer, or with several that never write for so long:
        names: Patterns of the names of the files that this program writes there.
        older_than: Seconds since the file was changed.
    """
    ours = [re.compile(translate(_shortened(name))) for name in (*names, _PROBE)]
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            about = os.lstat(path)
            found = _TEMPORARY.fullmatch(path.name)
            is_ours = found is not None and any(name.fullmatch(found[1]) for name in ours)
            is_old = time.time() - about.st_mtime >= older_than
            if is_ours and is_old and stat.S_ISREG(about.st_mode):
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
        raise StorageError(f"Cannot write {path}: {reason}.", "Choose another place.")


def check_writable(folder: Path) -> None:
    """Find out whether files can be written to a folder, which is made if it is missing.

    Raises:
        StorageError: They cannot.
    """
    probe = _temporary(folder / _PROBE)
    with storage_errors(folder):
        folder.mkdir(exist_ok=True)
        with probe.open("xb"):
            pass
        probe.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut (POSIX; elsewhere nothing)."""
    if os.name == "posix":
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except PermissionError:
            return  # it may be written to but not listed
        try:
            _sync(descriptor)
        finally:
            os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _need_regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise OSError(number, "it is not a regular file", path)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{_shortened(path.name)}.{secrets.token_hex(8)}.tmp")


def _shortened(name: str) -> str:
    return name if len(os.fsencode(name)) <= _NAME_BYTES else name[:50]


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
