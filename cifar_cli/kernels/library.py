"""The C code of `c/`: compiled once for a machine, in seconds, if it has gcc; kept and loaded."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from cifar_cli.locking import exclusive

COMPILERS = ("gcc", "cc")  # the first one that is there
FLAGS = ("-O3", "-march=native", "-fPIC", "-std=gnu11", "-fopenmp")
SECONDS = 120.0  # after which compiling, or waiting for another process that does, is given up
WORKPLACE = "compiling-"  # how the names of folders begin in which something is compiled
MAIN = "winograd.c"  # which includes the others


def sources() -> dict[str, str]:
    """The text of each C file by its name."""
    folder = resources.files(__package__) / "c"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return {f.name: f.read_text(encoding="utf-8") for f in files if f.name.endswith((".c", ".h"))}


class Plan(ctypes.Structure):
    """`plan` of `winograd.h`, whose list of fields it takes."""

    _fields_ = [
        (name, ctypes.c_long)
        for name in re.findall(r"^    long (\w+);", sources()["winograd.h"], re.MULTILINE)
    ]

    def __init__(self, **values: int) -> None:
        assert values.keys() == {field[0] for field in self._fields_}
        super().__init__(**values)


# Arguments after the plan: pointers to the memory of tensors, in the order of `winograd.h`.
POINTERS = {"winograd_forward": 5, "winograd_backward": 7}


class Status(NamedTuple):
    """Whether compiled code is loaded; if not, why."""

    is_loaded: bool
    problem: str | None


class _UnusableError(Exception):
    """Why there is no compiled code."""


_loaded: ctypes.CDLL | None = None
_problem: str | None = None


def load(folder: Path) -> bool:
    """Load the compiled code, compiling it if it is not in `folder` yet.

    Returns:
        Whether that was possible; tried once per process.
    """
    global _loaded, _problem
    if _loaded is None and _problem is None:
        result = _library(folder)
        _loaded, _problem = (None, result) if isinstance(result, str) else (result, None)
    return _loaded is not None


def loaded() -> ctypes.CDLL:
    """The compiled code, which must have been loaded."""
    assert _loaded is not None
    return _loaded


def status() -> Status:
    """Whether this process has loaded compiled code; if not, why."""
    if _loaded is not None:
        return Status(is_loaded=True, problem=None)
    return Status(is_loaded=False, problem=_problem or "nobody has asked for it")


def _library(folder: Path) -> ctypes.CDLL | str:
    """The library, or why there is none."""
    if os.name != "posix":
        return "it cannot be checked here who has written it"
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return "there is no C compiler"
    from cifar_cli.kernels.trusted import UntrustedError, trusted_folder

    try:
        files, deadline = sources(), time.monotonic() + SECONDS
        # What the compiler predefines says which machine `native` means.
        machine = _run([compiler, *FLAGS, "-dM", "-E", "-x", "c", os.devnull], deadline)
        text = "\0".join([*files, *files.values(), *FLAGS])
        key = hashlib.sha256(text.encode() + machine).hexdigest()[:16]
        with trusted_folder(folder) as opened:
            library = _kept(folder, opened, key)
            if library is None:
                with _alone(opened, deadline) as is_alone:
                    if is_alone:
                        _clear_away(opened)
                    # Another process may have compiled it while this one waited.
                    library = _kept(folder, opened, key)
                    library = library or _made(folder, opened, key, compiler, files, deadline)
        return library
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        return f"{compiler} failed: {lines[-1] if lines else error}"
    except (OSError, subprocess.SubprocessError, UntrustedError, _UnusableError) as error:
        return str(error)


def _kept(folder: Path, opened: int, key: str) -> ctypes.CDLL | None:
    """The library that is kept in a folder, whose descriptor is `opened`, if one is."""
    from cifar_cli.kernels.trusted import UntrustedError

    for name in sorted(os.listdir(opened)):
        if name.startswith(f"tiles-{key}-") and name.endswith(".so"):
            # One that is damaged or unusable is compiled anew.
            with suppress(OSError, UntrustedError, _UnusableError):
                return _load(folder, opened, name)
    return None


def _made(
    folder: Path, opened: int, key: str, compiler: str, files: dict[str, str], deadline: float
) -> ctypes.CDLL:
    """The library, compiled now and kept."""
    with tempfile.TemporaryDirectory(
        dir=folder, prefix=WORKPLACE, ignore_cleanup_errors=True
    ) as place:
        made = Path(place) / "tiles.so"
        _compile(compiler, files, made, deadline)
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
    from cifar_cli.kernels.trusted import MOST_BYTES, open_trusted

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
    for symbol in ("panel", *POINTERS):
        if not hasattr(library, symbol):
            raise _UnusableError(f"{name} has no {symbol}")
    for symbol, pointers in POINTERS.items():
        function = getattr(library, symbol)
        function.argtypes = [ctypes.POINTER(Plan), *[ctypes.c_void_p] * pointers]
        function.restype = ctypes.c_int
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


def _compile(compiler: str, files: dict[str, str], target: Path, deadline: float) -> None:
    # What was hashed is what is compiled.
    for name, text in files.items():
        target.with_name(name).write_text(text, encoding="utf-8")
    code, compiled = target.with_name(MAIN), target.with_suffix(".o")
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
