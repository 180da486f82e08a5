"""Threads: no more than the machine, a container's quota and the limits of the process give."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import tiny_config

from cifar_cli.training import threads
from cifar_cli.training.control_groups import cpu_quota, memory
from cifar_cli.training.runtime import Runtime
from cifar_cli.training.threads import cpus, limit_threads, startable

MANY = 2**31 - 1
MOUNTS = """\
24 1 8:1 / / rw - ext4 /dev/sda rw
30 24 0:26 {root} {mounted} rw,nosuid shared:9 - {kind}
31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
"""
V1, V2 = "cgroup cgroup rw,cpu,cpuacct", "cgroup2 cgroup2 rw,nsdelegate"


def process_in(folder: Path, kind: str, root: str, group: str, limits: dict[str, str]) -> Path:
    """A folder as /proc/self, of a process in a control group with those limits."""
    mounted = folder / "cgroup"
    for name, content in limits.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_text(content + "\n")
    process = folder / "self"
    process.mkdir(parents=True)
    line = f"0::{group}" if kind == V2 else f"4:memory:/m\n3:cpu,cpuacct:{group}\n0::/"
    (process / "cgroup").write_text(line + "\n")
    (process / "mountinfo").write_text(MOUNTS.format(root=root, mounted=mounted, kind=kind))
    return process


@pytest.mark.parametrize(
    ("kind", "root", "group", "limits", "expected"),
    [
        (V2, "/", "/", {"cpu.max": "100000 100000"}, 1),
        (V2, "/", "/", {"cpu.max": "max 100000"}, MANY),
        (V2, "/", "/", {"cpu.max": "350000 100000"}, 3),
        (V2, "/", "/", {"cpu.max": "50000 100000"}, 1),
        (V2, "/", "/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2),
        (V2, "/", "/a/b", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "800000 100000"}, 4),
        (V2, "/", "/gone/b", {"cpu.max": "200000 100000"}, 2),
        (V2, "/box", "/box/in", {"in/cpu.max": "300000 100000"}, 3),
        (V2, "/../..", "/../../other", {"cpu.max": "300000 100000"}, 3),
        (V2, "/", "/", {"cpu.max": "nonsense"}, MANY),
        (V2, "/", "/", {"cpu.max": "0 0"}, MANY),
        (V2, "/", "/", {}, MANY),
        (V1, "/", "/", {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, MANY),
        (V1, "/docker/x", "/docker/x", {"cpu.cfs_quota_us": "200000",
                                        "cpu.cfs_period_us": "100000"}, 2),
        (V1, "/", "/docker/x", {"docker/x/cpu.cfs_quota_us": "150000",
                                "docker/x/cpu.cfs_period_us": "100000"}, 1),
    ],
)  # fmt: skip
@pytest.mark.fault(76)
def test_a_quota_counts_as_whole_cpus(
    kind: str, root: str, group: str, limits: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert cpu_quota(process_in(tmp_path, kind, root, group, limits)) == expected


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) == MANY
    (tmp_path / "cgroup").write_bytes(b"\xff\n::\n")
    (tmp_path / "mountinfo").write_text("short - x\n")
    assert cpu_quota(tmp_path) == MANY


@pytest.mark.fault(76)
def test_memory_is_what_a_container_leaves_of_the_machines(tmp_path: Path) -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = {"a/b/memory.max": "max", "a/memory.max": "300000", "memory.max": "500000"}
    assert memory(process_in(tmp_path / "two", V2, "/", "/a/b", limits)) == 300_000
    old = process_in(tmp_path / "one", V1, "/", "/", {"m/memory.limit_in_bytes": "200000"})
    mounts = old / "mountinfo"
    here = str(tmp_path / "one/cgroup")
    mounts.write_text(mounts.read_text().replace("/sys/fs/cgroup/memory", here))
    assert memory(old) == 200_000
    assert memory(process_in(tmp_path / "none", V2, "/", "/", {})) == machine


@pytest.mark.fault(76)
def test_a_quota_lowers_what_is_asked_for_and_torchs_own_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = process_in(tmp_path, V2, "/", "/", {"cpu.max": "100000 100000"})
    monkeypatch.setattr(threads, "PROCESS", one)
    monkeypatch.setattr(threads, "cpus", lambda: 4)
    torch.set_num_threads(2)
    assert limit_threads() == torch.get_num_threads() == 1
    assert limit_threads(3) == torch.get_num_threads() == 1


@pytest.mark.fault(76)
def test_more_threads_than_the_machine_has_are_not_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.warns(UserWarning, match=r"runtime\.threads=1024: only \d+ can compute at once"):
        Runtime.start(tiny_config(runtime__threads=1024))
    assert torch.get_num_threads() <= cpus()
    told: list[str] = []
    monkeypatch.setattr(threads, "cpus", lambda: 1)
    Runtime.start(tiny_config(runtime__threads=2), told.append)
    assert told == ["runtime.threads=2: only 1 can compute at once here; using 1."]
    Runtime.start(tiny_config(runtime__threads=1), pytest.fail)
    Runtime.start(tiny_config(), pytest.fail)


@pytest.mark.fault(76)
def test_threads_that_cannot_be_started_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    assert startable(5) == 5
    start, left = threading.Thread.start, [2]

    def refuse(thread: threading.Thread) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert startable(5) == 3
    assert threading.active_count() == before


@pytest.mark.fault(76)
def test_room_is_left_for_both_threads_that_torch_starts_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "cpus", lambda: 3)
    for can_start, expected in ((5, 3), (4, 2), (3, 2), (2, 1), (1, 1)):
        monkeypatch.setattr(threads, "startable", lambda count, most=can_start: min(count, most))
        assert limit_threads(3) == torch.get_num_threads() == expected


GRADIENT = """
import torch
from cifar_cli.training import threads
threads.cpus = lambda: 2
torch.set_num_threads(2)
threads.limit_threads()
torch.manual_seed(0)
x, weight = torch.randn(200, 3, 32, 32), torch.randn(64, 3, 3, 3, requires_grad=True)
x = x.to(memory_format=torch.channels_last)
out = torch.nn.functional.conv2d(x, weight, padding=1)
(quick,) = torch.autograd.grad(out, weight, torch.ones_like(out))
columns = torch.nn.functional.unfold(x, 3, padding=1).sum((0, 2)).view(3, 3, 3)
print(torch.get_num_threads(), torch.allclose(quick, columns.expand_as(quick), 1e-3, 0.5))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="OpenMP of torch for Linux")
@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("OMP_THREAD_LIMIT", "1", 1),
        ("OMP_MAX_ACTIVE_LEVELS", "0", 1),
        ("OMP_DYNAMIC", "true", 2),
        ("OMP_NUM_THREADS", "2", 2),
    ],
)
@pytest.mark.fault(76)
def test_openmp_that_gives_fewer_threads_than_asked_for_changes_no_gradient(
    variable: str, value: str, expected: int
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", GRADIENT],
        env={**os.environ, "OMP_NUM_THREADS": "2", variable: value},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (0, f"{expected} True\n"), ended.stderr
