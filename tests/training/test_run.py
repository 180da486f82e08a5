"""A whole run: what it leaves, how it stops, and how it goes on."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from conftest import Answer, spoiled, tiny_config
from PIL import Image

from cifar_cli.analysis.evaluate import evaluate
from cifar_cli.cli.app import run as run_command
from cifar_cli.config import load_config
from cifar_cli.data.sources.load import load_dataset
from cifar_cli.errors import (
    CheckpointError,
    ConfigError,
    DivergedError,
    Interrupted,
    OutOfMemoryError,
    StorageError,
)
from cifar_cli.rundir import EpochRecord, RunDir
from cifar_cli.training import clock as clock_module
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
    assert load_config(result.run_dir / "config.yaml", env={}) == config
    run = RunDir(result.run_dir)
    assert run.read_json("status.json")["state"] == "completed"
    assert run.read_json("result.json")["val_accuracy"] == result.val_accuracy
    assert run.read_json("env.json")["packages"]["torch"]
    assert len(run.read_metrics()) == result.epochs_completed == 2
    assert len(run.read_steps()) == 8
    events = (result.run_dir / "events.jsonl").read_text().splitlines()
    seen = [json.loads(e)["event"] for e in events]
    assert [e for e in seen if e != "warning"] == ["started", "epoch", "epoch", "completed"]


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
    assert stopper.messages[-1].startswith("Finishing this step")
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


@pytest.mark.fault(21)
def test_resuming_a_finished_run_touches_nothing(in_tmp: Path) -> None:
    first = train(tiny_config(), name="a")
    before = {p: p.stat().st_mtime_ns for p in Path("runs").rglob("*")}
    listener = StopAt(0, 0)
    again = train(tiny_config(), name="a", resume=True, observer=listener)
    assert again == first
    assert {p: p.stat().st_mtime_ns for p in Path("runs").rglob("*")} == before
    assert listener.messages == ["runs/a is complete; there is nothing to do."]


@pytest.mark.fault(13)
def test_resume_with_nothing_to_resume_starts_fresh_and_says_so(in_tmp: Path) -> None:
    listener = StopAt(0, 0)
    first = train(tiny_config(), name="a", resume=True, observer=listener)
    assert first.epochs_completed == 2
    assert listener.messages[0] == "Nothing to resume in runs/a: starting a new run."
    train(tiny_config(train__epochs=1), run_dir="elsewhere", resume=True)
    assert Path("elsewhere/result.json").is_file()


@pytest.mark.fault(12)
def test_a_name_to_resume_that_is_not_among_the_runs_is_a_slip(in_tmp: Path) -> None:
    train(tiny_config(train__epochs=1), name="monday")
    with pytest.raises(CheckpointError, match=r"--resume --name mondya: .*did you mean 'monday'"):
        train(tiny_config(), name="mondya", resume=True)
    assert [p.name for p in Path("runs").iterdir()] == ["monday"]


def test_only_one_process_trains_in_a_run(in_tmp: Path) -> None:
    with pytest.raises(Interrupted):
        train(tiny_config(), name="a", observer=StopAt(1, 1))
    with (
        RunDir(Path("runs/a")).locked(),
        pytest.raises(ConfigError, match="Another process is training in runs/a"),
    ):
        train(tiny_config(), name="a", resume=True)
    assert train(tiny_config(), name="a", resume=True).epochs_completed == 2


def test_a_run_is_saved_within_an_epoch_as_often_as_asked(in_tmp: Path) -> None:
    class Last(Observer):
        steps: ClassVar[set[int]] = set()

        def stepped(self, epoch: int, step: int) -> None:
            last = RunDir(Path("runs/a")).last
            if epoch == 1 and last.is_file():
                training = load_checkpoint(last).training
                assert training is not None
                self.steps.add(training.step)

    train(tiny_config(train__save_minutes=1e-9), name="a", observer=Last())
    assert Last.steps == {1, 2, 3}


def test_what_decides_the_result_may_not_change_at_a_resume(in_tmp: Path) -> None:
    train(tiny_config(), name="a")
    with pytest.raises(ConfigError, match=r"train\.batch_size 32 → 16") as caught:
        train(tiny_config(train__batch_size=16, seed=5), name="a", resume=True)
    assert "seed 1 → 5" in str(caught.value)
    train(tiny_config(runtime__threads=1), name="a", resume=True)


def test_a_resume_under_other_conditions_says_which(in_tmp: Path) -> None:
    run = RunDir(Path("runs/a"))

    def notices(epoch: int, step: int) -> list[str]:
        listener = StopAt(epoch, step)
        with suppress(Interrupted):
            train(tiny_config(), name="a", resume=True, observer=listener)
        return [text for text in listener.messages if text.startswith("Not bit-identical")]

    assert notices(1, 1) == []
    environment = run.read_json("env.json")
    other = {"packages": environment["packages"] | {"torch": "1.0"}, "threads": 99, "python": "2"}
    run.write_env(environment | other)
    threads, torch_now = environment["threads"], environment["packages"]["torch"]
    what = [f"threads 99 → {threads}", f"torch 1.0 → {torch_now}"]
    assert notices(1, 2) == [
        f"Not bit-identical to an uninterrupted run. Reasons: {'; '.join(what)}."
    ]
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    assert [e["changed"] for e in events if e["event"] == "resumed"] == [what]
    assert run.read_json("env.json") == environment
    assert notices(1, 3) == []  # nothing has changed
    (run.path / "env.json").write_text("{")
    assert notices(0, 0) == []
    assert run.read_json("status.json")["state"] == "completed"


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    "changes",
    [{"train__epochs": 3}, {"train__batch_size": 16}, {"data__limit_train": 90}, {"seed": 5}],
    ids=str,
)
def test_changed_settings_need_to_be_asked_for(in_tmp: Path, changes: dict[str, int]) -> None:
    with pytest.raises(Interrupted):
        train(tiny_config(), name="a", observer=StopAt(1, 2))
    before = {p: p.read_bytes() for p in Path("runs/a").rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match="add --allow-changes"):
        train(tiny_config(**changes), name="a", resume=True)
    assert {p: p.read_bytes() for p in Path("runs/a").rglob("*") if p.is_file()} == before
    listener = StopAt(0, 0)
    result = train(
        tiny_config(**changes), name="a", resume=True, allow_changes=True, observer=listener
    )
    assert any(text.startswith("Resuming with changes: ") for text in listener.messages)
    assert result.epochs_completed == changes.get("train__epochs", 2)
    # Where steps no longer stand for the same images, the epoch at hand is done anew.
    restarted = any("starts over at its first step" in text for text in listener.messages)
    assert restarted == ("train__epochs" not in changes)
    steps = RunDir(result.run_dir).read_steps()
    assert [s.step for s in steps] == list(range(len(steps)))


@pytest.mark.fault(20)
def test_other_images_in_the_same_place_are_noticed_at_a_resume(
    in_tmp: Path, class_folders: Callable[..., Path]
) -> None:
    folder = class_folders(counts=(12, 4))
    config = tiny_config(data__source=str(folder), train__batch_size=8)
    with pytest.raises(Interrupted):
        train(config, name="a", observer=StopAt(1, 1))
    folder.rename(moved := folder.with_name("moved"))
    assert config.data.source != str(moved)
    same = tiny_config(data__source=str(moved), train__batch_size=8)
    with pytest.raises(Interrupted):
        train(same, name="a", resume=True, observer=StopAt(1, 3))
    picture = next((moved / "train" / "cat").iterdir())
    Image.new("RGB", (32, 32)).save(picture)
    with pytest.raises(ConfigError, match="images are not those"):
        train(same, name="a", resume=True)
    listener = StopAt(0, 0)
    train(same, name="a", resume=True, allow_changes=True, observer=listener)
    assert "Epoch 1 starts over at its first step." in listener.messages


def test_what_to_go_on_with_can_be_pasted_though_the_path_has_a_space(in_tmp: Path) -> None:
    with pytest.raises(Interrupted, match=r"--run-dir 'my run'$"):
        train(tiny_config(), "my run", observer=StopAt(1, 1))


@pytest.mark.fault(20)
def test_other_images_are_refused_where_those_held_out_are_drawn_from_them(
    in_tmp: Path, class_folders: Callable[..., Path]
) -> None:
    folder = class_folders(counts=(12, 4))
    changes = {"data__source": str(folder), "train__batch_size": 8, "data__val_fraction": 0.25}
    with pytest.raises(Interrupted):
        train(tiny_config(**changes), name="a", observer=StopAt(1, 1))
    another = folder / "train" / "cat" / "one_more.png"
    Image.new("RGB", (32, 32)).save(another)
    fewer = tiny_config(**changes, data__limit_val=4)
    for config in (tiny_config(**changes), fewer):
        with pytest.raises(ConfigError, match="validated on images"):
            train(config, name="a", resume=True, allow_changes=True)
    another.unlink()
    train(fewer, name="a", resume=True, allow_changes=True)


@pytest.mark.fault(14)
def test_a_network_of_another_shape_is_told_by_its_first_differing_weights(in_tmp: Path) -> None:
    train(tiny_config(), name="a")
    with pytest.raises(CheckpointError, match=r"is 4x3x3x3 in the file, 6x3x3x3 in the network"):
        train(tiny_config(model__width=6, train__epochs=2), name="a", resume=True)


@pytest.mark.fault(8)
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
    with pytest.raises(CheckpointError, match="checksums do not fit"):
        train(tiny_config(), name="a", resume=True)
    assert run.last.read_bytes() == b"rubbish"


@pytest.mark.fault(27)
def test_divergence_is_noted_in_the_run(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_cli.training.state.build_model", spoiled)
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
        # best.pt in the first epoch, of which nothing is saved yet; last.pt in the second.
        if path.name == name and not broken and (path.is_file() or name == "best.pt"):
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


@pytest.mark.fault(30)
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
    written = load_config(result.run_dir / "config.yaml", env={})
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

    monkeypatch.setattr(clock_module, "time", Clock)
    listener = Listener()
    train(tiny_config(train__epochs=3), name="a", observer=listener)
    # Steps 2 and 3 took 10 "seconds" together; 12 steps are to do.
    assert listener.estimates == [10 / 2 * 12]


def test_a_run_is_validated_on_what_it_holds_out_and_the_test_split_stays_whole(
    in_tmp: Path,
) -> None:
    config = tiny_config(train__epochs=1, data__val_fraction=0.1, data__limit_val=None)
    result = train(config, name="a")
    assert RunDir(result.run_dir).read_json("result.json")["validated_on"] == (
        "held-out training images"
    )
    val, test, seen = (
        evaluate("a", split=split, device="cpu").predictions.images
        for split in ("val", "test", "train")
    )
    dataset = load_dataset(config.data)
    assert (len(val), len(seen)) == (len(dataset.train) // 10, 100)
    assert torch.equal(val.images, dataset.train.images[val.indices])
    assert not set(val.indices.tolist()) & set(seen.indices.tolist())
    assert torch.equal(test.images, dataset.test.images)
    again = evaluate("a", device="cpu")
    assert again.accuracy == pytest.approx(result.val_accuracy)
    assert again.loss == pytest.approx(result.val_loss, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seed": 9, "data__val_fraction": 0.2}, "validated on images that it was trained on"),
        ({"train__epochs": 1, "data__val_fraction": 0.2}, "2 epochs have begun"),
        ({"optim__name": "muon", "data__val_fraction": 0.2}, "averages would not fit"),
    ],
    ids=["seed", "epochs", "optimiser"],
)
def test_some_changes_are_refused_even_when_asked_for(
    in_tmp: Path, changes: dict[str, object], why: str
) -> None:
    with pytest.raises(Interrupted):
        train(tiny_config(data__val_fraction=0.2), name="a", observer=StopAt(2, 1))
    with pytest.raises(ConfigError, match=why):
        train(tiny_config(**changes), name="a", resume=True, allow_changes=True)


def test_a_changed_weight_decay_reaches_the_optimiser(in_tmp: Path) -> None:
    with pytest.raises(Interrupted):
        train(tiny_config(), name="a", observer=StopAt(1, 2))
    result = train(tiny_config(optim__weight_decay=0.5), name="a", resume=True, allow_changes=True)
    content = torch.load(RunDir(result.run_dir).last, weights_only=True)
    assert content["training"]["optimizer"]["param_groups"][0]["weight_decay"] == 0.5


def test_a_finished_run_that_goes_on_has_no_result_until_it_is_finished_again(
    in_tmp: Path,
) -> None:
    train(tiny_config(train__epochs=1), name="a")
    more = tiny_config(train__epochs=3)
    with pytest.raises(Interrupted):
        train(more, name="a", resume=True, allow_changes=True, observer=StopAt(2, 1))
    assert not Path("runs/a/result.json").exists()
    train(more, name="a", resume=True)
    assert RunDir(Path("runs/a")).read_json("result.json")["epochs_completed"] == 3


def test_results_whose_checkpoints_are_lost_are_not_overwritten(in_tmp: Path) -> None:
    run = RunDir(train(tiny_config(), name="a").run_dir)
    for name in ("last.pt", "previous.pt"):
        run.last.with_name(name).unlink()
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    with pytest.raises(CheckpointError, match="are lost"):
        train(tiny_config(), name="a", resume=True)
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before


@pytest.mark.fault(15)
def test_a_checkpoint_of_a_newer_version_is_not_passed_over(in_tmp: Path) -> None:
    with pytest.raises(Interrupted):
        train(tiny_config(), name="a", observer=StopAt(2, 1))
    run = RunDir(Path("runs/a"))
    content = torch.load(run.last, weights_only=True)
    torch.save({**content, "version": 99}, run.last)
    with pytest.raises(CheckpointError, match="version 99"):
        train(tiny_config(), name="a", resume=True)


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_sound_one(in_tmp: Path) -> None:
    with pytest.raises(Interrupted):
        train(tiny_config(), name="a", observer=StopAt(2, 1))
    run = RunDir(Path("runs/a"))
    run.last.write_bytes(b"rubbish")
    sound = run.last.with_name("previous.pt").read_bytes()
    with pytest.raises(Interrupted):
        train(tiny_config(), name="a", resume=True, observer=StopAt(2, 2))
    assert run.last.with_name("previous.pt").read_bytes() == sound
    assert run.last.with_name("damaged.pt").read_bytes() == b"rubbish"
    assert load_checkpoint(run.last).training


def test_half_a_line_at_the_end_of_the_steps_stops_nothing(in_tmp: Path) -> None:
    whole = train(tiny_config(), name="whole")
    with pytest.raises(Interrupted):
        train(tiny_config(), name="a", observer=StopAt(2, 1))
    steps = Path("runs/a/steps.csv")
    steps.write_text(steps.read_text()[:-14])
    train(tiny_config(), name="a", resume=True)
    found = [s.step for s in RunDir(Path("runs/a")).read_steps()]
    assert found[-4:] == [s.step for s in RunDir(whole.run_dir).read_steps()][-4:]


@pytest.mark.fault(84)
def test_what_is_somebody_elses_is_not_taken_for_a_run(in_tmp: Path) -> None:
    folder = Path("theirs")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("learning_rate: 0.1\n")
    (folder / ".precious.abc.tmp").write_text("mine")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for arguments in (["--recipe", "demo"], []):
        with pytest.raises(CheckpointError, match="theirs holds files, but not a run"):
            train(tiny_config(), run_dir=folder, resume=True)
        assert run_command(["train", "--resume", "--run-dir", "theirs", *arguments]) == 4
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert [p.name for p in in_tmp.iterdir()] == ["theirs"]


@pytest.mark.fault(63)
def test_a_folder_that_a_process_left_that_was_killed_at_once_is_used(in_tmp: Path) -> None:
    Path("a/checkpoints").mkdir(parents=True)
    Path("a/.status.json.0123456789abcdef.tmp").write_text("{")
    result = train(tiny_config(train__epochs=1), run_dir="a", resume=True)
    assert result.run_dir == Path("a")
    assert not list(Path("a").glob(".*"))


@pytest.mark.fault(63)
def test_a_resume_sets_right_the_status_of_a_run_that_was_killed_after_its_result(
    in_tmp: Path,
) -> None:
    run = RunDir(train(tiny_config(train__epochs=1), "a").run_dir)
    run.write_status("running")
    train(tiny_config(train__epochs=1), "a", resume=True)
    assert run.noted_state == "completed"


@pytest.mark.parametrize("name", ["result.json", "env.json", "status.json", "events.jsonl"])
@pytest.mark.fault(64)
def test_a_damaged_side_file_costs_no_epoch(in_tmp: Path, name: str) -> None:
    whole = train(tiny_config(), "whole")
    with pytest.raises(Interrupted):
        train(tiny_config(), "a", observer=StopAt(2, 1))
    Path("a", name).write_text("[" * 100_000)
    Path("a/steps.csv").write_text("garbage\nnan,nan,nan\n")
    listener = StopAt(0, 0)
    again = train(tiny_config(), "a", resume=True, observer=listener)
    one, two = weights(whole.run_dir), weights(again.run_dir)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any("steps.csv was damaged" in text for text in listener.messages)


@pytest.mark.fault(85)
def test_a_place_for_checkpoints_that_is_none_is_found_before_the_first_step(in_tmp: Path) -> None:
    class NoStep(Observer):
        def stepped(self, epoch: int, step: int) -> None:
            pytest.fail("a step was taken")

    with pytest.raises(Interrupted):
        train(tiny_config(), "a", observer=StopAt(1, 1))
    Path("a/checkpoints").rename("a/elsewhere")
    for put in (lambda p: p.symlink_to("nowhere"), lambda p: p.write_text("")):
        place = Path("a/checkpoints")
        put(place)
        with pytest.raises(
            StorageError, match=r"Cannot write a/checkpoints|a/checkpoints is a link"
        ):
            train(tiny_config(), "a", resume=True, observer=NoStep())
        place.unlink()


@pytest.mark.fault(83)
def test_a_resume_with_torch_compile_says_that_its_digits_may_differ(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)  # which takes minutes
    config = tiny_config(runtime__compile=True)
    with pytest.raises(Interrupted):
        train(config, "a", observer=StopAt(1, 1))
    listener = StopAt(0, 0)
    train(config, "a", resume=True, observer=listener)
    (notice,) = [text for text in listener.messages if text.startswith("Not bit-identical")]
    assert notice.endswith("Reasons: runtime.compile.")


@pytest.mark.fault(97)
def test_a_resume_compiles_only_if_its_own_command_line_asks_for_it(
    cli: Callable[..., Answer], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(1) or model)
    for arguments, expected in (((), []), (("--set", "runtime.compile=true"), [1])):
        run = f"run{len(arguments)}"
        with pytest.raises(Interrupted):
            train(tiny_config(runtime__compile=True), run, observer=StopAt(1, 1))
        compiled.clear()
        answer = cli("train", "--resume", "--run-dir", run, *arguments)
        assert answer.code == 0, answer.err
        assert compiled == expected
        assert "Not bit-identical" in answer.err
        assert "runtime.compile" in answer.err
