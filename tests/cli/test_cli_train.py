"""`cifar-resnet train` and `find-lr`, through the real command line."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import QUICK_FLAGS, TINY_FLAGS, Answer, rows, tree

from cifar_cli.config import load_config

Cli = Callable[..., Answer]
PROGRAM = [sys.executable, "-m", "cifar_cli"]


def test_train_prints_a_line_an_epoch_and_the_table(cli: Cli, in_tmp: Path) -> None:
    answer = cli("train", *TINY_FLAGS, "--name", "first")
    assert answer.code == 0
    assert "Epochs" in answer.out
    assert "Val acc %" in answer.out
    assert "Run directory: runs/first" in answer.out
    lines = [line for line in answer.err.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert "Validating on the test split" in answer.err
    found = rows(in_tmp / "runs/first/metrics.csv")
    assert [row["epoch"] for row in found] == ["1", "2"]
    assert f"{float(found[-1]['val_accuracy']):.2%} after 2 epochs in" in answer.out


def test_one_epoch_is_told_in_the_singular(cli: Cli) -> None:
    answer = cli("train", *TINY_FLAGS, "--epochs", 1, "--set", "train.batch_size=100")
    assert "Training 100 images, 1 epoch of 1 step; run directory" in answer.err
    assert "% after 1 epoch in" in answer.out


def test_json_is_the_only_thing_on_stdout(cli: Cli) -> None:
    answer = cli("train", *TINY_FLAGS, "--json", "--quiet")
    assert answer.err == ""
    assert {
        "run_dir",
        "epochs_completed",
        "val_accuracy",
        "val_loss",
        "train_seconds",
    } <= answer.json.keys()
    assert answer.json["epochs_completed"] == 2


def test_every_option_reaches_the_configuration(cli: Cli, in_tmp: Path) -> None:
    answer = cli(
        "train", *TINY_FLAGS, "--epochs", 1, "--batch-size", 50, "--max-lr", 0.02,
        "--div-factor", 7, "--final-div-factor", 9, "--pct-start", 0.5, "--weight-decay", 0.001,
        "--dropout", 0.25, "--val-fraction", 0.1, "--run-dir", "mine", "--seed", 3,
        "--limit-train", 60, "--limit-val", 30, "--device", "cpu", "--data", "shapes", "--quiet",
    )  # fmt: skip
    assert answer.code == 0
    from cifar_cli.config.loading import flat_settings

    found = flat_settings(load_config(in_tmp / "mine" / "config.yaml", env={}))
    expected = {
        "train.epochs": 1, "train.batch_size": 50, "optim.max_lr": 0.02,
        "optim.weight_decay": 0.001, "schedule.div_factor": 7, "schedule.final_div_factor": 9,
        "schedule.pct_start": 0.5, "model.dropout": 0.25, "model.residual_dropout": 0.25,
        "data.val_fraction": 0.1, "data.limit_train": 60, "data.limit_val": 30, "seed": 3,
        "device": "cpu", "data.source": "shapes",
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected


def test_the_users_own_example_runs_with_the_course_projects_settings(
    cli: Cli, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_RESNET_DATA", "shapes")
    monkeypatch.setenv("CIFAR_RESNET_DATA__LIMIT_TRAIN", "40")
    monkeypatch.setenv("CIFAR_RESNET_DATA__LIMIT_VAL", "20")
    monkeypatch.setenv("CIFAR_RESNET_MODEL__WIDTH", "2")
    answer = cli("train", "--max-lr", "0.0465", "--div-factor", "2000")
    assert answer.code == 0
    (run,) = (in_tmp / "runs").iterdir()
    found = rows(run / "metrics.csv")
    assert len(found) == 24
    assert float(found[-1]["lr"]) == pytest.approx(0.0465 / 2000 / 100)


def test_resume_without_a_name_goes_on_with_the_newest_run(cli: Cli, in_tmp: Path) -> None:
    assert cli("train", *TINY_FLAGS, "--resume", "--quiet").code == 0  # nothing there: fresh
    (run,) = (in_tmp / "runs").iterdir()
    answer = cli("train", *TINY_FLAGS, "--resume", "--json", "--quiet")
    assert answer.json["run_dir"] == str(Path("runs") / run.name)
    assert len(list((in_tmp / "runs").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--epochs", "0"], 2, "train.epochs = 0"),
        (["--epochs", "many"], 2, "many"),
        (["--max-lr", "fast"], 2, "optim.max_lr"),
        (["--recipe", "basline"], 2, "did you mean 'baseline'"),
        (["--recipe", "missing.yaml"], 2, "missing.yaml"),
        (["--config", "missing.yaml"], 2, "missing.yaml"),
        (["--set", "model.widht=4"], 2, "did you mean 'width'"),
        (["--set", "width"], 2, "KEY=VALUE"),
        (["--device", "tpu"], 2, "device = 'tpu'"),
        (["--device", "cuda"], 2, "--device cuda: not available here"),
        (["--name", "a/b"], 2, "--name"),
        (["--name", "a", "--run-dir", "b"], 2, "Give one of them"),
        (["--bogus"], 2, "--bogus"),
        (["--set", "data.image_size=20", "--set", "augment.cutout_size=4"], 2, "multiple of 8"),
        (["--data", "nowhere"], 3, "nowhere"),
        (["--data", "."], 3, "train/<class>/"),
        (["--run-dir", "file/below"], 7, "Cannot write"),
        (["--run-dir", "/"], 2, "root of the file system"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_bad_input_ends_with_one_message_and_leaves_nothing(
    cli: Cli, in_tmp: Path, arguments: list[str], code: int, word: str
) -> None:
    (in_tmp / "file").write_text("")
    answer = cli("train", *TINY_FLAGS, *arguments)
    assert answer.code == code, answer.err
    assert answer.out == ""
    lines = [line for line in answer.err.splitlines() if not line.startswith("Training")]
    assert len(lines) == 1, answer.err
    assert lines[0].startswith("Error: ")
    assert word in lines[0]
    assert tree(in_tmp) == ["file"]
    assert not (in_tmp / "runs").exists()


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again_with_its_settings(
    cli: Cli, in_tmp: Path
) -> None:
    assert cli("train", *TINY_FLAGS, "--run-dir", "a", "--quiet").code == 0
    for path in [*(in_tmp / "a/checkpoints").iterdir(), in_tmp / "a/result.json"]:
        path.unlink()
    (in_tmp / "a/metrics.csv").unlink()
    before = (in_tmp / "a/config.yaml").read_bytes()
    answer = cli("train", "--resume", "--run-dir", "a", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["run_dir"] == "a"
    assert (in_tmp / "a/config.yaml").read_bytes() == before


def test_allow_changes_means_something_with_resume_only(cli: Cli) -> None:
    answer = cli("train", *TINY_FLAGS, "--allow-changes")
    assert (answer.code, "--resume" in answer.err) == (2, True)


def test_resume_takes_the_settings_of_the_run_itself(
    cli: Cli, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cli("train", *TINY_FLAGS, "--name", "mine", "--json")
    monkeypatch.setenv("CIFAR_RESNET_DATA", "nowhere")
    again = cli("train", "--resume", "--name", "mine", "--json")
    assert again.code == 0, again.err
    assert again.json["val_accuracy"] == first.json["val_accuracy"]
    other = cli("train", "--resume", "--name", "mine", "--batch-size", 8)
    assert other.code == 2
    assert "train.batch_size 32 → 8" in other.err


def test_find_lr_leaves_curve_table_and_suggestions(cli: Cli, in_tmp: Path) -> None:
    answer = cli("find-lr", *QUICK_FLAGS, "--end-lr", 10, "--num-iter", 40, "--start-lr", "1e-5")
    assert answer.code == 0
    assert tree(in_tmp) == [f"lr_range/lr_range.{kind}" for kind in ("csv", "json", "png")]
    for name in ("steepest", "valley", "minimum/10"):
        assert name in answer.out
    report = json.loads((in_tmp / "lr_range/lr_range.json").read_text())
    assert f"--max-lr {report['suggestion']:.3g}" in answer.out
    found = rows(in_tmp / "lr_range/lr_range.csv")
    assert len(found) == report["num_points"]
    low, high = report["band"]
    assert 1e-5 <= low < report["suggestion"] < high
    assert report["suggestions"]["middle"] == report["suggestion"] <= float(found[-1]["lr"])


def test_find_lr_prints_the_command_that_trains_with_what_was_tested(
    cli: Cli, in_tmp: Path
) -> None:
    (in_tmp / "my own.yaml").write_text("optim: {name: muon, bias_lr: 0.3, head_lr: 0.2}\n")
    arguments = ["--recipe", "my own.yaml", *QUICK_FLAGS, "--seed", 3]
    answer = cli("find-lr", *arguments, "--start-lr", "1e-6", "--end-lr", "1e-3")
    assert answer.code == 0, answer.err
    (line,) = (line for line in answer.out.splitlines() if line.startswith("Train with it: "))
    program, *command = shlex.split(line.removeprefix("Train with it: "))
    assert program == "cifar-resnet"
    trained = cli(*command, "--name", "a")
    assert trained.code == 0, trained.err
    config = load_config(in_tmp / "runs/a/config.yaml", env={})
    suggestion = json.loads((in_tmp / "lr_range/lr_range.json").read_text())["suggestion"]
    assert config.seed == 3
    assert config.optim.max_lr == pytest.approx(suggestion, rel=0.01)
    assert config.optim.bias_lr == pytest.approx(30 * suggestion, rel=0.01)
    assert config.optim.head_lr == pytest.approx(20 * suggestion, rel=0.01)


def test_find_lr_as_json_and_linear(cli: Cli) -> None:
    answer = cli(
        "find-lr", *QUICK_FLAGS, "--num-iter", 30, "--end-lr", 0.1, "--step-mode", "linear",
        "--out", "o", "--json", "--quiet",
    )  # fmt: skip
    assert {"suggestion", "num_points", "stopped_early"} <= answer.json.keys()
    assert not answer.json["stopped_early"]
    assert answer.json["num_points"] == 30
    assert answer.err == ""


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--num-iter", "3"], "--num-iter 3"),
        (["--num-iter", "9999"], "--num-iter 9999"),
        (["--start-lr", "1", "--end-lr", "0.1"], "--start-lr 1"),
        (["--end-lr", "inf"], "--end-lr inf"),
        (["--step-mode", "cubic"], "cubic"),
    ],
)
def test_find_lr_refuses_ranges_that_make_no_curve(
    cli: Cli, in_tmp: Path, arguments: list[str], word: str
) -> None:
    answer = cli("find-lr", *TINY_FLAGS, *arguments)
    assert answer.code == 2
    assert word in answer.err
    assert tree(in_tmp) == []
