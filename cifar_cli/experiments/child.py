"""Commands in processes of their own, which do not outlive this one's being stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from cifar_cli.config.loading import without_settings
from cifar_cli.errors import CifarError, ConfigError, Interrupted, OutOfMemoryError
from cifar_cli.stops import STOPS
from cifar_cli.training.temporary import temporary_folder

GRACE = 30.0
"""Seconds in which a child that is told to stop may save."""
# What the system sends for lack of memory; SIGBUS for lack of shared memory.
NO_MEMORY = ("SIGKILL", "SIGBUS")


def call(title: str, arguments: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a command in a process of its own; its JSON document, and what it used.

    If this process is stopped, by a signal or otherwise, the command is stopped before.

    Args:
        title: What it is for, in errors.
        arguments: The command, without `--json` and `--quiet`.

    Raises:
        CifarError: It failed; with its own message and exit code.
        Interrupted: This process was told to stop.
    """
    command = own_command([*arguments, "--json", "--quiet"])
    with temporary_folder() as folder, _Stops(title) as stops:
        started = time.perf_counter()
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            environment = without_settings(os.environ)  # the configuration has them
            process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
            try:
                stops.arm()
                _, status, used = os.wait4(process.pid, 0)
            except BaseException:
                stop(process)
                raise
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = [(folder / name).read_bytes().decode(errors="replace") for name in ("out", "err")]
    if process.returncode:
        raise _failure(title, process.returncode, texts[1])
    scale = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return _document(texts[0], title), {
        "process_seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * scale,
    }


def _document(printed: str, title: str) -> dict[str, Any]:
    """The command's document, among what sitecustomize and libraries may have printed."""
    decoder = json.JSONDecoder()
    for found in re.finditer(r"\{", printed):
        with suppress(ValueError, RecursionError):
            document, _ = decoder.raw_decode(printed, found.start())
            if "schema_version" in document:
                result: dict[str, Any] = document
                return result
    raise ConfigError(f"{title}: it printed no result.", "Run that command by itself to see why.")


class _Stops:
    """Signals that end this process raise an error instead, so that no child is left behind.

    In the main thread only. A signal that is ignored, as by `nohup`, stays ignored.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._number: int | None = None
        self._is_armed = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Stops:
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in STOPS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def arm(self) -> None:
        """Raise from now on, and at once if a signal came while the child was being started."""
        self._is_armed = True
        if self._number is not None:
            self._raise(self._number)

    def _note(self, number: int, _: object) -> None:
        self._number = number
        if self._is_armed:
            self._raise(number)

    def _raise(self, number: int) -> NoReturn:
        for other in self._before:
            signal.signal(other, signal.SIG_IGN)  # once is enough: the child has its time limit
        raise Interrupted(
            f"Stopped while {self.title} ran.", "Run bench again to continue.", number
        )


def own_command(arguments: Sequence[str]) -> list[str]:
    """How to run a command of this program in a process that does not outlive this one."""
    program = f"from cifar_cli.__main__ import main; main(parent={os.getpid()})"
    return [sys.executable, "-P", "-c", program, *arguments]


def stop(*processes: subprocess.Popen[bytes]) -> None:
    """End children: politely, so that they can save, and for certain."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + GRACE
    try:
        for process in processes:
            process.wait(max(0.0, until - time.monotonic()))
    except BaseException:  # it takes too long, or Ctrl-C came again
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _failure(title: str, code: int, said: str) -> CifarError:
    lines = said.strip().splitlines()
    if code > 0:
        error = CifarError(f"{title}: {lines[-1].removeprefix('Error: ') if lines else 'failed.'}")
        error.exit_code = code
        return error
    number = -code
    name = signal_name(number)
    message = f"{title}: its process was killed by {name}"
    if name in NO_MEMORY:
        return OutOfMemoryError(
            f"{message}, as systems do for lack of memory.",
            "Free some memory, or run less at once.",
        )
    if number in STOPS:
        return Interrupted(f"{message}.", signal_number=number)
    return CifarError(f"{message}.", "Run that command by itself to see why.")


def signal_name(number: int) -> str:
    """Its name, such as SIGKILL."""
    names = {known.value: known.name for known in signal.Signals}
    return names.get(number, f"signal {number}")
