"""Every error a user can meet, each with the exit code of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_FOLDERS = 200
MAX_NAME_BYTES = 255  # of one file or folder, on every file system in use


class CifarError(Exception):
    """Base of all errors meant for users: one short message with a remedy, and an exit code."""

    exit_code = 1


class ConfigError(CifarError):
    """A wrong option, setting, recipe or configuration file."""

    exit_code = 2


class DataError(CifarError):
    """Images that cannot be found, downloaded, verified or decoded."""

    exit_code = 3


class CheckpointError(CifarError):
    """A run or checkpoint that is missing, damaged or does not fit."""

    exit_code = 4


class DivergedError(CifarError):
    """A loss, gradient or logit that is not finite, or a quality gate that was missed."""

    exit_code = 5


class OutOfMemoryError(CifarError):
    """The device ran out of memory."""

    exit_code = 6


class StorageError(CifarError):
    """A file or folder that cannot be written."""

    exit_code = 7


class Interrupted(CifarError):  # noqa: N818 - an interruption is not an error of the program
    """A stop that was asked for by a signal, after everything was saved."""

    def __init__(self, message: str, signal_number: int = 2) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def path_problem(text: str) -> str:
    """Why no file can have that name; empty where one can."""
    if "\0" in text:
        return "holds a zero byte"
    if text.count("/") > MAX_FOLDERS:
        return "is nested too deeply"
    try:
        longest = max(len(name.encode()) for name in text.split("/"))
    except UnicodeEncodeError:
        return "is not UTF-8 text"
    if longest > MAX_NAME_BYTES:
        # Asked whether such a file exists, Python 3.14 says no and earlier ones raise an error.
        return f"has a name of {longest} bytes, and a path takes {MAX_NAME_BYTES}"
    return ""


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest of ``known``, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
