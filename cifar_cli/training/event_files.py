"""TensorBoard's event files of a run, without TensorFlow.

The file is written again from `metrics.csv` and `steps.csv` whenever training starts in a run, and
grows at each epoch's end. So a resumed run has every epoch once, those too that were trained
without a tracker. A reader of TensorBoard's ignores the half record that a killed process leaves.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cifar_cli.config import Config
from cifar_cli.rundir import EpochRecord, RunDir, StepRecord
from cifar_cli.storage import open_own, remove_temporary, storage_errors, write_bytes
from cifar_cli.training.observer import Observer

FOLDER = "tensorboard"
NAMES = "events.out.tfevents.*.cifar-resnet"
EPOCH_TAGS = {
    "loss/train": "train_loss",
    "loss/val": "val_loss",
    "accuracy/train": "train_accuracy",
    "accuracy/val": "val_accuracy",
}
"""Tags whose step is the epoch, and where their values come from."""
STEP_TAGS = {"step/lr": "lr", "step/train_loss": "train_loss"}
"""Tags whose step is the training step, counted from 0."""


class TensorBoard(Observer):
    """Writes losses, accuracies and learning rates to `tensorboard/` of the run."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._steps: Sequence[StepRecord] = ()

    def started(self, run: RunDir, config: Config, images: int, steps: int, epoch: int) -> None:
        """Write what the run has done so far to a new file, and remove the older ones.

        Raises:
            StorageError: It cannot be written, or the folder is a link.
        """
        folder, now = run.subfolder(FOLDER), time.time()
        epochs, earlier = run.read_metrics(), run.read_steps()
        old = list(folder.glob(NAMES))
        if folder.is_dir():
            remove_temporary(folder, [NAMES])
        began = now - sum(record.seconds for record in epochs)
        data = _head(began) + _step_events(earlier, began, now)
        for record in epochs:
            began += record.seconds
            data += _events([(record.epoch, began, _values(record, EPOCH_TAGS))])
        self._path = folder / NAMES.replace("*", str(time.time_ns()))
        write_bytes(self._path, data)
        with storage_errors(folder):
            for path in old:
                path.unlink(missing_ok=True)

    def steps_ended(self, records: Sequence[StepRecord]) -> None:
        """Keep them until the epoch's end."""
        self._steps = records

    def epoch_ended(self, record: EpochRecord) -> None:
        """Append the epoch and its steps.

        Raises:
            StorageError: They cannot be written.
        """
        assert self._path
        now = time.time()
        data = _step_events(self._steps, now - record.seconds, now)
        data += _events([(record.epoch, now, _values(record, EPOCH_TAGS))])
        self._steps = ()
        with storage_errors(self._path, len(data)), open_own(self._path, append=True) as file:
            file.write(data)


def _values(record: EpochRecord | StepRecord, tags: Mapping[str, str]) -> dict[str, float]:
    return {tag: getattr(record, name) for tag, name in tags.items()}


def _step_events(records: Sequence[StepRecord], began: float, ended: float) -> bytes:
    """Steps that took from one time to another, as evenly as they can be thought of."""
    each = (ended - began) / max(len(records), 1)
    return _events(
        (record.step, began + number * each, _values(record, STEP_TAGS))
        for number, record in enumerate(records, start=1)
    )


def _events(rows: Iterable[tuple[int, float, Mapping[str, float]]]) -> bytes:
    """Records of scalars: (step, time, values by tag)."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    return _records(
        Event(
            step=step,
            wall_time=seconds,
            summary=Summary(
                value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            ),
        )
        for step, seconds, values in rows
    )


def _head(seconds: float) -> bytes:
    """What a file starts with. A reader drops what an older file has from step 0 on."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    version = Event(wall_time=seconds, file_version="brain.Event:2")
    start = Event(wall_time=seconds, step=0, session_log=SessionLog(status=SessionLog.START))
    return _records([version, start])


def _records(events: Iterable[Any]) -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    return buffer.getvalue()
