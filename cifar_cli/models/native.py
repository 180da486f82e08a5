"""The compiled code for Winograd's convolutions, where this machine has gcc.

It is compiled once for a machine, in seconds, and kept.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cifar_cli.models.c_source import c_source

COMPILERS = ("gcc", "cc")  # the first one that is there
FLAGS = ("-O3", "-march=native", "-fPIC", "-std=gnu11", "-fopenmp")
SECONDS = 120.0  # after which compiling is given up

_loaded: ctypes.CDLL | None = None
_problem: str | None = None


def load(folder: Path) -> bool:
    """Make the compiled code usable, compiling it where it is not in `folder` yet.

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
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return "there is no C compiler"
    try:
        source = c_source()
        # Which machine `native` means is told by what the compiler defines for it.
        machine = _run([compiler, *FLAGS, "-dM", "-E", "-x", "c", os.devnull])
        key = hashlib.sha256("\0".join([source, *FLAGS]).encode() + machine).hexdigest()[:16]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_own(folder):
            return f"others may write to {folder}"
        for kept in folder.glob(f"tiles-{key}-*.so"):
            # Damaged machine code would end the whole process.
            if _is_own(kept) and kept.stem.endswith(_digest(kept)):
                return ctypes.CDLL(os.fspath(kept))
        with tempfile.TemporaryDirectory(dir=folder) as place:
            made = Path(place) / "tiles.so"
            _compile(compiler, source, made)
            kept = folder / f"tiles-{key}-{_digest(made)}.so"
            made.chmod(0o700)
            made.replace(kept)
        return ctypes.CDLL(os.fspath(kept))
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        return f"{compiler} failed: {lines[-1] if lines else error}"
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)


def _is_own(path: Path) -> bool:
    """Whether nobody else can have put there what is about to be run."""
    about = path.stat()
    return not hasattr(os, "geteuid") or (
        about.st_uid == os.geteuid() and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _compile(compiler: str, source: str, target: Path) -> None:
    code, compiled = target.with_suffix(".c"), target.with_suffix(".o")
    code.write_text(source, encoding="utf-8")
    _run([compiler, *FLAGS, "-c", os.fspath(code), "-o", os.fspath(compiled)])
    # Linked without OpenMP's library: torch's own is found when loading, and a second one would
    # bring threads of its own.
    _run([compiler, "-shared", os.fspath(compiled), "-o", os.fspath(target)])


def _run(command: Sequence[str]) -> bytes:
    done = subprocess.run(
        command, check=True, capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL
    )
    return done.stdout
