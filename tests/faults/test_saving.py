"""Faults of checkpoints and of the place where they lie."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_FLAGS, Answer, rows, tiny_config
from processes import Running
from stopped import FLAGS, Stop, StopAfterEpoch, hashes, interrupted, kept, same_run

from cifar_cli import train
from cifar_cli.errors import Interrupted
from cifar_cli.rundir import RunDir
from cifar_cli.training.checkpoint import load_checkpoint, load_newest
from cifar_cli.training.observer import Observer

Cli = Callable[..., Answer]
OFTEN = ["--set", "train.save_minutes=1e-9"]


@pytest.mark.fault(1)
def test_a_run_killed_again_and_again_ends_as_if_nothing_had_been(in_tmp: Path) -> None:
    whole = train(tiny_config(train__epochs=4, runtime__threads=1), "whole")
    run, chance = RunDir(in_tmp / "killed"), random.Random(1)
    flags = [*FLAGS, *OFTEN, "--epochs", 4, "--run-dir", run.path, "--resume"]
    for number in range(10):
        process = Running(in_tmp, "train", *flags)
        if number % 2:  # while a checkpoint is being written
            process.wait_for(lambda: any(run.last.parent.glob(".*.tmp")))
        else:
            before = run.last.stat().st_mtime_ns if run.last.exists() else 0
            process.wait_for(
                lambda old=before: run.last.exists() and run.last.stat().st_mtime_ns > old  # type: ignore[misc]
            )
            process.process.join(chance.random() * 0.05)
        process.kill()
        assert process.end() in (137, 0)
        if run.last.parent.exists() and any(run.last.parent.glob("*.pt")):
            assert load_newest(run.last)
            assert not run.best.exists() or load_checkpoint(run.best)
    process = Running(in_tmp, "train", *flags)
    assert process.end() == 0, process.text()
    assert same_run(RunDir(whole.run_dir), run)
    assert [row["epoch"] for row in rows(run.path / "metrics.csv")] == ["1", "2", "3", "4"]


@pytest.mark.fault(2)
@pytest.mark.fault(98)
def test_what_a_killed_process_left_half_written_is_ignored_and_removed(
    cli: Cli, in_tmp: Path
) -> None:
    run, token = interrupted("a"), "0123456789abcdef"
    written = [
        path.name for path in run.path.iterdir() if path.suffix in (".csv", ".json", ".yaml")
    ]
    left = [run.path / f".{name}.{token}.tmp" for name in written]
    left += [p.with_name(f".{p.name}.{token}.tmp") for p in run.last.parent.iterdir()]
    left.append(run.last.with_name(f".probe.{token}.tmp"))
    theirs = [run.path / ".thesis.2024.tmp", run.last.with_name(".notes.1.tmp")]
    theirs.append(run.path / f".thesis.{token}.tmp")
    for path in (*left, *theirs):
        path.write_bytes(b"half")
    assert cli("train", "--resume", "--run-dir", "a", "--quiet").code == 0
    assert [path.name for path in left if path.exists()] == []
    assert all(path.exists() for path in theirs)
    assert not (run.path / ".lock").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user cannot mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def assert_storage_error(answer: Answer, path: Path) -> None:
    assert answer.code == 7
    (line,) = [line for line in answer.err.splitlines() if line.startswith("Error")]
    assert f"Cannot write {path} (" in line
    assert " bytes)" in line
    assert "Traceback" not in answer.err


@pytest.mark.fault(3)
def test_a_full_disk_is_told_with_path_and_bytes_and_nothing_is_lost(
    cli: Cli, small_disk: Path
) -> None:
    run = interrupted(small_disk / "a")
    before = hashes(run)
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler.write_bytes(bytes(free - 100_000))  # what is left is enough for all but a checkpoint
    assert_storage_error(cli("train", "--resume", "--run-dir", run.path), run.last)
    assert kept(run, before)
    filler.unlink()
    assert cli("train", "--resume", "--run-dir", run.path, "--quiet").code == 0


@pytest.mark.fault(102)
def test_a_full_disk_while_a_report_is_written_leaves_the_old_report_whole(
    cli: Cli, trained: Path, small_disk: Path
) -> None:
    file = small_disk / "report.html"
    assert cli("report", trained, "--out", file, "--n", 5).code == 0
    before = file.read_bytes()
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "filler").write_bytes(bytes(free - 20_000))
    assert_storage_error(cli("report", trained, "--out", file), file)
    assert file.read_bytes() == before
    assert sorted(path.name for path in small_disk.iterdir()) == ["filler", "report.html"]


@pytest.mark.fault(3)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_write_that_fails_is_told_with_path_and_bytes_and_nothing_is_lost(
    cli: Cli, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run = interrupted("a")
    before, open_, sync = hashes(run), os.open, os.fsync
    chosen: set[int] = set()

    def opened(path: Any, *arguments: Any, **options: Any) -> int:
        descriptor = open_(path, *arguments, **options)
        chosen.discard(descriptor)
        if Path(os.fsdecode(path)).name.startswith(".last.pt"):
            chosen.add(descriptor)
        return descriptor

    def full(descriptor: int) -> None:
        if descriptor in chosen:  # as where a file system finds out when it really writes
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", full)
    assert_storage_error(cli("train", "--resume", "--run-dir", "a"), run.last)
    assert kept(run, before)


def small_files_only() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.fault(4)
def test_a_limit_of_file_size_is_told_and_nothing_is_lost(in_tmp: Path) -> None:
    run = interrupted("a")
    before = hashes(run)
    process = Running(in_tmp, "train", "--resume", "--run-dir", "a", fault=small_files_only)
    code = process.end()
    assert_storage_error(Answer(code, "", process.text()), run.last)
    assert kept(run, before)


@pytest.mark.fault(5)
def test_a_run_directory_that_cannot_be_made_is_told_before_anything_is_read(
    cli: Cli, in_tmp: Path
) -> None:
    (in_tmp / "file").write_text("")
    answer = cli("train", *TINY_FLAGS, "--data", "nowhere", "--run-dir", "file/runs/a")
    assert answer.code == 7
    assert answer.err.splitlines()[-1] == (
        "Error: Cannot write file/runs/a: file is not a folder. Choose another place."
    )


@pytest.mark.fault(6)
@pytest.mark.parametrize("name", ["last.pt", "best.pt", "previous.pt", "metrics.csv"])
def test_a_rename_that_fails_is_told_and_nothing_is_lost(
    cli: Cli, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = interrupted("a")
    if name == "best.pt":  # so that the next epoch is the best
        content = torch.load(run.last, weights_only=True)
        content["training"]["history"][0]["val_accuracy"] = 0.0
        torch.save(content, run.last)
    before = hashes(run)
    rename = os.replace

    def fail(source: object, target: object, **options: object) -> None:
        if Path(str(target)).name == name:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "replace", fail)
    answer = cli("train", "--resume", "--run-dir", "a")
    assert answer.code == 7, answer.err
    assert "Input/output error" in answer.err
    assert kept(run, before)


@pytest.mark.fault(7)
def test_an_empty_checkpoint_is_told_and_another_one_offered(cli: Cli, in_tmp: Path) -> None:
    run = interrupted("a")
    run.last.write_bytes(b"")
    answer = cli("evaluate", "a")
    assert answer.code == 4
    assert "a/checkpoints/last.pt is empty. Use a/checkpoints/best.pt or" in answer.err
    assert cli("evaluate", "a", "--checkpoint", "best").code == 0


@pytest.mark.fault(8)
def test_resume_from_a_truncated_checkpoint_takes_the_one_before(cli: Cli, in_tmp: Path) -> None:
    whole = train(tiny_config(train__epochs=3), "whole")
    run = interrupted("a")
    os.truncate(run.last, run.last.stat().st_size // 2)
    answer = cli("train", "--resume", "--run-dir", "a")
    assert answer.code == 0
    assert "last.pt is missing or damaged; resuming from a/checkpoints/previous.pt" in answer.err
    assert same_run(run, RunDir(whole.run_dir))


@pytest.mark.fault(9)
def test_a_flipped_byte_is_never_evaluated(cli: Cli, in_tmp: Path) -> None:
    run = interrupted("a")
    data = bytearray(run.last.read_bytes())
    data[len(data) // 2] ^= 1
    run.last.write_bytes(data)
    answer = cli("evaluate", "a")
    assert (answer.code, answer.out) == (4, "")
    assert "checksum" in answer.err


@pytest.mark.fault(12)
def test_resuming_a_run_that_is_not_there_names_the_flag_and_the_nearest(
    cli: Cli, in_tmp: Path
) -> None:
    interrupted("runs/monday")
    answer = cli("train", *TINY_FLAGS, "--resume", "--name", "mondya")
    assert answer.code == 4
    assert "--resume --name mondya" in answer.err
    assert "did you mean 'monday'" in answer.err


@pytest.mark.fault(14)
def test_resuming_with_another_network_names_what_differs(cli: Cli, in_tmp: Path) -> None:
    run = interrupted("a")
    before = hashes(run)
    answer = cli("train", "--resume", "--run-dir", "a", "--set", "model.width=6")
    assert answer.code == 4
    assert "belongs to another network: prep.0.weight is 4x3x3x3 in the file" in answer.err
    assert kept(run, before)


@pytest.mark.fault(14)
def test_resuming_with_another_number_of_classes_names_what_differs(
    cli: Cli, in_tmp: Path, class_folders: Callable[..., Path]
) -> None:
    interrupted("a")
    answer = cli("train", "--resume", "--run-dir", "a", "--data", class_folders(counts=(8, 2)))
    assert answer.code == 4
    assert "10x32 in the file, 3x32 in the network" in answer.err


@pytest.mark.fault(17, 18, 19)
@pytest.mark.parametrize(
    ("at", "before", "after"),
    [((1, 4), 0, 0), ((2, 0), 0, 0), ((2, 2), 0, 0), ((2, 2), 0, 2), ((2, 2), 2, 1)],
    ids=["at an epoch's last step", "at an epoch's end", "in an epoch's middle",
         "from no workers to two", "from two workers to one"],
)  # fmt: skip
def test_a_resumed_run_equals_one_that_was_never_stopped(
    cli: Cli, in_tmp: Path, at: tuple[int, int], before: int, after: int
) -> None:
    form = "albumentations" if before or after else "tensor"
    settings = {"train__epochs": 3, "augment__form": form, "model__dropout": 0.1}
    whole = train(tiny_config(**settings), "whole")
    if at[1]:
        stop: Observer = Stop(*at)
    else:
        stop = StopAfterEpoch(at[0] - 1)
    with pytest.raises(Interrupted):
        train(tiny_config(**settings, data__workers=before), "a", observer=stop)
    assert not (Path("a") / "result.json").exists()
    answer = cli("train", "--resume", "--run-dir", "a", "--set", f"data.workers={after}")
    assert answer.code == 0, answer.err
    assert same_run(RunDir(whole.run_dir), RunDir(Path("a")))


@pytest.mark.fault(1)
def test_a_killed_process_with_loader_processes_leaves_no_lock(in_tmp: Path) -> None:
    run = RunDir(in_tmp / "a")
    workers = ["--set", "augment.form=albumentations", "--set", "data.workers=2"]
    process = Running(in_tmp, "train", *FLAGS, "--epochs", 400, *workers, "--run-dir", "a")
    process.wait_for(run.last.exists)
    assert run.is_running
    process.kill()
    process.process.join()
    assert not run.is_running  # at once, though loader processes take a moment to see it
    assert run.noted_state == "running"
