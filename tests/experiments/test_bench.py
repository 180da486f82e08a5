"""Bench: figures by hand, and two recipes through the real command."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, tiny_config
from forked import ForkedPython
from processes import Running, ends, is_alive
from stopped import FLAGS

from cifar_cli import train
from cifar_cli.config.loading import flat_settings, load_config
from cifar_cli.errors import CheckpointError, ConfigError, StorageError
from cifar_cli.experiments import bench as bench_module
from cifar_cli.experiments import child
from cifar_cli.experiments.bench import spread
from cifar_cli.experiments.flops import training_flops
from cifar_cli.rundir import RunDir
from cifar_cli.storage import write_json

Cli = Callable[..., Answer]


def test_mean_deviation_and_interval_by_hand() -> None:
    found = spread([1.0, 2.0, 3.0])
    assert (found.n, found.mean, found.deviation) == (3, 2.0, 1.0)
    assert found.interval == pytest.approx((2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)))
    one = spread([5.0])
    assert (one.n, one.mean, one.deviation, one.interval) == (1, 5.0, None, None)
    many = spread([0.0, 1.0] * 50)
    assert many.interval is not None
    assert many.interval[1] - 0.5 == pytest.approx(1.96 * many.deviation / 10)  # type: ignore[operator]


def test_operations_of_a_small_network_by_hand() -> None:
    config = tiny_config(
        model__name="speed_resnet", model__widths=[4, 4, 4], model__convolutions=1,
        optim__name="muon", train__epochs=2, train__resolutions=[[0.5, 17]],
    )  # fmt: skip

    def forward_and_backward(side: int) -> int:
        stem, a = side - 1, (side - 1) // 2
        b = a // 2
        # Multiply-adds.
        forward = [stem**2 * 24 * 12, stem**2 * 4 * 24 * 9, a**2 * 4 * 4 * 9, b**2 * 4 * 4 * 9, 40]
        # Backward: as much for the filters and as much again for the inputs; nothing for the
        # stem, which is fixed, nor for the inputs of what follows it.
        return 2 * (forward[0] + 2 * forward[1] + 3 * sum(forward[2:]))

    images = 100
    expected = images * (forward_and_backward(17) + forward_and_backward(32))
    assert training_flops(config, 10, images) == pytest.approx(expected)


def test_resnet94_is_baselines_network_for_at_most_half_of_its_operations() -> None:
    baseline, resnet94 = (load_config(name, env={}) for name in ("baseline", "resnet94"))
    still = {"dropout": 0.0, "residual_dropout": 0.0}
    assert baseline.model.model_copy(update=still) == resnet94.model
    spent, allowed = (training_flops(c, 10, 50_000) for c in (resnet94, baseline))
    assert spent <= allowed / 2


def test_bench_runs_recipes_and_keeps_what_is_complete(
    cli: Cli, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, forked_python: ForkedPython
) -> None:
    (in_tmp / "a.yaml").write_text("schedule: {pct_start: 0.3}\n")
    monkeypatch.setenv("CIFAR_RESNET_TRAIN__EPOCHS", "2")  # which --set goes before
    arguments = ["bench", "a.yaml", *FLAGS, "--set", "train.epochs=1"]
    first = cli(*arguments, "--runs", 1, "--json")
    assert first.code == 0, first.err
    (run,) = first.json["runs"]
    assert run["seed"] == 1
    assert 0 < run["train_seconds"] < run["process_seconds"]
    assert run["peak_bytes"] > 100 * 2**20
    assert run["curve"] == [[run["train_seconds"], run["accuracy"]]]
    # The second run in processes that start quickly, whose memory is not what a user's is.
    monkeypatch.setattr(sys, "executable", str(forked_python.path))
    arguments += ["--runs", 2]
    second = cli(*arguments, "--json")
    assert second.code == 0, second.err
    (recipe,) = second.json["recipes"].values()
    assert recipe["accuracy"]["n"] == 2
    low, high = recipe["train_seconds"]["interval"]
    assert low < recipe["train_seconds"]["mean"] < high
    runs = second.json["runs"]
    assert [run["seed"] for run in runs] == [1, 2]
    assert runs[0] == run
    assert runs[1]["curve"] == [[runs[1]["train_seconds"], runs[1]["accuracy"]]]
    assert sorted(p.name for p in (in_tmp / "bench").iterdir()) == [
        "a-1", "a-2", "accuracy_seconds.png", "bench.json",
    ]  # fmt: skip
    again = cli(*arguments)
    assert again.code == 0
    assert again.err.count("already there") == 2
    assert "Accuracy, 6 views %" in again.out
    assert json.loads((in_tmp / "bench/bench.json").read_text())["runs"] == runs
    other = cli(*arguments, "--set", "train.label_smoothing=0.1")
    assert other.code == 2
    assert "bench/a-1 was run with other settings: train.label_smoothing 0.0, not 0.1." in other.err


def test_an_interrupted_run_is_repeated_with_the_settings_as_they_are(
    cli: Cli, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, forked_python: ForkedPython
) -> None:
    monkeypatch.setattr(sys, "executable", str(forked_python.path))
    # As a bench leaves it that is interrupted while it trains.
    assert cli("train", "--recipe", "demo", *FLAGS, "--run-dir", "bench/demo-1").code == 0
    (in_tmp / "bench/demo-1/result.json").unlink()
    monkeypatch.setenv("CIFAR_RESNET_TRAIN__EPOCHS", "3")  # which --set goes before
    monkeypatch.setenv("CIFAR_RESNET_OPTIM__WEIGHT_DECAY", "0.5")
    answer = cli("bench", "demo", *FLAGS, "--set", "train.epochs=1", "--runs", 1, "--json")
    assert answer.code == 0, answer.err
    ours, aside = sorted(p for p in (in_tmp / "bench").iterdir() if p.is_dir())
    assert ours.name == "demo-1"
    assert aside.name.startswith("demo-1-unfinished-")
    assert (aside / "checkpoints/last.pt").is_file()  # it may be somebody's own
    assert len(answer.json["runs"][0]["curve"]) == 1
    ran = load_config(ours / "config.yaml", env={})
    assert (ran.train.epochs, ran.optim.weight_decay) == (1, 0.5)


def test_bench_sees_what_is_in_the_way_before_it_runs_anything(cli: Cli, in_tmp: Path) -> None:
    (in_tmp / "bench/demo-2").mkdir(parents=True)
    (in_tmp / "bench/demo-2/thesis.txt").write_text("precious")
    answer = cli("bench", "demo", *FLAGS, "--runs", 2)
    assert (answer.code, "bench/demo-2 exists and is not a run" in answer.err) == (2, True)
    assert (in_tmp / "bench/demo-2/thesis.txt").read_text() == "precious"
    assert not (in_tmp / "bench/demo-1").exists()
    answer = cli("bench", "demo", *FLAGS, "--out", "b", "--runs", 2, "--seed", 2**31 - 1)
    assert (answer.code, "'--seed': 2147483647 is not in the range" in answer.err) == (2, True)


def test_a_run_that_fails_ends_bench_with_its_own_code(cli: Cli, in_tmp: Path) -> None:
    answer = cli("bench", "baseline", "--data", "nowhere", "--runs", 1)
    assert answer.code == 3
    assert "baseline, seed 1: " in answer.err
    assert "nowhere" in answer.err
    assert cli("bench", "fast91").code == 2
    assert cli("bench", "--runs", 0).code == 2


def test_recipes_take_turns_after_a_warm_up_each_and_are_seen_from_one_and_six_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, str]] = []

    def call(title: str, arguments: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        if arguments[0] == "train":
            trained.append((title, "warm-up" if "--limit-train" in arguments else "whole"))
            return {}, {"process_seconds": 1.0}
        views = arguments[arguments.index("--tta") + 1]
        return {"accuracy": {"none": 0.5, "flip-translate": 0.6}[views], "seconds": 1.0}, {}

    def read(recipe: str, seed: int, path: Path) -> Any:
        return json.loads((path / "bench.json").read_text(encoding="utf-8"))

    monkeypatch.setattr(bench_module, "call", call)
    monkeypatch.setattr(bench_module, "read_run", read)
    recipes = {"a": tiny_config(), "b": tiny_config()}
    found: list[Any] = list(bench_module.bench(recipes, 2, tmp_path, 4))
    assert trained == [
        ("a, seed 4", "warm-up"), ("a, seed 4", "whole"),
        ("b, seed 4", "warm-up"), ("b, seed 4", "whole"),
        ("b, seed 5", "whole"), ("a, seed 5", "whole"),
    ]  # fmt: skip
    assert [(r["accuracy"], r["accuracy_six_views"]) for r in found] == [(0.5, 0.6)] * 4


@pytest.fixture(scope="module")
def benched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as `bench` leaves it, with figures that are made up."""
    config = tiny_config(train__epochs=1)
    run = RunDir(train(config, tmp_path_factory.mktemp("bench") / "demo-1").run_dir)
    figures = dict.fromkeys(bench_module.FIGURES, 0.5)
    write_json(run.path / "bench.json", {**figures, "settings": flat_settings(config)})
    return run.path


