"""Rich tables of epochs, classes, mistakes and recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cifar_cli.output.console import duration, styled
from cifar_cli.rundir import EpochRecord

if TYPE_CHECKING:  # it needs torch, which a list of recipes does not
    from cifar_cli.analysis.metrics import ClassFigures


def epoch_table(records: Sequence[EpochRecord]) -> Table:
    """The table of epochs; the best validation accuracy is bold."""
    table = Table(title="Epochs", caption="Losses are means per image.", header_style="bold")
    for column in ("Epoch", "Train loss", "Val loss", "Train acc %", "Val acc %", "LR", "Time"):
        table.add_column(column, justify="right")
    best = max((r.val_accuracy for r in records), default=None)
    for r in records:
        accuracy = f"{100 * r.val_accuracy:.2f}"
        table.add_row(
            str(r.epoch),
            f"{r.train_loss:.4f}",
            f"{r.val_loss:.4f}",
            f"{100 * r.train_accuracy:.2f}",
            styled(accuracy) if r.val_accuracy == best else accuracy,
            f"{r.lr:.3g}",
            duration(r.seconds),
        )
    return table


def class_table(classes: Sequence[ClassFigures]) -> Table:
    """One row a class: images, accuracy, precision."""
    table = Table(title="Classes", header_style="bold")
    table.add_column("Class")
    for column in ("Images", "Correct", "Accuracy %", "Precision %"):
        table.add_column(column, justify="right")
    for figures in classes:
        table.add_row(
            figures.name,
            f"{figures.num_images:,}",
            f"{figures.correct:,}",
            _percent(figures.accuracy),
            _percent(figures.precision),
        )
    return table


def mistake_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row a misclassified image."""
    table = Table(title="Misclassified images", header_style="bold")
    table.add_column("Index", justify="right")
    table.add_column("True class")
    table.add_column("Predicted class")
    table.add_column("Confidence %", justify="right")
    table.add_column("Loss", justify="right")
    for row in rows:
        table.add_row(
            str(row["index"]),
            row["true"],
            row["predicted"],
            f"{100 * row['confidence']:.1f}",
            f"{row['loss']:.3f}",
        )
    return table


def recipe_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row a recipe."""
    table = Table(title="Recipes", header_style="bold")
    table.add_column("Name", no_wrap=True)
    for column in ("Epochs", "Batch", "Widths"):
        table.add_column(column, justify="right")
    table.add_column("Augmentation")
    table.add_column("Data")
    table.add_column("About")
    for row in rows:
        table.add_row(
            row["name"],
            str(row["epochs"]),
            str(row["batch_size"]),
            ", ".join(map(str, row["widths"])),
            row["augment"],
            row["data"],
            row["about"],
        )
    return table


def _percent(share: float | None) -> str:
    return "--" if share is None else f"{100 * share:.2f}"
