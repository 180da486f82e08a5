"""Stops of a process that waits for something: a reader of its output, or a long computation."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import Running
from stopped import FLAGS

from cifar_cli.cli import stopping
from cifar_cli.training import step

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def impatient() -> None:
    stopping.GRACE_SECONDS = stopping.STEP_SECONDS = 0.3


def with_a_reader_that_does_not_read() -> None:
    impatient()
    _, end = os.pipe()
    os.set_blocking(end, False)
    try:
        while True:
            os.write(end, bytes(4096))
    except BlockingIOError:
        os.set_blocking(end, True)
    os.dup2(end, 2)


def with_a_long_step() -> None:
    stopping.GRACE_SECONDS = 0.3

    def compute(*_: object) -> None:
        Path("computing").touch()
        matrix = torch.ones(9000, 9000)
        for _ in range(10):
            torch.mm(matrix, matrix)

    step.apply_settings = compute  # type: ignore[assignment]


@pytest.mark.fault(71)
@pytest.mark.parametrize("command", [["plot", "nosuch"], ["train", *FLAGS, "--run-dir", "a"]])
def test_a_stop_ends_a_process_whose_output_nobody_reads(in_tmp: Path, command: list[str]) -> None:
    process = Running(in_tmp, *command, fault=with_a_reader_that_does_not_read)
    time.sleep(1)
    process.kill(signal.SIGTERM)
    assert process.end(20) == 143


@pytest.mark.fault(72)
def test_a_second_ctrl_c_ends_a_step_that_takes_long(in_tmp: Path) -> None:
    process = Running(in_tmp, "train", *FLAGS, "--run-dir", "a", fault=with_a_long_step)
    process.wait_for((in_tmp / "computing").exists)
    process.kill(signal.SIGINT)
    time.sleep(0.5)
    assert process.process.exitcode is None, "the first one waits for the step"
    process.kill(signal.SIGINT)
    assert process.end(10) == 130
