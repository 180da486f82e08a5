"""The compiled code for Winograd's convolutions, if this machine has gcc.

It is compiled once for a machine, in seconds, and kept.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cifar_cli.locking import exclusive
from cifar_cli.models.c_source import EXPORTED, c_source

COMPILERS = ("gcc", "cc")  # the first one that is there
FLAGS = ("-O3", "-march=native", "-fPIC", "-std=gnu11", "-fopenmp")
SECONDS = 120.0  # after which compiling, or waiting for another process that does, is given up
WORKPLACE = "compiling-"  # how the names of folders begin in which something is compiled

_loaded: ctypes.CDLL | None = None
_problem: str | None = None


class _UnusableError(Exception):
    """Why there is no compiled code."""


def load(folder: Path) -> bool:
    """Make the compiled code usable, compiling it if it is not in `folder` yet.

    Returns:
        Whether that was possible; found out once for a process.
    """
    global _loaded, _problem
    if _loaded is None and _problem is None:
        found = _library(folder)
        _loaded, _problem = (None, found) if isinstance(found, str) else (found, None)
    return is_loaded()


def is_loaded() -> bool:
    """Whether the compiled code can be used."""
    return _loaded is not None


def library() -> ctypes.CDLL:
    """The compiled code, which must have been loaded."""
    assert _loaded is not None
    return _loaded


def problem() -> str:
    """Why it cannot be used."""
    return _problem or "nobody has asked for it"


def _library(folder: Path) -> ctypes.CDLL | str:
    """The library, or why there is none."""
    if os.name != "posix":
        return "it cannot be checked here who has written it"
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return "there is no C compiler"
    from cifar_cli.models.trusted import UntrustedError, trusted_folder

    try:
        source, deadline = c_source(), time.monotonic() + SECONDS
        # Which machine `native` means is told by what the compiler defines for it.
        machine = _run([compiler, *FLAGS, "-dM", "-E", "-x", "c", os.devnull], deadline)
        key = hashlib.sha256("\0".join([source, *FLAGS]).encode() + machine).hexdigest()[:16]
        with trusted_folder(folder) as opened:
            found = _kept(folder, opened, key)
            if found is None:
                with _alone(opened, deadline) as is_alone:
                    if is_alone:
                        _clear_away(opened)
                    # Another process may have compiled it while this one waited.
                    found = _kept(folder, opened, key)
                    found = found or _made(folder, opened, key, compiler, source, deadline)
        return found
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        return f"{compiler} failed: {lines[-1] if lines else error}"
    except (OSError, subprocess.SubprocessError, UntrustedError, _UnusableError) as error:
        return str(error)


def _kept(folder: Path, opened: int, key: str) -> ctypes.CDLL | None:
    """The library that is kept in a folder, whose descriptor is `opened`, if one is."""
    from cifar_cli.models.trusted import UntrustedError

    for name in sorted(os.listdir(opened)):
        if name.startswith(f"tiles-{key}-") and name.endswith(".so"):
            # One that is damaged or unusable is compiled anew.
            with suppress(OSError, UntrustedError, _UnusableError):
                return _load(folder, opened, name)
    return None


def _made(
    folder: Path, opened: int, key: str, compiler: str, source: str, deadline: float
) -> ctypes.CDLL:
    """The library, compiled now and kept."""
    with tempfile.TemporaryDirectory(
        dir=folder, prefix=WORKPLACE, ignore_cleanup_errors=True
    ) as place:
        made = Path(place) / "tiles.so"
        _compile(compiler, source, made, deadline)
        name = f"tiles-{key}-{_digest(made.read_bytes())}.so"
        made.chmod(0o700)
        os.rename(made, name, dst_dir_fd=opened)
    return _load(folder, opened, name)


def _clear_away(opened: int) -> None:
    """Remove what was left by processes that were killed while they compiled."""
    for name in os.listdir(opened):
        if name.startswith(WORKPLACE):
            shutil.rmtree(name, ignore_errors=True, dir_fd=opened)


def _load(folder: Path, opened: int, name: str) -> ctypes.CDLL:
    """Load a library whose name ends with the hash of its content."""
    from cifar_cli.models.trusted import MOST_BYTES, open_trusted

    descriptor = open_trusted(opened, name)
    try:
        with os.fdopen(os.dup(descriptor), "rb") as file:
            content = file.read(MOST_BYTES)
        # Damaged machine code would end the whole process.
        if not name.endswith(f"-{_digest(content)}.so"):
            raise _UnusableError(f"{name} is damaged")
        # The file that was checked, whatever has that name by now.
        checked = Path(f"/proc/self/fd/{descriptor}")
        library = ctypes.CDLL(os.fspath(checked if checked.exists() else folder / name))
    except BaseException:
        os.close(descriptor)
        raise
    # It stays open: the system's loader knows a library by that number, which must not come again.
    if missing := [symbol for symbol in EXPORTED if not hasattr(library, symbol)]:
        raise _UnusableError(f"{name} has no {missing[0]}")
    return library


@contextmanager
def _alone(opened: int, deadline: float) -> Iterator[bool]:
    """Be the only process that compiles in a folder; False if its file system has no locks."""
    lock = os.open(".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=opened)
    try:
        with exclusive(lock, deadline - time.monotonic()) as is_alone:
            yield is_alone
    except BlockingIOError:
        raise _UnusableError("another process takes too long to compile it") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _compile(compiler: str, source: str, target: Path, deadline: float) -> None:
    code, compiled = target.with_suffix(".c"), target.with_suffix(".o")
    code.write_text(source, encoding="utf-8")
    # The compiler's own files go there too: there may be no other place for temporary files.
    place = os.fspath(target.parent)
    _run([compiler, *FLAGS, "-c", os.fspath(code), "-o", os.fspath(compiled)], deadline, place)
    # Linked without OpenMP's library: torch's own is found when loading, and a second one would
    # bring threads of its own.
    _run([compiler, "-shared", os.fspath(compiled), "-o", os.fspath(target)], deadline, place)


def _run(command: Sequence[str], deadline: float, place: str = "") -> bytes:
    """Run the compiler, and end it with all that it has started whatever happens here."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
        env={**os.environ, "LC_ALL": "C"} | ({"TMPDIR": place} if place else {}),
    )
    try:
        out, err = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()
        if isinstance(error, subprocess.TimeoutExpired):
            raise _UnusableError(f"{command[0]} took longer than {SECONDS:.0f} s") from None
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, out, err)
    return out
