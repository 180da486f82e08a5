"""Faults of signals, processes and numbers."""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import TINY_FLAGS, Answer, rows
from processes import Running
from stopped import FLAGS, hashes, interrupted, kept, same_run

from cifar_cli.rundir import RunDir
from cifar_cli.training.checkpoint import load_checkpoint, load_newest, seal

Cli = Callable[..., Answer]
# Long enough that every signal meets it in the middle.
LONG = [*FLAGS, "--epochs", 400, "--run-dir", "a"]
WORKERS = ["--set", "augment.form=albumentations", "--set", "data.workers=2"]


def has_reported(folder: Path, epochs: int = 1) -> Callable[[], bool]:
    """Whether the run has reported so many epochs."""
    metrics = folder / "a" / "metrics.csv"
    return lambda: metrics.is_file() and len(metrics.read_text().splitlines()) > epochs


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def goes_on(folder: Path, *flags: object) -> None:
    """Resume the run, to two epochs more, and have it end well."""
    done = len(rows(folder / "a" / "metrics.csv"))
    more = ["--resume", "--run-dir", "a", "--epochs", done + 2, "--allow-changes", *flags]
    process = Running(folder, "train", *more)
    assert process.end() == 0, process.text()
    epochs = [row["epoch"] for row in rows(folder / "a" / "metrics.csv")]
    assert epochs == [str(number + 1) for number in range(done + 2)]


@pytest.mark.fault(22)
def test_ctrl_c_saves_within_a_step_and_says_how_to_go_on(in_tmp: Path) -> None:
    process = Running(in_tmp, "train", *LONG)
    process.wait_for(has_reported(in_tmp))
    process.kill(signal.SIGINT)
    assert process.end() == 130
    assert "everything is saved. Resume with: cifar-resnet train --resume --run-dir a" in (
        process.text()
    )
    assert "Traceback" not in process.text()
    goes_on(in_tmp)


@pytest.mark.fault(23)
def test_a_termination_of_the_whole_group_with_workers_is_saved(in_tmp: Path) -> None:
    process = Running(in_tmp, "train", *LONG, *WORKERS)
    process.wait_for(has_reported(in_tmp))
    process.wait_for(lambda: len(children(process.pid)) >= 2)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.end() == 143
    assert "everything is saved" in process.text()
    assert "Traceback" not in process.text()
    goes_on(in_tmp)


@pytest.mark.fault(24)
def test_a_second_ctrl_c_while_saving_loses_nothing(in_tmp: Path) -> None:
    run = RunDir(in_tmp / "a")

    def saving() -> bool:
        return any(run.last.parent.glob(".last.pt.*.tmp"))

    for _ in range(30):  # until the second one comes before the save has ended
        # Wide enough that saving takes a while.
        process = Running(in_tmp, "train", *LONG, "--set", "model.width=24", "--resume")
        process.wait_for(lambda: re.search(r"^epoch +\d", process.text(), re.M))  # noqa: B023
        process.kill(signal.SIGINT)
        while process.process.is_alive() and not saving():
            pass
        if process.process.is_alive():
            process.kill(signal.SIGINT)
        assert process.end() == 130
        assert "Traceback" not in process.text()
        assert load_checkpoint(run.last).training
        assert load_checkpoint(run.best).weights
        if "everything is saved" not in process.text():
            break
    else:
        pytest.fail("every save had ended before the second signal came")
    goes_on(in_tmp)


SPOILED = """
import os
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations
flip = albumentations.HorizontalFlip.apply
left = [5]

def apply(self, img, **options):
    left[0] -= 1
    if left[0] < 0:
        raise ValueError("this image is spoiled")
    return flip(self, img, **options)

albumentations.HorizontalFlip.apply = apply
"""


def spoil_an_image(packages: str) -> None:
    """In this process, and in all that it starts."""
    os.environ["PYTHONPATH"] = packages
    exec(SPOILED, {})


