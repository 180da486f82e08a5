"""The run directory: names, small files, atomic writes."""

from __future__ import annotations

import dataclasses
import json
import os
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
