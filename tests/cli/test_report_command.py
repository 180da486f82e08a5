"""`report` through the real command: its file, what is there of unfinished runs, refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Answer
from stopped import interrupted

from cifar_cli.rundir import RunDir

Cli = Callable[..., Answer]


def page(answer: Answer) -> str:
    assert answer.code == 0, answer.err
    text = Path(answer.json["file"]).read_bytes()
    assert answer.json["bytes"] == len(text)
    return text.decode()


def test_a_report_lies_in_the_run_and_is_the_same_when_it_is_made_again(
    cli: Cli, in_tmp: Path, trained: Path
) -> None:
    shutil.copytree(trained, "runs/tiny")
    first = cli("report", "tiny", "--json")
    assert first.json["file"] == "runs/tiny/report/val_last.html"
    assert {"file", "bytes", "schema_version"} <= set(first.json)
    text = page(first)
    for part in ("Reliability diagram", "Learning rate", "Suspected label errors", "width: 4"):
        assert part in text
    again = cli("report", "tiny")
    assert "Replacing results of an earlier report in runs/tiny/report: val_last.html" in again.err
    assert again.out.splitlines()[-1] == "runs/tiny/report/val_last.html"
    assert Path("runs/tiny/report/val_last.html").read_text(encoding="utf-8") == text
    other = cli("report", "tiny", "--checkpoint", "best", "--split", "train", "--limit-val", 20,
                "--n", 3, "--json", "--quiet")  # fmt: skip
    assert other.json["file"] == "runs/tiny/report/train_best_n20.html"
    text = page(other)
    assert "The network was trained on these images." in text
    assert "--checkpoint best --split train --limit-val 20 --n 3" in text


def test_the_command_that_trains_again_works_as_printed(
    cli: Cli, in_tmp: Path, trained: Path
) -> None:
    shutil.copytree(trained, "runs/tiny")
    text = page(cli("report", "tiny", "--json"))
    command = "train --recipe runs/tiny/config.yaml --name tiny-again"
    assert f"cifar-resnet {command}<" in text
    assert cli(*command.split(), "--epochs", 1, "--quiet").code == 0
    assert RunDir(in_tmp / "runs" / "tiny-again").result.exists()


def test_a_run_that_was_interrupted_or_still_trains_is_reported_as_far_as_it_came(
    cli: Cli, in_tmp: Path
) -> None:
    run = interrupted("a")
    assert "Training was interrupted: 1 of 3 epochs finished." in page(cli("report", "a", "--json"))
    with run.locked():
        text = page(cli("report", "a", "--json"))
    assert "The run is still training: 1 of 3 epochs finished." in text


def test_a_file_outside_of_a_run_is_reported_without_curves(
    cli: Cli, in_tmp: Path, trained: Path
) -> None:
    shutil.copy(trained / "checkpoints" / "last.pt", "copy.pt")
    answer = cli("report", "--checkpoint", "copy.pt", "--json")
    assert answer.json["file"].startswith("report/val_copy-")
    text = page(answer)
    assert "The checkpoint is a file outside of a run." in text
    assert 'id="curves"' not in text
    assert "Save the configuration below as config.yaml first." in text


@pytest.mark.fault(101)
def test_a_run_without_a_checkpoint_gives_no_report(cli: Cli, in_tmp: Path) -> None:
    run = interrupted("a")
    shutil.rmtree(run.last.parent)
    answer = cli("report", "a", "--json")
    assert (answer.code, answer.out) == (4, "")
    assert "There is no checkpoint a/checkpoints/last.pt. Train again." in answer.err
    assert not Path("a/report").exists()


def test_a_page_of_somebody_else_is_never_replaced_and_a_folder_is_no_file(
    cli: Cli, in_tmp: Path, trained: Path
) -> None:
    theirs = in_tmp / "thesis.html"
    theirs.write_text("<p>Trained with cifar-resnet</p>")
    answer = cli("report", trained, "--out", theirs)
    assert answer.code == 2
    assert "thesis.html exists already, and cifar-resnet has not written it" in answer.err
    assert theirs.read_text() == "<p>Trained with cifar-resnet</p>"
    answer = cli("report", trained, "--out", in_tmp)
    assert answer.code == 2
    assert "is a folder. Name a file" in answer.err
