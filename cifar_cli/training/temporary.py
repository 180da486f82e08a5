"""A folder for temporary files, and what to do if there is none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cifar_cli.errors import StorageError

SET_ONE = "Set TMPDIR to a folder that can be written to."


def name_temporary_folder() -> bool:
    """Have `tempfile` name a folder even if it finds none that can be written to.

    torch and torch-lr-finder ask for the name when they are loaded, and fail without one, though
    they write nothing there.

    Returns:
        Whether it can be written to.
    """
    try:
        tempfile.gettempdir()
    except OSError:
        tempfile.tempdir = os.environ.get("TMPDIR") or f"{os.sep}tmp"
        return False
    return True


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder for a `with` block, and remove it with all that is in it.

    Raises:
        StorageError: It cannot be made.
    """
    try:
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    except OSError as error:
        why = error.strerror or error
        raise StorageError(f"Cannot make a temporary folder: {why}.", SET_ONE) from error
    with folder as path:
        yield Path(path)
