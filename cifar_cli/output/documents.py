"""Results as JSON documents: keys are a contract, and floats are plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cifar_cli.rundir import SCHEMA_VERSION

if TYPE_CHECKING:  # doctor prints its report also where torch does not load
    from cifar_cli.doctor.checks import Check
    from cifar_cli.models.summary import ModelSummary
    from cifar_cli.training.result import TrainResult


def training_document(result: TrainResult) -> dict[str, Any]:
    """What `train --json` prints."""
    keys = (
        "epochs_completed", "val_accuracy", "val_loss", "best_val_accuracy", "train_seconds",
        "seconds",
    )  # fmt: skip
    figures = {key: getattr(result, key) for key in keys}
    return {"schema_version": SCHEMA_VERSION, "run_dir": str(result.run_dir), **figures}


def layer_document(counted: ModelSummary) -> dict[str, Any]:
    """What `summary --json` prints."""
    keys = ("total_params", "trainable_params", "total_mult_adds", "performed_mult_adds")
    totals = {key: getattr(counted, key) for key in keys}
    return {
        "schema_version": SCHEMA_VERSION,
        "layers": [asdict(row) for row in counted.rows],
        **totals,
    }


def check_document(checks: Sequence[Check]) -> dict[str, Any]:
    """What `doctor --json` prints."""
    keys = ("name", "ok", "detail", "remedy")
    return {
        "schema_version": SCHEMA_VERSION,
        "ok": all(check.ok for check in checks),
        "checks": [{key: getattr(check, key) for key in keys} for check in checks],
    }
