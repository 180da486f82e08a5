"""The process that stands before the program where memory is limited: how each end is told."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ends, is_alive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no guard")

GUARDED = """
import ctypes, os, resource, signal, sys, time
from cifar_cli.cli.guard import guarded
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))

def leave(number, _):
    print("child", number, flush=True)
    sys.exit(100 + number)

def program():
    {program}

sys.exit(guarded(program, lambda: print("no memory") or 6))
"""


def start(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", GUARDED.replace("{program}", program)],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("return 0", 0, ""),
        ("return 1", 1, ""),
        ("return 4", 4, ""),
        ("os._exit(143)", 143, ""),
        ("os._exit(1)", 6, "no memory\n"),
        ("os.abort()", 6, "no memory\n"),
        ("ctypes.string_at(0)", 6, "no memory\n"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, ""),
    ],
)
@pytest.mark.fault(78)
def test_an_end_by_a_library_is_told_apart_from_the_programs_own(
    program: str, code: int, said: str
) -> None:
    process = start(program)
    assert (process.communicate(timeout=60)[0], process.returncode) == (said, code)


WAIT = "signal.signal(signal.SIGTERM, leave); print(os.getpid(), flush=True); time.sleep(60)"


@pytest.mark.fault(78)
def test_a_signal_to_it_is_passed_on() -> None:
    process = start(WAIT)
    assert process.stdout
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == "child 15\n"
    assert (process.returncode, Path(f"/proc/{child}").exists()) == (115, False)


@pytest.mark.fault(78)
def test_the_program_does_not_outlive_it() -> None:
    process = start(WAIT)
    assert process.stdout
    child = int(process.stdout.readline())
    process.kill()
    assert process.communicate(timeout=60)[0] == "child 15\n"
    assert ends(lambda: not is_alive(child))


def shell(limits: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The real command in a shell that has set some limits before."""
    return subprocess.run(
        ["bash", "-c", f'{limits}; exec "$@"', "sh", sys.executable, "-m", "cifar_cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("limit", [60, 110])
@pytest.mark.fault(78)
def test_libraries_that_get_no_memory_end_as_one_message(tmp_path: Path, limit: int) -> None:
    found = shell(f"ulimit -v {limit * 1024}", "plot", str(tmp_path))
    assert (found.returncode, found.stderr.count("Error: ")) == (6, 1), found.stderr
    assert "Out of memory" in found.stderr


def test_a_limit_of_data_is_one_of_memory(tmp_path: Path) -> None:
    found = shell("ulimit -d 60000", "plot", str(tmp_path))
    assert (found.returncode, found.stderr.count("Error: ")) == (6, 1), found.stderr


@pytest.mark.parametrize("files", [5, 6, 8])
def test_few_handles_cause_no_traceback(files: int) -> None:
    found = shell(f"ulimit -n {files}", "recipes", "show", "demo")
    assert found.returncode in (0, 6), found.stderr
    assert "Traceback" not in found.stderr


def test_a_parent_that_ignores_the_end_of_children_hangs_nothing() -> None:
    program = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    command = [sys.executable, "-c", f"{program}; os.execv(sys.argv[1], sys.argv[1:])"]
    limited = ["bash", "-c", 'ulimit -v 8000000; exec "$@"', "sh", sys.executable]
    found = subprocess.run(
        [*command, "/bin/bash", *limited[1:], "-m", "cifar_cli", "recipes", "show", "demo"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (found.returncode, found.stderr) == (0, "")
    assert "epochs: 8" in found.stdout
