"""Trackers: TensorBoard's files read by its own reader, and failures that end no training."""

from __future__ import annotations

import importlib.util
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY_FLAGS, Answer, tiny_config, tree
from stopped import FLAGS, Stop, interrupted, same_run

from cifar_cli import train
from cifar_cli.errors import Interrupted
from cifar_cli.rundir import EpochRecord, RunDir
from cifar_cli.training.checkpoint import load_checkpoint
from cifar_cli.training.event_files import EPOCH_TAGS, STEP_TAGS, TensorBoard
from cifar_cli.training.observer import Observer
from cifar_cli.training.tracking import Tracked

pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
Cli = Callable[..., Answer]


def recorded(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every event, by tag, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def assert_complete(path: Path) -> None:
    """Every epoch and step of the run's own tables is there, once and in order."""
    run, found = RunDir(path), recorded(path)
    assert set(found) == {*EPOCH_TAGS, *STEP_TAGS}
    for tags, rows, key in (
        (EPOCH_TAGS, run.read_metrics(), "epoch"),
        (STEP_TAGS, run.read_steps(), "step"),
    ):
        for tag, name in tags.items():
            assert rows
            assert [step for step, _ in found[tag]] == [getattr(row, key) for row in rows]
            assert [value for _, value in found[tag]] == pytest.approx(
                [getattr(row, name) for row in rows], rel=1e-6
            )


def test_a_tracked_run_has_every_epoch_and_step_and_others_no_file(cli: Cli, in_tmp: Path) -> None:
    answer = cli("train", *TINY_FLAGS, "--run-dir", "a", "--track", "tensorboard", "--quiet")
    assert answer.code == 0, answer.err
    assert_complete(in_tmp / "a")
    assert cli("train", *TINY_FLAGS, "--run-dir", "b", "--quiet").code == 0
    assert same_run(RunDir(in_tmp / "a"), RunDir(in_tmp / "b"))
    (events,) = tree(in_tmp / "a/tensorboard")
    assert sorted([*tree(in_tmp / "b"), f"tensorboard/{events}"]) == tree(in_tmp / "a")
    answer = cli("train", *TINY_FLAGS, "--run-dir", "c", "--track", "tensorbord")
    assert (answer.code, "did you mean 'tensorboard'?" in answer.err) == (2, True)
    assert not (in_tmp / "c").exists()


@pytest.mark.parametrize("is_tracked", [True, False], ids=["tracked", "not-tracked-before"])
def test_a_resumed_run_has_no_epoch_or_step_twice_and_none_is_lost(
    cli: Cli, in_tmp: Path, is_tracked: bool
) -> None:
    config = tiny_config(train__epochs=3)
    stop = Stop(2, 2)
    with pytest.raises(Interrupted):
        train(config, "a", observer=Tracked(stop, [TensorBoard()] if is_tracked else []))
    assert (in_tmp / "a/tensorboard").exists() == is_tracked
    # A tracker that was killed on its way has written more than the checkpoint knows, and half
    # a record.
    if is_tracked:
        (events,) = (in_tmp / "a/tensorboard").iterdir()
        data = events.read_bytes()
        events.write_bytes(data + data[-200:] + data[:30])
        assert recorded(in_tmp / "a")["loss/val"]
    resume = ["train", "--resume", "--run-dir", "a", "--quiet"]
    assert cli(*resume, "--track", "tensorboard").code == 0
    assert_complete(in_tmp / "a")
    assert len(tree(in_tmp / "a/tensorboard")) == 1


def test_a_file_that_an_ended_process_left_beside_the_new_one_doubles_nothing(
    in_tmp: Path,
) -> None:
    run = interrupted("a")
    for _ in range(2):
        tracker = TensorBoard()
        tracker.started(run, tiny_config(), 100, 4, 2)
        (new,) = (in_tmp / "a/tensorboard").glob("events*")
        kept = new.read_bytes()
    (in_tmp / "a/tensorboard/events.out.tfevents.1.cifar-resnet").write_bytes(kept)
    assert_complete(in_tmp / "a")


def test_a_resume_without_track_goes_without(cli: Cli, in_tmp: Path) -> None:
    with pytest.raises(Interrupted):
        train(tiny_config(train__epochs=2), "a", observer=Tracked(Stop(2, 1), [TensorBoard()]))
    before = recorded(in_tmp / "a")
    assert cli("train", "--resume", "--run-dir", "a", "--quiet").code == 0
    assert recorded(in_tmp / "a") == before


class Failing(Observer):
    """A tracker whose service is gone after the first epoch."""

    def epoch_ended(self, record: EpochRecord) -> None:
        if record.epoch == 2:
            raise ConnectionError("the service is gone")


class Heard(Observer):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


@pytest.mark.fault(116)
def test_a_tracker_that_fails_midway_ends_no_training_and_is_told_once(in_tmp: Path) -> None:
    heard, config = Heard(), tiny_config(train__epochs=3)
    tracked = Tracked(heard, [Failing(), TensorBoard()])
    result = train(config, "a", observer=tracked)
    assert result.epochs_completed == 3
    (warning,) = [text for text in heard.texts if text.startswith("Warning: Failing")]
    assert warning == (
        "Warning: Failing failed and records nothing more, and the training continues. the "
        "service is gone"
    )
    assert_complete(in_tmp / "a")  # the others go on
    train(config, "b")
    assert load_checkpoint(RunDir(in_tmp / "a").last).training
    assert same_run(RunDir(in_tmp / "a"), RunDir(in_tmp / "b"))


@pytest.mark.fault(116)
def test_events_are_not_written_through_a_link(cli: Cli, in_tmp: Path) -> None:
    run = interrupted("a")
    (in_tmp / "elsewhere").mkdir()
    (run.path / "tensorboard").symlink_to(in_tmp / "elsewhere")
    answer = cli("train", "--resume", "--run-dir", "a", "--track", "tensorboard")
    assert answer.code == 0, answer.err
    assert "Warning: TensorBoard failed" in answer.err
    assert "a/tensorboard is a link" in answer.err
    assert tree(in_tmp / "elsewhere") == []


class FullAfter(Observer):
    """Allows no file to grow beyond that of the events once an epoch is over."""

    def __init__(self) -> None:
        super().__init__()
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def epoch_ended(self, record: EpochRecord) -> None:
        size = next(Path("a/tensorboard").iterdir()).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, self.before[1]))

    def end(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


@pytest.mark.fault(117)
def test_a_full_disk_ends_only_the_tracking_and_what_was_written_can_be_read(
    in_tmp: Path,
) -> None:
    full = FullAfter()
    tracker = TensorBoard()
    run = interrupted("a")
    tracker.started(run, tiny_config(), 100, 4, 2)
    heard = Heard()
    tracked = Tracked(heard, [tracker])
    before = recorded(in_tmp / "a")
    (record,), steps = run.read_metrics(), run.read_steps()
    full.epoch_ended(record)
    try:
        tracked.steps_ended(steps)
        tracked.epoch_ended(record)
        tracked.epoch_ended(record)
    finally:
        full.end()
    (warning,) = heard.texts
    assert "Cannot write a/tensorboard/events.out.tfevents." in warning
    found = recorded(in_tmp / "a")
    assert found["loss/val"][:1] == before["loss/val"]


def test_tensorflow_is_never_loaded_and_no_package_is_needed_without_track(
    in_tmp: Path,
) -> None:
    fake = in_tmp / "fake/tensorflow"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("open('loaded', 'w')\n")
    program = (
        "import sys; from cifar_cli.training.event_files import _head, _step_events; "
        "from cifar_cli.rundir import StepRecord; _head(1.0); "
        "_step_events([StepRecord(0, 0.1, 2.0)], 0.0, 1.0); print('tensorflow' in sys.modules)"
    )
    path = os.pathsep.join([str(in_tmp / "fake"), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
    assert not (in_tmp / "loaded").exists()


def test_a_missing_package_is_named_with_its_extra_before_anything_is_made(
    cli: Cli, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    answer = cli("train", *FLAGS, "--run-dir", "a", "--track", "tensorboard")
    assert answer.code == 2
    assert "--track tensorboard needs tensorboard, which is not installed." in answer.err
    assert "pip install '.[tensorboard]'" in answer.err
    assert not (in_tmp / "a").exists()
