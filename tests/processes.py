"""The real command in real processes, for faults that come as signals.

A server imports torch once and forks a process for each command, which takes milliseconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_context: Any = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["processes_preload"])
_TESTS = Path(__file__).parent
_ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(_TESTS), str(_TESTS.parent)]),  # this copy of the package
    "NO_ALBUMENTATIONS_UPDATE": "1",
}


def new_process(target: Callable[..., None], *arguments: object) -> Any:
    """A process that runs a function."""
    before = dict(os.environ)
    os.environ.update(_ENVIRONMENT)  # for the server, which starts with the first process
    process = _context.Process(target=target, args=arguments)
    process.start()
    os.environ.clear()
    os.environ.update(before)
    return process


class Running:
    """A command that runs in a process group of its own, in `folder`."""

    def __init__(
        self, folder: Path, *arguments: object, fault: Callable[..., None] | None = None
    ) -> None:
        self.output = folder / f"output-{time.monotonic_ns()}"
        own = {k: v for k, v in os.environ.items() if k.startswith("CIFAR_RESNET_")}
        self.process = new_process(_main, folder, [*map(str, arguments)], self.output, own, fault)

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        return int(self.process.pid)

    def wait_for(self, what: Callable[[], object], seconds: float = 60) -> None:
        """Wait until `what()` is true while the command runs."""
        deadline = time.monotonic() + seconds
        while not what():
            assert self.process.exitcode is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.0005)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process alone."""
        os.kill(self.pid, number)

    def end(self, seconds: float = 60) -> int:
        """Wait for the end; the exit code, as a shell gives it."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            os.killpg(self.pid, signal.SIGKILL)
        assert code is not None, f"still running after {seconds} s: {self.text()}"
        return int(code if code >= 0 else 128 - code)

    def text(self) -> str:
        """What the command has printed so far."""
        return self.output.read_text() if self.output.exists() else ""


def ends(condition: Callable[[], bool]) -> bool:
    """Whether something comes about within 20 s."""
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _main(
    folder: Path,
    arguments: list[str],
    output: Path,
    environment: dict[str, str],
    fault: Callable[..., None] | None,
) -> None:
    multiprocessing.set_start_method(None, force=True)  # loaders start as they do for users
    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    if fault:
        fault()
    from cifar_cli.cli.app import run

    code = run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
