"""Compilers that are not there, do not work, or hang."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from cifar_cli.kernels import library


@pytest.mark.parametrize(
    ("compilers", "flags", "why"),
    [
        (("no-such-compiler",), (), "there is no C compiler"),
        (("false",), (), "false failed: "),
        (library.COMPILERS, ("--no-such-flag",), "--no-such-flag"),
        (library.COMPILERS, ("-Dlanes=(",), "failed: "),
    ],
    ids=str,
)
def test_without_a_compiler_that_works_status_says_why(
    compilers: tuple[str, ...],
    flags: tuple[str, ...],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "COMPILERS", compilers)
    monkeypatch.setattr(library, "FLAGS", (*library.FLAGS, *flags))
    problem = library._library(tmp_path / "new")
    assert isinstance(problem, str)
    assert why in problem
    assert list((tmp_path / "new").glob("*")) == []


SLOW = "#!/bin/sh\nif [ $1 != -O3 ]; then exit 1; fi\ncase $* in *-dM*) exit;; esac\n"
SLOW += 'sleep 100 &\necho $! > "$0.child"\nwait\n'


@pytest.mark.parametrize("stop", ["time", "ctrl-c"])
@pytest.mark.fault(60)
def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(
    stop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "slow"
    compiler.write_text(SLOW)
    compiler.chmod(0o700)
    monkeypatch.setattr(library, "COMPILERS", (str(compiler),))
    child = tmp_path / "slow.child"
    if stop == "time":
        monkeypatch.setattr(library, "SECONDS", 1.5)
        told = library._library(tmp_path / "native")
        assert isinstance(told, str)
        assert "slow took longer than" in told
    else:
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 1.5)
        with pytest.raises(KeyboardInterrupt):
            library._library(tmp_path / "native")
        signal.signal(signal.SIGALRM, before)
    stat_ = Path("/proc") / child.read_text().strip() / "stat"
    deadline = time.monotonic() + 5
    while stat_.exists() and stat_.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list((tmp_path / "native").iterdir()) == []
