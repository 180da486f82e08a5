"""`cifar-resnet evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifar_cli.cli import completion, options
from cifar_cli.cli.result_files import replacement_note, result_stem

if TYPE_CHECKING:
    from cifar_cli.analysis.evaluate import Evaluation, Predictions

Checkpoint = Annotated[
    str,
    typer.Option(
        metavar="last|best|FILE",
        help="Checkpoint to load. A FILE needs no run; it may be an exported one.",
        show_default=True,
        autocompletion=completion.checkpoints,
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
    format_: options.Format = "png",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure accuracy with its 95% interval, loss, recall and precision of each class, confusion.

    Writes to the run's eval/: a JSON file, two figures, and a CSV file with the prediction for
    each image. Their names say the split, the checkpoint, and what differs from the run.
    """
    given = locals()
    from cifar_cli.analysis.mistakes import prediction_rows
    from cifar_cli.output.console import show
    from cifar_cli.output.documents import evaluation_document
    from cifar_cli.output.figures.matrix import class_accuracy, confusion
    from cifar_cli.output.tables import class_table, confused_table, evaluation_text
    from cifar_cli.storage import write_csv, write_json

    result = evaluate_with_progress(given)
    predictions = result.predictions
    title = f"{result.accuracy:.2%} of {result.num_images:,} images"
    folder = out or (predictions.run.subfolder("eval") if predictions.run else None)
    files = []
    if folder:
        stem, foot = stem_of(given, predictions), foot_of(given, predictions)
        figures = f"_confusion.{format_}", f"_classes.{format_}"
        files = [folder / f"{stem}{end}" for end in (*figures, "_predictions.csv", ".json")]
        say_replacements(files, "evaluate", given, predictions)
        confusion(files[0], result.confusion, result.class_names, f"Confusion: {title}", foot)
        class_accuracy(files[1], result.per_class, f"Accuracy by class: {title}", foot)
        rows = prediction_rows(
            predictions.logits, predictions.images, result.class_names, predictions.files
        )
        write_csv(files[2], list(rows[0]), rows)
    document = evaluation_document(
        result,
        split=split,
        tta=tta,
        files=files,
    )
    if folder:
        write_json(files[-1], document)
    pairs = [confused_table(result.confused)] if result.confused else []
    show(document, json, class_table(result.per_class), *pairs, evaluation_text(result))


def stem_of(given: Mapping[str, Any], predictions: Predictions) -> str:
    """The start of the names of result files, for the options of a command."""
    checkpoint, run = str(given["checkpoint"]), predictions.run
    for own in [run.last, run.best] if run else []:
        if own.exists() and own.samefile(predictions.trained.path):
            checkpoint = checkpoint if checkpoint in ("last", "best") else own.stem
    return result_stem(
        split=given["split"],
        checkpoint=checkpoint,
        tta=given.get("tta", "none"),
        data=given["data"],
        own_data=predictions.trained.config.data.source,
        limit=given["limit_val"],
    )


def foot_of(given: Mapping[str, Any], predictions: Predictions) -> str:
    """The foot of a figure: run, checkpoint, data, split, number of images."""
    from cifar_cli.output.figures.style import about_line

    path = predictions.trained.path
    run = f"{predictions.run.name}, {path.name}" if predictions.run else path.name
    tta = "" if given.get("tta", "none") == "none" else f", views: {given['tta']}"
    split = f"{given['split']}{tta}"
    return about_line(run, predictions.data, split, len(predictions.images))


def say_replacements(
    files: list[Path], command: str, given: Mapping[str, Any], predictions: Predictions
) -> None:
    """Print which files will be replaced; refuse such as this program has not written."""
    from cifar_cli.output.console import remarks

    is_own = given["out"] is None and predictions.run is not None
    notes = replacement_note(files, command, in_run=is_own)
    for note in [] if given["quiet"] else notes:
        remarks().say(note)


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