@pytest.mark.fault(25)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_augmented_is_told_by_its_position(
    in_tmp: Path, workers: int
) -> None:
    flags = [*LONG, "--set", "augment.form=albumentations", "--set", f"data.workers={workers}"]
    (in_tmp / "sitecustomize.py").write_text(SPOILED)
    process = Running(in_tmp, "train", *flags, fault=partial(spoil_an_image, str(in_tmp)))
    assert process.end() == 3
    errors = [line for line in process.text().splitlines() if line.startswith("Error")]
    assert len(errors) == 1
    assert errors[0].startswith("Error: Training image ")
    assert "cannot be augmented in epoch 1: ValueError: this image is spoiled" in errors[0]
    assert "Traceback" not in process.text()


@pytest.mark.fault(26)
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05])
def test_a_killed_loader_process_ends_training_and_loses_nothing(
    in_tmp: Path, delay: float
) -> None:
    process = Running(in_tmp, "train", *LONG, *WORKERS)
    process.wait_for(has_reported(in_tmp))
    process.wait_for(lambda: len(children(process.pid)) >= 2)
    time.sleep(delay)
    process.wait_for(lambda: len(children(process.pid)) >= 2)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    assert process.end(30) == 6
    assert "A loader process was killed" in process.text()
    assert "data.workers=0" in process.text()
    assert load_newest(RunDir(in_tmp / "a").last)
    goes_on(in_tmp, "--set", "data.workers=0")


@pytest.mark.fault(23)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.fault(72)
def test_a_stop_is_heeded_while_a_loader_process_gives_nothing(
    in_tmp: Path, number: int, code: int
) -> None:
    process = Running(in_tmp, "train", *LONG, *WORKERS)
    process.wait_for(has_reported(in_tmp))
    stopped = children(process.pid)
    for child in stopped:
        os.kill(child, signal.SIGSTOP)
    time.sleep(0.5)  # by now it waits for them
    started = time.monotonic()
    process.kill(number)
    assert process.end(15) == code
    assert time.monotonic() - started < 10
    assert "everything is saved" in process.text()
    assert not any(Path(f"/proc/{child}").exists() for child in stopped)
    goes_on(in_tmp)


@pytest.mark.fault(27)
def test_a_loss_that_becomes_nan_is_told_with_step_and_rate_and_best_stays(
    cli: Cli, in_tmp: Path
) -> None:
    run = interrupted("a")
    content = torch.load(run.last, weights_only=True)
    content["weights"]["prep.0.weight"][0] = float("nan")
    torch.save(content, run.last)
    run.last.write_bytes(seal(run.last.read_bytes()))
    before = hashes(run)
    answer = cli("train", "--resume", "--run-dir", "a")
    assert answer.code == 5
    assert "The loss became nan in epoch 2, step 3, at LR 0.00" in answer.err
    assert "Lower --max-lr" in answer.err
    assert kept(run, before)


def little_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = used + 600 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@pytest.mark.fault(30)
def test_memory_that_runs_out_is_told_with_a_smaller_batch(in_tmp: Path) -> None:
    large = ["--batch-size", 2000, "--limit-train", 2000, "--set", "model.width=64"]
    process = Running(in_tmp, "train", *LONG, *large, fault=little_memory)
    assert process.end() == 6, process.text()
    assert "Out of memory at batch size 2000. Try --batch-size 1000" in process.text()
    assert "Traceback" not in process.text()


@pytest.mark.fault(31)
def test_a_summary_before_training_changes_no_loss(cli: Cli, in_tmp: Path) -> None:
    assert cli("train", *FLAGS, "--run-dir", "without", "--quiet").code == 0
    assert cli("summary", *TINY_FLAGS).code == 0
    assert cli("train", *FLAGS, "--run-dir", "with", "--quiet").code == 0
    assert same_run(RunDir(Path("without")), RunDir(Path("with")))