@pytest.mark.parametrize("name", ["bench.json", "result.json", "metrics.csv", "config.yaml"])
@pytest.mark.fault(64)
def test_a_damaged_file_of_a_complete_run_is_told(benched: Path, tmp_path: Path, name: str) -> None:
    assert bench_module.read_run("demo", 1, benched).accuracy == 0.5
    sound = (benched / name).read_bytes()
    damages = [b"", b"[" * 100_000, b"\xff", b"{}", b"[]", b"null", sound[: len(sound) // 2],
               sound.replace(b"0.", b"NaN", 1), sound.replace(b"accuracy", b"x"),
               sound.replace(b"0.5", b'"0.5"'), sound.replace(b"0.5", b"1e999"),
               sound.replace(b": 10", b": -1"), sound.replace(b": 10", b": 1" + b"0" * 400),
               sound.replace(b"settings", b"x"), b"9" * 200_000]  # fmt: skip
    copy, told = tmp_path / "demo-1", 0
    for damage in [d for d in damages if d != sound]:
        shutil.copytree(benched, copy)
        (copy / name).write_bytes(damage)
        try:
            bench_module.read_run("demo", 1, copy)
        except CheckpointError:
            told += 1
        shutil.rmtree(copy)
    assert told >= 6


def test_a_kept_run_that_used_what_is_no_longer_there_is_another_one(
    benched: Path, tmp_path: Path
) -> None:
    shutil.copytree(benched, tmp_path / "demo-1")
    record = json.loads((benched / "bench.json").read_text())
    recipes = {"demo": tiny_config(train__epochs=1)}
    for value, differs in ((0, False), (5, True)):
        settings = {**record["settings"], "train.lookahead": value, "model.eval_size": None}
        write_json(tmp_path / "demo-1" / "bench.json", {**record, "settings": settings})
        if differs:
            with pytest.raises(ConfigError, match=r"train\.lookahead = 5 is no longer"):
                bench_module.plan(recipes, 1, tmp_path)
        else:
            assert bench_module.plan(recipes, 1, tmp_path)[0].is_complete


@pytest.mark.fault(64)
def test_bench_refuses_a_damaged_record_before_it_runs_anything(
    benched: Path, cli: Cli, in_tmp: Path
) -> None:
    shutil.copytree(benched, in_tmp / "bench/demo-1")
    (in_tmp / "bench/demo-1/bench.json").write_text("{")
    answer = cli("bench", "demo", *FLAGS, "--runs", 2)
    assert (answer.code, "demo-1/bench.json" in answer.err) == (4, True)
    assert [p.name for p in (in_tmp / "bench").iterdir()] == ["demo-1"]


def children_of(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, 6)]
)
@pytest.mark.fault(88)
def test_a_stop_of_bench_ends_its_training_and_a_killed_training_is_told(
    in_tmp: Path, number: int, code: int
) -> None:
    process = Running(in_tmp, "bench", "demo", *FLAGS, "--runs", 1)
    process.wait_for(lambda: children_of(process.pid))
    (child,) = children_of(process.pid)
    if number == signal.SIGKILL:
        os.kill(child, number)
    else:
        process.kill(number)
    assert process.end() == code, process.text()
    assert not Path(f"/proc/{child}").exists()
    told = "demo, seed 1: its process was killed by SIGKILL, as systems do for lack of memory"
    assert (told in process.text()) == (number == signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child is not told")
@pytest.mark.fault(88)
def test_a_training_does_not_outlive_a_bench_that_is_killed(in_tmp: Path) -> None:
    process = Running(in_tmp, "bench", "demo", *FLAGS, "--runs", 1)
    process.wait_for(lambda: children_of(process.pid))
    (child,) = children_of(process.pid)
    process.wait_for(lambda: b"cifar_cli" in Path(f"/proc/{child}/cmdline").read_bytes())
    process.kill()
    assert process.end() == 137
    assert ends(lambda: not is_alive(child))


@pytest.mark.fault(96)
def test_what_else_a_command_prints_is_not_taken_for_its_result() -> None:
    result = {"schema_version": 1, "inner": {"a": "{"}}
    text = json.dumps(result, indent=2)
    for before in ("", "sitecustomize\n", "a set {1, 2}", '{"schema": {}}\n{', "[1]"):
        for after in ("", "\n", "\ngoodbye {}\n", "7"):
            assert child._document(before + text + after, "demo") == result
    for nothing in ("", "{", "{}", "[" * 100_000, "{" * 1000):
        with pytest.raises(ConfigError, match="demo: it printed no result"):
            child._document(nothing, "demo")


@pytest.mark.fault(73)
def test_bench_says_that_there_is_no_place_for_temporary_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nowhere(**_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", nowhere)
    with pytest.raises(StorageError, match=r"Cannot make a temporary folder: .*TMPDIR"):
        child.call("demo, seed 1", ["recipes", "list"])
