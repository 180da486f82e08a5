"""A process that is killed, or whose disk is full, at one certain system call."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from processes import Running
from stopped import FLAGS, same_run

from cifar_cli.rundir import RunDir

# All that a run makes, moves, makes last or removes, it does by these; data in between is in files
# that have no name yet or are thrown away.
CALLS = ("replace", "rename", "fsync", "unlink", "remove", "link", "mkdir", "rmdir")
_STARTS = threading.Lock()
TWO_EPOCHS = [*FLAGS, "--quiet", "--run-dir", "run", "--resume"]


def watch_calls(folder: str, at: int, how: str) -> None:
    """Kill this process before its call number `at` on what lies in `folder`, or fail the call.

    Args:
        folder: Calls elsewhere, such as on caches, are not counted.
        at: From 1; 0 only counts.
        how: `kill`, or `full` for a disk without space.
    """
    state = {"count": 0}
    for name in CALLS:
        setattr(os, name, _watched(getattr(os, name), folder, at, how, state))


def _watched(
    function: Callable[..., Any], folder: str, at: int, how: str, state: dict[str, int]
) -> Callable[..., Any]:
    def call(target: Any, *arguments: Any, **options: Any) -> Any:
        is_open = isinstance(target, int)
        path = Path(f"/proc/self/fd/{target}").readlink() if is_open else Path(target).absolute()
        if str(path).startswith(folder):
            state["count"] += 1
            if at == 0:
                (Path(folder).parent / "count").write_text(str(state["count"]))
            elif state["count"] == at and how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif state["count"] == at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return function(target, *arguments, **options)

    return call


def start(folder: Path, at: int = -1, how: str = "kill") -> Running:
    """Start or resume the run `run` in `folder`, where call number `at` is the last."""
    folder.mkdir(exist_ok=True)
    fault = partial(watch_calls, str(folder / "run"), at, how)
    with _STARTS:  # a start changes the environment for a moment
        return Running(folder, "train", *TWO_EPOCHS, fault=fault)


def count_calls(folder: Path) -> tuple[int, RunDir]:
    """How many calls a whole run makes, and that run."""
    process = start(folder, 0)
    assert process.end() == 0, process.text()
    return int((folder / "count").read_text()), RunDir(folder / "run")


def check(folder: Path, at: int, how: str, whole: RunDir) -> str:
    """Break a run at a call and resume it; what is wrong then, or an empty text."""
    process = start(folder, at, how)
    code = process.end()
    # Some calls may fail without harm, such as those that clear away.
    if code not in {"kill": (137,), "full": (7, 0)}[how]:
        return f"{how} at call {at}: exit code {code}: {process.text()}"
    process = start(folder)
    if code := process.end():
        return f"{how} at call {at}: the resume ends with {code}: {process.text()}"
    if names := [p.name for p in folder.glob("run*") if p.name != "run"]:
        return f"{how} at call {at}: there is also {names[0]}"
    run = RunDir(folder / "run")
    if left := [p.name for p in run.path.rglob(".*")]:
        return f"{how} at call {at}: {left} is left"
    if run.noted_state != "completed" or not same_run(whole, run):
        return f"{how} at call {at}: the run differs from an undisturbed one"
    return ""


def sweep(folder: Path, how: str, calls: Iterable[int], whole: RunDir) -> list[str]:
    """Break a run at each of the calls, two at a time; all that is wrong."""
    with ThreadPoolExecutor(2) as pool:
        faults = pool.map(lambda n: check(folder / f"{how}-{n}", n, how, whole), calls)
        return [fault for fault in faults if fault]
