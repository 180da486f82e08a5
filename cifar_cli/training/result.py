"""What a finished run came to, and how a finished run is recognised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cifar_cli.config import Config
from cifar_cli.data.splits import Splits
from cifar_cli.rundir import EpochRecord, RunDir
from cifar_cli.training.checkpoint import Checkpoint
from cifar_cli.training.observer import Sign
from cifar_cli.training.state import TrainState

VALIDATED_ON = {
    "test": "test split",
    "val": "validation split",
    "train": "held-out training images",
}


@dataclass(frozen=True)
class TrainResult:
    """Where a run lies, and what it came to. Accuracies are fractions, losses means per image."""

    run_dir: Path
    epochs_completed: int
    val_accuracy: float
    val_loss: float
    best_val_accuracy: float
    train_seconds: float
    """Of training alone; `seconds` has the validations too."""
    seconds: float
    history: tuple[EpochRecord, ...]
    warnings: tuple[Sign, ...] = ()
    """What is suspicious about the training or its figures."""


def finish(
    run: RunDir, state: TrainState, splits: Splits, warnings: Sequence[Sign] = ()
) -> TrainResult:
    """Write down what a run came to, once its last epoch is saved."""
    result = _result(run, state.history, warnings)
    run.write_result(
        {
            "epochs_completed": result.epochs_completed,
            "val_accuracy": result.val_accuracy,
            "val_loss": result.val_loss,
            "best_val_accuracy": result.best_val_accuracy,
            "train_seconds": result.train_seconds,
            "seconds": result.seconds,
            "validated_on": VALIDATED_ON[splits.val_from],
            "num_classes": len(splits.class_names),
            "train_images": len(splits.train),
            "val_images": len(splits.val),
            "warnings": [sign._asdict() for sign in result.warnings],
        }
    )
    _note_completed(run, result)
    return result


def _note_completed(run: RunDir, result: TrainResult) -> None:
    epochs = result.epochs_completed
    run.write_status("completed", epochs_completed=epochs, epochs=epochs)
    run.log("completed", val_accuracy=result.val_accuracy)


def _result(run: RunDir, history: list[EpochRecord], warnings: Sequence[Sign]) -> TrainResult:
    final = history[-1]
    return TrainResult(
        run_dir=run.path,
        epochs_completed=final.epoch,
        val_accuracy=final.val_accuracy,
        val_loss=final.val_loss,
        best_val_accuracy=max(record.val_accuracy for record in history),
        train_seconds=sum(record.train_seconds for record in history),
        seconds=sum(record.seconds for record in history),
        history=tuple(history),
        warnings=tuple(warnings),
    )


def finished(run: RunDir, checkpoint: Checkpoint, config: Config) -> TrainResult | None:
    """The result of a run with nothing left to do; None for others.

    If it was killed after it had written its result, its status is set right.
    """
    training = checkpoint.training
    same_network = checkpoint.config.model == config.model
    history = [epoch.record for epoch in training.history] if training else []
    noted = run.peek_json(run.result.name)
    if same_network and noted.get("epochs_completed") == len(history) == config.train.epochs:
        result = _result(run, history, _signs(noted.get("warnings")))
        if run.noted_state != "completed":
            run.clear_away()
            _note_completed(run, result)
        return result
    return None


def _signs(noted: object) -> list[Sign]:
    """The warnings that a result.json holds; what is none is left out."""
    entries = noted if isinstance(noted, list) else []
    return [
        Sign(**entry)
        for entry in entries
        if isinstance(entry, dict)
        and set(entry) == set(Sign._fields)
        and all(isinstance(value, str) for value in entry.values())
    ]
