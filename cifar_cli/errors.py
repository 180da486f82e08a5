"""Every error a user can meet, each with the exit code of the command line."""

from __future__ import annotations

import difflib
import errno
import importlib.util
import re
from collections.abc import Iterable

# What says of an error that memory was wanted: torch's on a CPU, cuBLAS's and cuDNN's, and the
# loader's, of a library that does not fit into the address space.
_NO_MEMORY = re.compile(
    "allocate memory|out of memory|ALLOC(ATION)?_FAILED|bad_alloc|failed to map segment|"
    "cannot create shared object descriptor|can't start new thread"
)
INSTALL_AGAIN = "install it again, in the folder of its source: pip install --force-reinstall ."
MAX_FOLDERS = 200
MAX_NAME_BYTES = 255  # of one file or folder, on every file system in use


class CifarError(Exception):
    """Base of all errors meant for users.

    Args:
        what: What is wrong, with the value at fault; a sentence.
        remedy: What to do about it; empty if nothing is known.
    """

    exit_code = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what} {remedy}" if remedy else what)
        self.what, self.remedy = what, remedy


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

    def __init__(self, what: str, remedy: str = "", signal_number: int = 2) -> None:
        super().__init__(what, remedy)
        self.exit_code = 128 + signal_number


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python, torch or the system says that memory ran out."""
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if isinstance(error, RuntimeError | ImportError | OSError):
        return bool(_NO_MEMORY.search(str(error)))
    return isinstance(error, MemoryError)


def check_extra(extra: str, packages: Iterable[str], what: str) -> None:
    """Find out, without importing them, whether the packages of an extra are installed.

    Args:
        extra: Extra of this package that installs them.
        packages: Modules that are needed.
        what: What needs them, as the start of a sentence.

    Raises:
        ConfigError: One is missing; the message names the extra.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{what} needs {' and '.join(missing)}, which is not installed.",
            f"Install the extra, in the folder of the source: pip install '.[{extra}]'",
        )


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
