"""How many threads may compute at once: what the machine and its limits really give."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from contextlib import suppress

import torch

from cifar_cli.training.control_groups import PROCESS, cpu_quota

_LONGER_THAN_A_GRAIN = 2**16  # numbers for each thread, for torch to give all of them a share


def limit_threads(wanted: int | None = None) -> int:
    """Have torch compute with `wanted` threads (None: as many as it has), or with fewer if the
    machine, a container or a limit of the process gives fewer.

    Returns:
        With how many it does.
    """
    count = min(wanted or torch.get_num_threads(), cpus(), cpu_quota(PROCESS), openmp_limit())
    # torch starts two threads for each but the first: one of OpenMP, and one of XNNPACK.
    count = (startable(2 * max(1, count) - 1) + 1) // 2
    torch.set_num_threads(count)
    # They start now, and stay: one that could not be started later would end the process.
    torch.empty(count * _LONGER_THAN_A_GRAIN, dtype=torch.uint8).fill_(1)
    return count


def cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def openmp_limit() -> int:
    """How large a team OpenMP gives, if it is asked for a large one.

    torch's convolutions (oneDNN) take the team for as large as they asked for: with a smaller one
    they wait for threads that are not there, or return gradients that are wrong. So no team may
    be smaller because others are busy either (OMP_DYNAMIC).
    """
    with suppress(OSError, AttributeError):  # another kind of library, or none
        openmp = ctypes.CDLL(None)
        openmp.omp_set_dynamic(0)
        nested: int = openmp.omp_get_max_active_levels()
        limit: int = openmp.omp_get_thread_limit()
        return limit if nested else 1
    return 2**31 - 1


def startable(count: int) -> int:
    """How many of `count` threads, this one among them, the limits of processes and memory allow;
    at least one."""
    wait, started = threading.Event(), list[threading.Thread]()
    try:
        while len(started) < count - 1:
            thread = threading.Thread(target=wait.wait, daemon=True)
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError):
        pass  # no more can be started
    finally:
        wait.set()
        for thread in started:
            thread.join()
        _wait_until_gone(started)
    return 1 + len(started)


def _wait_until_gone(threads: list[threading.Thread]) -> None:
    """Wait until the system (Linux) counts no ended thread any more, which takes a moment."""
    deadline = time.monotonic() + 1
    while any((PROCESS / "task" / str(thread.native_id)).exists() for thread in threads):
        if time.monotonic() > deadline:
            return
        time.sleep(0.0005)
