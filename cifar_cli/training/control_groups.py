"""What a container, or a control group of Linux, lets a process have of its machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROCESS = Path("/proc/self")


def cpu_quota(process: Path) -> int:
    """Whole CPUs' worth of time that a container's quota allows (Linux); at least one.

    Threads beyond it would wait for each other while the system makes one of them pause.

    Args:
        process: Folder that describes the process, as `/proc/self` does.
    """
    least = 2**31 - 1
    for folder in _groups(process, "cpu"):
        with suppress(OSError, ValueError):
            if (both := folder / "cpu.max").is_file():  # version 2
                time, period = both.read_text().split()
            else:
                time = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            if float(time) > 0 and float(period) > 0:  # "max", or -1, without a quota
                least = min(least, int(float(time) // float(period)))
    return max(1, least)


def memory(process: Path) -> float:
    """Bytes that the machine has, or a container of it may take; infinite where nobody says."""
    least = float("inf")
    with suppress(AttributeError, ValueError, OSError):
        least = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for folder in _groups(process, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # versions 2 and 1
            with suppress(OSError, ValueError):
                least = min(least, float((folder / name).read_text()))
    return least


def _groups(process: Path, named: str) -> Iterator[Path]:
    """Folders of the control groups that the process is in, each with those around it.

    Args:
        named: The controller, where each has groups of its own (version 1).
    """
    with suppress(OSError, ValueError):
        member: dict[str, str] = {}
        for line in (process / "cgroup").read_text(errors="replace").splitlines():
            _, controllers, path = line.split(":", 2)
            member |= dict.fromkeys(controllers.split(","), path)
        for line in (process / "mountinfo").read_text(errors="replace").splitlines():
            about, _, kind = line.partition(" - ")
            root, mounted = about.split()[3:5]
            system, _, choices = kind.split()[:3]
            controller = {"cgroup2": "", "cgroup": named}.get(system)
            if controller is None or (controller and controller not in choices.split(",")):
                continue
            # Inside a container, what is mounted is its own group, whatever path it has outside.
            path = member.get(controller, root)
            inside = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
            yield from (Path(mounted) / part for part in (inside, *inside.parents))
