"""A whole run: what it leaves, how it stops, and how it goes on."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from conftest import tiny_config

from cifar_cli.analysis.evaluate import evaluate
from cifar_cli.config.loading import read_config
from cifar_cli.errors import (
    CheckpointError,
    ConfigError,
    DivergedError,
    Interrupted,
    OutOfMemoryError,
    StorageError,
)
from cifar_cli.rundir import EpochRecord, RunDir
from cifar_cli.training import run as run_module
from cifar_cli.training.checkpoint import load_checkpoint
from cifar_cli.training.observer import Observer
from cifar_cli.training.run import train


class StopAt(Observer):
    """Sends a signal to this process after a step."""

    def __init__(self, epoch: int, step: int, number: int = signal.SIGINT) -> None:
        self.at, self.number = (epoch, step), number
        self.messages: list[str] = []

    def stepped(self, epoch: int, step: int) -> None:
        if (epoch, step) == self.at:
            os.kill(os.getpid(), self.number)

    def message(self, text: str) -> None:
        self.messages.append(text)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path / "checkpoints" / "last.pt").weights


def figures(history: list[EpochRecord]) -> list[tuple[float, ...]]:
    return [(r.epoch, r.train_loss, r.train_accuracy, r.val_loss, r.lr) for r in history]


def test_a_run_leaves_everything_that_the_documents_name(in_tmp: Path) -> None:
    config = tiny_config()
    result = train(config, name="first")
    assert result.run_dir == Path("runs/first")
    names = {p.name for p in result.run_dir.iterdir()}
    assert names == {
        "config.yaml",
        "env.json",
        "metrics.csv",
        "steps.csv",
        "events.jsonl",
        "status.json",
        "result.json",
        "checkpoints",
    }
    assert {p.name for p in (result.run_dir / "checkpoints").iterdir()} == {
        "last.pt",
        "best.pt",
        "previous.pt",
    }
    assert read_config(result.run_dir / "config.yaml") == config
    run = RunDir(result.run_dir)
    assert run.read_json("status.json")["state"] == "completed"
    assert run.read_json("result.json")["val_accuracy"] == result.val_accuracy
    assert run.read_json("env.json")["packages"]["torch"]
    assert len(run.read_metrics()) == result.epochs_completed == 2
    assert len(run.read_steps()) == 8
    events = (result.run_dir / "events.jsonl").read_text().splitlines()
    assert [json.loads(e)["event"] for e in events] == ["started", "epoch", "epoch", "completed"]


def test_the_headline_is_the_last_epoch_and_the_best_is_named_apart(in_tmp: Path) -> None:
    result = train(tiny_config(train__epochs=4), name="a")
    assert result.val_accuracy == result.history[-1].val_accuracy
    assert result.best_val_accuracy == max(r.val_accuracy for r in result.history)
    best = load_checkpoint(RunDir(result.run_dir).best)
    assert evaluate(result.run_dir, checkpoint="best").accuracy == result.best_val_accuracy
    assert best.training is None


def test_a_name_that_is_taken_starts_a_run_beside_it(in_tmp: Path) -> None:
    first = train(tiny_config(train__epochs=1), name="a")
    before = (first.run_dir / "metrics.csv").read_bytes()
    second = train(tiny_config(train__epochs=1), name="a")
    assert second.run_dir.name == "a-2"
    assert (first.run_dir / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize("place", [(1, 2), (1, 4), (2, 1)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_to_the_very_same_weights(
    in_tmp: Path, place: tuple[int, int], number: int
) -> None:
    config = tiny_config(model__dropout=0.2)
    whole = train(config, name="whole")
    stopper = StopAt(*place, number)
    with pytest.raises(Interrupted, match="everything is saved") as caught:
        train(config, name="stopped", observer=stopper)
    assert caught.value.exit_code == 128 + number
    assert stopper.messages[-1].startswith("Stopping")
    run = RunDir(Path("runs/stopped"))
    assert run.read_json("status.json")["state"] == "interrupted"
    assert not (run.path / "result.json").exists()
    again = train(config, name="stopped", resume=True)
    assert again.run_dir == Path("runs/stopped")
    assert figures(list(again.history)) == figures(list(whole.history))
    one, two = weights(whole.run_dir), weights(again.run_dir)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert [s.train_loss for s in run.read_steps()] == [
        s.train_loss for s in RunDir(whole.run_dir).read_steps()
    ]
    assert run.read_json("status.json")["state"] == "completed"


def test_a_stop_in_the_last_step_of_all_finishes_the_run(in_tmp: Path) -> None:
    with pytest.raises(Interrupted):
        train(tiny_config(), name="a", observer=StopAt(2, 4))
    result = train(tiny_config(), name="a", resume=True)
    assert result.epochs_completed == 2


def test_handlers_of_signals_are_put_back(in_tmp: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        train(tiny_config(), name="a", observer=StopAt(1, 1))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_training_works_in_a_thread(in_tmp: Path) -> None:
    results = []
    thread = threading.Thread(
        target=lambda: results.append(train(tiny_config(train__epochs=1), name="a"))
    )
    thread.start()
    thread.join()
    assert results[0].epochs_completed == 1


def test_resume_without_a_run_starts_fresh_and_a_finished_run_stays(in_tmp: Path) -> None:
    first = train(tiny_config(), name="a", resume=True)
    assert first.epochs_completed == 2
    before = weights(first.run_dir)
    again = train(tiny_config(), name="a", resume=True)
    assert again.run_dir == first.run_dir
    assert figures(list(again.history)) == figures(list(first.history))
    after = weights(again.run_dir)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_decides_the_result_may_not_change_at_a_resume(in_tmp: Path) -> None:
    train(tiny_config(), name="a")
    with pytest.raises(ConfigError, match=r"train\.batch_size 32 → 16") as caught:
        train(tiny_config(train__batch_size=16, seed=5), name="a", resume=True)
    assert "seed 1 → 5" in str(caught.value)
    train(tiny_config(runtime__threads=1), name="a", resume=True)


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(in_tmp: Path) -> None:
    whole = train(tiny_config(), name="a")
    expected = weights(whole.run_dir)
    run = RunDir(whole.run_dir)
    run.last.write_bytes(b"rubbish")
    again = train(tiny_config(), name="a", resume=True)
    assert figures(list(again.history)) == figures(list(whole.history))
    after = weights(again.run_dir)
    assert all(torch.equal(expected[name], after[name]) for name in expected)


def test_a_run_whose_checkpoints_are_all_damaged_is_not_overwritten(in_tmp: Path) -> None:
    run = RunDir(train(tiny_config(), name="a").run_dir)
    for path in (run.last, run.last.with_name("previous.pt")):
        path.write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="damaged"):
        train(tiny_config(), name="a", resume=True)
    assert run.last.read_bytes() == b"rubbish"


def test_divergence_is_noted_in_the_run(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = run_module._fresh_state

    def poisoned(*arguments: object) -> object:
        state = build(*arguments)  # type: ignore[arg-type]
        with torch.no_grad():
            next(state.model.parameters()).fill_(float("nan"))
        return state

    monkeypatch.setattr(run_module, "_fresh_state", poisoned)
    with pytest.raises(DivergedError, match="Lower --max-lr"):
        train(tiny_config(), name="a")
    assert RunDir(Path("runs/a")).read_json("status.json")["state"] == "failed"


@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
def test_a_run_that_breaks_while_saving_loses_neither_the_best_nor_a_step(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = train(tiny_config(train__epochs=3), name="whole")
    save, broken = run_module.save_checkpoint, []

    def breaking(path: Path, *arguments: object, **options: object) -> None:
        if path.name == name and not broken and RunDir(Path("runs/a")).last.is_file():
            broken.append(path)
            raise StorageError("the disk is full")
        save(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "save_checkpoint", breaking)
    with pytest.raises(StorageError):
        train(tiny_config(train__epochs=3), name="a")
    assert RunDir(Path("runs/a")).read_json("status.json")["state"] == "failed"
    train(tiny_config(train__epochs=3), name="a", resume=True)
    for file in ("last", "best"):
        expected, found = (
            load_checkpoint(Path("runs") / run / "checkpoints" / f"{file}.pt").weights
            for run in ("whole", "a")
        )
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    steps = (Path("runs") / "a" / "steps.csv").read_text()
    assert steps == (whole.run_dir / "steps.csv").read_text()


def test_memory_that_runs_out_is_noted_in_the_run(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object, **__: object) -> None:
        torch.empty(2**60)

    monkeypatch.setattr(run_module, "train_epochs", too_large)
    with pytest.raises(OutOfMemoryError, match="--batch-size 16"):
        train(tiny_config(), name="a")
    assert RunDir(Path("runs/a")).read_json("status.json")["state"] == "failed"


def test_the_found_learning_rate_is_written_into_the_configuration(in_tmp: Path) -> None:
    config = tiny_config(optim__max_lr="auto", train__epochs=1)
    result = train(config, name="a")
    written = read_config(result.run_dir / "config.yaml")
    assert isinstance(written.optim.max_lr, float)
    assert written.optim.max_lr > 0
    assert train(config, name="a", resume=True).run_dir == result.run_dir


def test_an_estimate_comes_once_and_scales_with_what_is_left(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listener(Observer):
        def __init__(self) -> None:
            self.estimates: list[float] = []

        def estimated(self, seconds: float) -> None:
            self.estimates.append(seconds)

    times = iter(range(0, 10_000, 10))

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return float(next(times))

        strftime = staticmethod(run_module.time.strftime)

    monkeypatch.setattr(run_module, "time", Clock)
    listener = Listener()
    train(tiny_config(train__epochs=3), name="a", observer=listener)
    # Steps 2 and 3 took 10 "seconds" together; 12 steps are to do.
    assert listener.estimates == [10 / 2 * 12]


def test_training_validates_on_held_out_images_when_asked(in_tmp: Path) -> None:
    config = tiny_config(data__val_fraction=0.1)
    result = train(config, name="a")
    assert RunDir(result.run_dir).read_json("result.json")["validated_on"] == (
        "held-out training images"
    )
