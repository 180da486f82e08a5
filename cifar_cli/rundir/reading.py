"""Files that may hold anything: only regular ones of a bounded size are opened."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from cifar_cli.storage import storage_errors

MAX_JSON = 4 * 2**20
# A FIFO that nobody writes to would block; on Windows neither of the two exists, or is needed.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_APPEND = (
    os.O_WRONLY | os.O_APPEND | os.O_CREAT
    | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
)  # fmt: skip


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; the caller closes it.

    Raises:
        OSError: There is none, or what lies there is a folder, a FIFO or a device.
    """
    _check_regular(path.stat(), path)  # opening a device may have effects of its own
    descriptor = os.open(path, _READ)
    try:
        _check_regular(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        OSError: As of `open_regular`, or it is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(limit + 1) if size <= limit else b""
    if max(size, len(data)) > limit:
        what = f"it has {max(size, len(data)):,} bytes, and {limit:,} are the most"
        raise OSError(errno.EFBIG, what, os.fspath(path))
    return data


def append_text(path: Path, text: str) -> None:
    """Append UTF-8 text to a regular file, which is made if it is missing; links are not followed.

    Raises:
        StorageError: It cannot be written.
    """
    with storage_errors(path):
        if os.path.lexists(path):
            _check_regular(path.lstat(), path)
        descriptor = os.open(path, _APPEND, 0o666)
        with os.fdopen(descriptor, "ab") as file:
            _check_regular(os.fstat(descriptor), path)
            file.write(text.encode())


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        OSError: The file cannot be read; see `read_regular`.
        ValueError: It holds something else; NaN and infinity are no JSON.
    """
    data = read_regular(path, MAX_JSON)
    try:
        value = json.loads(data, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def reason_of(error: OSError | ValueError) -> str:
    """Why a file could not be read, for a message that names it."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else f"{error!s:.100}"


def _check_regular(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
