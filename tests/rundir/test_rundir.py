"""The run directory: names, small files, atomic writes."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cifar_cli.errors import CheckpointError, ConfigError, StorageError
from cifar_cli.rundir import (
    EpochRecord,
    RunDir,
    StepRecord,
    create_run,
    find_run,
    run_path,
)

RECORD = EpochRecord(1, 1.5, 0.4, 1.25, 0.5, 0.01, 12.5, 11.5)


def test_a_taken_name_gets_a_number(in_tmp: Path) -> None:
    paths = []
    for _ in range(3):
        run = create_run(in_tmp / "runs" / "a")
        (run.path / "config.yaml").write_text("seed: 1")
        paths.append(run.path.name)
    assert paths == ["a", "a-2", "a-3"]


def test_an_empty_folder_that_is_there_is_used(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert create_run(tmp_path / "mine").path == tmp_path / "mine"


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "x" * 101, "a\0b"])
def test_names_that_are_no_folder_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        run_path(name)


def test_a_run_is_found_by_path_by_name_and_as_the_newest(in_tmp: Path) -> None:
    for number, name in enumerate(("old", "new")):
        run = create_run(run_path(name))
        run.config.write_text("seed: 1")
        os.utime(run.config, (1000 + number, 1000 + number))
    assert find_run("old").path == Path("runs/old")
    assert find_run(in_tmp / "runs" / "old").path == in_tmp / "runs" / "old"
    assert find_run().name == "new"


def test_a_missing_run_is_told_with_the_nearest_name(in_tmp: Path) -> None:
    with pytest.raises(CheckpointError, match="Train one first"):
        find_run()
    create_run(run_path("first")).config.write_text("seed: 1")
    with pytest.raises(CheckpointError, match="did you mean 'first'"):
        find_run("frist")


def test_metrics_are_read_back_as_written(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.read_metrics() == []
    records = [RECORD, dataclasses.replace(RECORD, epoch=2, train_loss=1 / 3)]
    run.write_metrics(records)
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert (
        header == "epoch,train_loss,train_accuracy,val_loss,val_accuracy,lr,seconds,train_seconds"
    )
    assert len(rows) == 2
    back = run.read_metrics()
    assert back[0] == RECORD
    assert back[1].train_loss == pytest.approx(1 / 3, abs=1e-9)


def test_steps_are_appended_once_each(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append_steps([StepRecord(s, 0.1, 2.0) for s in range(3)])
    run.append_steps([])
    run.append_steps([StepRecord(s, 0.1, 1.0) for s in range(3, 5)])
    assert not run.trim_steps(3)  # the epoch, once more
    run.append_steps([StepRecord(s, 0.1, 9.0) for s in range(3, 6)])
    assert [(s.step, s.train_loss) for s in run.read_steps()] == [
        (0, 2.0),
        (1, 2.0),
        (2, 2.0),
        (3, 9.0),
        (4, 9.0),
        (5, 9.0),
    ]


@pytest.mark.parametrize("line", ["2,0.1", "2,a,b,c,d,e,f,g", "1,2,3,4,5,6,7,8,9"])
@pytest.mark.fault(64)
def test_a_damaged_line_of_metrics_is_told(tmp_path: Path, line: str) -> None:
    run = RunDir(tmp_path)
    run.write_metrics([RECORD])
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(CheckpointError, match=r"Cannot read .*metrics\.csv"):
        run.read_metrics()


def test_a_half_written_last_line_is_passed_over(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append_steps([StepRecord(s, 0.1, 2.0) for s in range(3)])
    with (tmp_path / "steps.csv").open("a") as file:
        file.write("3,0.")
    assert len(run.read_steps()) == 3
    assert not run.trim_steps(3)
    run.append_steps([StepRecord(3, 0.1, 1.0)])
    assert [s.step for s in run.read_steps()] == [0, 1, 2, 3]


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "epoch,train_loss\nx,y\n"])
@pytest.mark.fault(64)
def test_a_metrics_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(CheckpointError, match="Cannot read"):
        RunDir(tmp_path).read_metrics()


def test_status_result_and_events_are_json(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_status("running", epochs=3)
    run.write_result({"val_accuracy": 0.5})
    run.log("started", epoch=1)
    run.log("epoch", epoch=1)
    assert run.read_json("status.json")["state"] == "running"
    assert run.read_json("result.json") == {"schema_version": 1, "val_accuracy": 0.5}
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == ["started", "epoch"]
    assert run.read_json("nothing.json") == {}
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(CheckpointError):
        run.read_json("status.json")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        create_run(tmp_path / "file" / "run")


@pytest.mark.fault(80)
def test_of_runs_that_start_in_the_same_second_each_gets_a_folder_of_its_own(in_tmp: Path) -> None:
    for there in (False, True):
        path = in_tmp / f"there-{there}"
        if there:  # without files, as a volume may be
            path.mkdir()
        with ThreadPoolExecutor(16) as pool:
            runs = list(pool.map(create_run, [path] * 48))
        assert len({run.path for run in runs}) == 48


def test_exactly_the_folder_that_is_named_is_made_or_none(in_tmp: Path) -> None:
    assert create_run(in_tmp / "a", exactly=True).path == in_tmp / "a"
    with pytest.raises(ConfigError, match="a is taken"):
        create_run(in_tmp / "a", exactly=True)
    assert sorted(p.name for p in in_tmp.iterdir()) == ["a"]


def test_whether_a_run_is_training_follows_from_its_lock(tmp_path: Path) -> None:
    run = create_run(tmp_path / "a")
    run.write_status("running")
    assert not run.is_running  # it was killed
    with run.locked():
        assert run.is_running
        with pytest.raises(ConfigError, match="Another process is training"), run.locked():
            pass
    assert not run.is_running
    assert not RunDir(tmp_path / "nowhere").is_running


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def holes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(1_000_000))


def deep(path: Path) -> None:
    path.write_text('{"a":' * 100_000)


def long_cell(path: Path) -> None:
    path.write_text("9" * 200_000)


def not_utf8(path: Path) -> None:
    path.write_bytes(b"\xff\xfe{}")


@pytest.mark.parametrize(
    "put",
    [fifo, device, Path.mkdir, holes, zeros, deep, long_cell, not_utf8],
    ids=lambda f: f.__name__,
)
@pytest.mark.fault(66)
def test_no_file_of_a_run_can_be_anything_else(tmp_path: Path, put: Callable[[Path], None]) -> None:
    run = RunDir(tmp_path / "a")
    run.path.mkdir()
    for name in ("metrics.csv", "steps.csv", "status.json", "config.yaml", "events.jsonl"):
        put(run.path / name)
    reads: list[Callable[[], object]] = [
        run.read_metrics, run.read_steps, run.read_config, lambda: run.read_json("status.json"),
    ]  # fmt: skip
    for read in reads:
        with pytest.raises(CheckpointError, match="Cannot read") as caught:
            read()
        assert len(str(caught.value)) < 300
    assert run.peek_json("status.json") == {}
    assert run.noted_state == ""
    assert not run.is_run
    if put in (fifo, device, Path.mkdir):
        with pytest.raises(StorageError, match=r"events\.jsonl: it is not a regular file"):
            run.log("started")
    assert run.trim_steps(0)  # what lies there is kept under another name
    run.append_steps([StepRecord(0, 0.1, 2.0)])
    assert run.read_steps() == [StepRecord(0, 0.1, 2.0)]
    assert os.path.lexists(run.path / "damaged-steps.csv")


@pytest.mark.fault(61)
def test_lines_are_not_appended_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "precious")
    with pytest.raises(StorageError, match="not a regular file"):
        RunDir(tmp_path).log("started")
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    "line", ["nan,0.1,2", "3,nan,2", "3,0.1,inf", "3,0.1,1e999", "-3,0.1,2", "3.5,0.1,2",
             "garbage", "", "3,0.1", "3,0.1,2,4", "3,0.1," + "9" * 200_000, "\0",
             "9" * 5000 + ",1,1"],
    ids=lambda line: line[:12] or "empty",
)  # fmt: skip
@pytest.mark.fault(64)
def test_damaged_lines_of_steps_are_left_out_of_what_is_kept(tmp_path: Path, line: str) -> None:
    run = RunDir(tmp_path)
    run.append_steps([StepRecord(s, 0.1, 2.0) for s in range(3)])
    whole = (tmp_path / "steps.csv").read_text()
    with (tmp_path / "steps.csv").open("a") as file:
        file.write(f"{line}\n3,0.1,1\n")
    damaged = (tmp_path / "steps.csv").read_text()
    with pytest.raises(CheckpointError, match=r"Cannot read .*steps\.csv: the line"):
        run.read_steps()
    assert run.trim_steps(3)
    assert (tmp_path / "steps.csv").read_text() == whole
    assert (tmp_path / "damaged-steps.csv").read_text() == damaged


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1.5", "9" * 200_000])
@pytest.mark.fault(64)
def test_an_accuracy_that_is_none_is_told(tmp_path: Path, value: str) -> None:
    run = RunDir(tmp_path)
    run.write_metrics([RECORD])
    text = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").write_text(text.replace("0.4", value, 1))
    with pytest.raises(
        CheckpointError, match=r"Cannot read .*metrics\.csv: the line .* is damaged"
    ):
        run.read_metrics()


@pytest.mark.parametrize(
    "text", ['{"a": NaN}', "[1]", "1", "null", "", '{"a": 1' + "0" * 5000 + "}"]
)
@pytest.mark.fault(64)
def test_json_of_another_kind_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"Cannot read .*result\.json"):
        RunDir(tmp_path).read_json("result.json")


def test_appending_to_a_copy_that_hard_links_made_leaves_the_original(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.log("started")
    (tmp_path / "backup").hardlink_to(tmp_path / "events.jsonl")
    before = (tmp_path / "backup").read_text()
    run.log("epoch")
    assert (tmp_path / "backup").read_text() == before
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 2
