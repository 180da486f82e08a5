"""The small files of a run, which may hold anything: JSON, and lines that are appended."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from cifar_cli.storage import (
    is_replaceable,
    open_own,
    read_regular,
    storage_errors,
    write_bytes,
)

MAX_JSON = 4 * 2**20


def append_text(path: Path, text: str, limit: int) -> None:
    """Append UTF-8 text to a regular file, which is made if it is missing.

    Links are not written through: a symbolic one is refused, and a file that has a second name, as
    in a copy that hard links made, or that may not be written to, becomes one of its own, if it
    has at most `limit` bytes.

    Raises:
        StorageError: It cannot be written.
    """
    with storage_errors(path):
        if not is_replaceable(path):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        if path.exists() and (path.stat().st_nlink > 1 or not os.access(path, os.W_OK)):
            write_bytes(path, read_regular(path, limit) + text.encode())
            return
        with open_own(path, append=True) as file:
            file.write(text.encode())


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        OSError: The file cannot be read; see `storage.read_regular`.
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


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def read_events(path: Path, limit: int) -> list[dict[str, Any]]:
    """The lines of `events.jsonl` that are JSON objects; empty if it cannot be read.

    Args:
        path: The file, of at most `limit` bytes.
    """
    events = []
    try:
        lines = read_regular(path, limit).splitlines()
    except OSError:
        return []
    for line in lines:
        with suppress(ValueError, RecursionError):
            event = json.loads(line, parse_constant=_no_number)
            events += [event] if isinstance(event, dict) else []
    return events
