"""`cifar-resnet evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifar_cli.cli import options

if TYPE_CHECKING:
    from cifar_cli.analysis.evaluate import Evaluation

Checkpoint = Annotated[
    str,
    typer.Option(
        metavar="last|best|FILE", help="Checkpoint to load. A FILE needs no run.", show_default=True
    ),
]
Split = Annotated[
    str,
    typer.Option(
        metavar="val|test|train",
        help="val: the run's validation images (the test split unless images were held out). "
        "test: the whole test split. train: the training images, not augmented.",
    ),
]
Tta = Annotated[
    str,
    typer.Option(
        metavar="none|flip|flip-translate",
        help="Test-time augmentation: mean over 1, 2 or 6 views of each image.",
    ),
]


def evaluate(
    run: options.Run = None,
    checkpoint: Checkpoint = "last",
    split: Split = "val",
    tta: Tta = "none",
    data: options.RunData = None,
    data_dir: options.DataDir = None,
    limit_val: options.LimitVal = None,
    skip_bad_images: options.SkipBadImages = False,
    device: options.Device = None,
    out: options.Out = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure accuracy with its 95% interval, loss, accuracy per class, and the confusion matrix.

    Writes a JSON file and two pictures to the run's eval/.
    """
    given = locals()
    from rich.text import Text

    from cifar_cli.output.console import show, styled
    from cifar_cli.output.documents import evaluation_document
    from cifar_cli.output.figures.matrix import class_accuracy, confusion
    from cifar_cli.output.tables import class_table
    from cifar_cli.storage import write_json

    result = evaluate_with_progress(given)
    predictions = result.predictions
    title = f"{result.accuracy:.2%} of {result.num_images:,} images"
    folder = out or (predictions.run.subfolder("eval") if predictions.run else None)
    files = []
    if folder:
        stem = f"{split}_{Path(checkpoint).stem}" + ("" if tta == "none" else f"_{tta}")
        files = [folder / f"{stem}{end}" for end in ("_confusion.png", "_classes.png", ".json")]
        confusion(files[0], result.confusion, result.class_names, f"Confusion: {title}")
        accuracies = [figures.accuracy for figures in result.per_class]
        class_accuracy(files[1], result.class_names, accuracies, f"Accuracy by class: {title}")
    document = evaluation_document(
        result,
        split=split,
        tta=tta,
        files=files,
    )
    if folder:
        write_json(files[-1], document)
    low, high = result.interval
    accuracy = Text.assemble(
        "Accuracy ",
        styled(f"{result.accuracy:.2%}"),
        f" (95% interval {low:.2%} to {high:.2%}): {result.correct:,} of {result.num_images:,} "
        f"images\nLoss {result.loss:.4f}",
    )
    show(document, json, class_table(result.per_class), accuracy)


def evaluate_with_progress(given: Mapping[str, Any]) -> Evaluation:
    """Evaluate for the options of `evaluate` or `misclassified`; show progress and notes."""
    from cifar_cli.analysis.evaluate import evaluate
    from cifar_cli.output.progress import Bars

    with Bars(given["quiet"]) as bars:
        evaluation = evaluate(
            given["run"],
            checkpoint=given["checkpoint"],
            split=given["split"],
            tta=given.get("tta", "none"),
            data=given["data"],
            data_dir=str(given["data_dir"]) if given["data_dir"] else None,
            device=given["device"],
            limit=given["limit_val"],
            skip_bad_images=given["skip_bad_images"],
            progress=bars.update,
        )
        bars.say(evaluation.predictions.notes)
    return evaluation
