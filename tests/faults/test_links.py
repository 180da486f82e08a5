"""A run from elsewhere whose folders are links to the user's own: nothing is written there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY_FLAGS, Answer

from cifar_cli.rundir import RunDir, StepRecord

Cli = Callable[..., Answer]


def state(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.fault(61)
@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("plots", ["plot", "run"]),
        ("eval", ["evaluate", "run"]),
        ("misclassified", ["misclassified", "run"]),
        ("report", ["report", "run"]),
        ("checkpoints", ["train", "--resume", "--run-dir", "run", "--epochs", "3"]),
    ],
)
def test_nothing_is_written_through_a_folder_that_is_a_link(
    cli: Cli, trained: Path, in_tmp: Path, folder: str, command: list[str]
) -> None:
    shutil.copytree(trained, "run")
    shutil.copytree(trained, "victim")
    shutil.rmtree(f"run/{folder}", ignore_errors=True)
    Path(f"victim/{folder}").mkdir(exist_ok=True)
    Path(f"run/{folder}").symlink_to(f"../victim/{folder}")
    before = state(Path("victim"))
    answer = cli(*command, *(["--allow-changes"] if folder == "checkpoints" else []))
    assert (answer.code, f"run/{folder} is a link" in answer.err) == (7, True)
    assert state(Path("victim")) == before


@pytest.mark.fault(61)
def test_a_status_alone_does_not_lead_into_other_folders(cli: Cli, in_tmp: Path) -> None:
    (in_tmp / "victim").mkdir()
    (in_tmp / "victim/best.pt").write_text("mine")
    (in_tmp / "evil").mkdir()
    (in_tmp / "evil/status.json").write_text(json.dumps({"state": "interrupted"}))
    (in_tmp / "evil/checkpoints").symlink_to("../victim")
    answer = cli("train", "--resume", "--run-dir", "evil", *TINY_FLAGS)
    assert answer.code == 7
    assert state(Path("victim")) == {"best.pt": b"mine"}


@pytest.mark.fault(64)
def test_steps_that_cannot_be_appended_to_are_written_anew(tmp_path: Path) -> None:
    run, rows = RunDir(tmp_path / "run"), [StepRecord(0, 0.1, 2.0), StepRecord(1, 0.1, 1.0)]
    run.path.mkdir()
    run.append_steps(rows)
    (tmp_path / "run/steps.csv").rename(tmp_path / "elsewhere.csv")
    (tmp_path / "run/steps.csv").symlink_to("../elsewhere.csv")
    assert not run.trim_steps(1)
    run.append_steps([StepRecord(1, 0.1, 0.5)])
    assert [row.train_loss for row in run.read_steps()] == [2.0, 0.5]
    assert len((tmp_path / "elsewhere.csv").read_text().splitlines()) == 3
