"""The one table from an exception to a message and an exit code."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Sequence
from types import TracebackType

from cifar_cli.errors import INSTALL_AGAIN, CifarError, OutOfMemoryError, is_out_of_memory
from cifar_cli.limits import memory_limit
from cifar_cli.text import printable

_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.EAGAIN)


def fail(message: str, code: int) -> int:
    """Print the message of an error on stderr, if there is one, and return its exit code."""
    if message:  # none, for example, of a group without a command, which has shown its help
        print(printable(f"Error: {message}" if code < 128 else message), file=sys.stderr)
    return code


def explain(error: BaseException, arguments: Sequence[str] = ()) -> tuple[str, int]:
    """What went wrong and what to do, and the exit code."""
    if isinstance(error, CifarError):
        return str(error), error.exit_code
    # Typer's and click's own errors of usage know their code and text.
    show = getattr(error, "format_message", None)
    if show is not None and hasattr(error, "exit_code"):
        return _with_value(str(show()).strip(), arguments), int(error.exit_code)
    package = _imported(error)
    if is_out_of_memory(error):
        what = f"loading {package} needs more than there is" if package else "there is too little"
        return (
            f"Out of memory: {what}{_limit()}. Close other programs, or raise the limit of this "
            "process or container."
        ), OutOfMemoryError.exit_code
    if package:
        return (
            f"Cannot load {package} ({type(error).__name__}: {error!s:.200}). Something of the "
            "installation is missing or does not fit: look with cifar-resnet doctor, or "
            f"{INSTALL_AGAIN}"
        ), 2
    if isinstance(error, OSError) and error.errno is not None:
        return _of_system(error)
    return (
        f"Internal error: {type(error).__name__}: {error}. "
        "Run it again with --debug (before the command) and report what it prints."
    ), 1


def _of_system(error: OSError) -> tuple[str, int]:
    if error.errno in _RESOURCES:
        return (
            f"The system gives no more ({error.strerror}). Close other programs, or raise the "
            "limit of open files and processes (ulimit -n, ulimit -u)."
        ), OutOfMemoryError.exit_code
    if isinstance(error.filename, str | bytes | os.PathLike):
        # A path that cannot even be looked at: its name too long, its folder closed.
        name = str.__str__(os.fsdecode(error.filename))  # of a program it may be an enum's member
        return f"Cannot use the path {name!r:.90}: {error.strerror}. Give another one.", (
            7 if error.errno in _STORAGE else 2
        )
    return f"The system refuses: {error.strerror or error}.", 7


def _imported(error: BaseException) -> str:
    """The package in whose import an exception was raised, or an empty string."""
    name = own = ""
    trace: TracebackType | None = error.__traceback__
    while trace:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        # A module's own lines run while it is imported, but for those of the program itself.
        if trace.tb_frame.f_code.co_name == "<module>" and module != "__main__":
            if _package(module) == "cifar_cli":
                own = module
            else:
                name = module
        trace = trace.tb_next
    if isinstance(error, ModuleNotFoundError):
        name = error.name or name
    elif isinstance(error, ImportError):
        name = name or error.name or "a library"
    return _package(name or own)


def _package(module: str) -> str:
    return module.partition(".")[0]


def _limit() -> str:
    """The limit of this process's memory, if there is one."""
    found = memory_limit()
    if found is None:
        return ""
    option, limit = found
    return f" (this process may take {limit / 2**30:.1f} GiB: ulimit -{option})"


def _with_value(message: str, arguments: Sequence[str]) -> str:
    """Add the value that was given, which not every message of Typer's names."""
    if named := re.match(r"Invalid value for '(--[\w-]+)'", message):
        for text, following in zip(arguments, [*arguments[1:], ""], strict=True):
            option, equals, value = text.partition("=")
            value = value if equals else following
            if option == named[1] and value not in message:
                message = f"{named[0]}: {value!r}{message[named.end() :]}"
    if not message:
        return ""
    end = "" if message.endswith(("?", ".")) else "."
    return f"{message}{end} Try --help."
