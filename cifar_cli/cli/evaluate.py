"""`cifar-resnet evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cifar_cli.cli import options

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
    from cifar_cli.analysis.evaluate import evaluate as evaluate_network
    from cifar_cli.output.console import Bars, print_files, print_json, results, styled
    from cifar_cli.output.figures.matrix import class_accuracy, confusion
    from cifar_cli.output.tables import class_table
    from cifar_cli.rundir import SCHEMA_VERSION
    from cifar_cli.storage import write_json

    with Bars(quiet) as bars:
        found = evaluate_network(
            run,
            checkpoint=checkpoint,
            split=split,  # type: ignore[arg-type]  # checked there
            tta=tta,  # type: ignore[arg-type]
            data=data,
            data_dir=str(data_dir) if data_dir else None,
            device=device,
            limit=limit_val,
            skip_bad_images=skip_bad_images,
            progress=bars.update,
        )
        bars.say(found.predictions.notes)
    predictions = found.predictions
    folder = out or (predictions.run.subfolder("eval") if predictions.run else None)
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "accuracy": found.accuracy,
        "interval": list(found.interval),
        "loss": found.loss,
        "correct": found.correct,
        "num_images": found.num_images,
        "per_class": [
            {
                "class": c.name,
                "accuracy": c.accuracy,
                "precision": c.precision,
                "correct": c.correct,
                "num_images": c.num_images,
            }
            for c in found.per_class
        ],
        "confusion": found.confusion,
        "class_names": list(found.class_names),
        "checkpoint": str(predictions.trained.path),
        "split": split,
        "tta": tta,
        "seconds": predictions.seconds,
        "files": [],
    }
    if folder:
        stem = f"{split}_{Path(checkpoint).stem}" + ("" if tta == "none" else f"_{tta}")
        title = f"{found.accuracy:.2%} of {found.num_images:,} images"
        files = [
            confusion(
                folder / f"{stem}_confusion.png",
                found.confusion,
                found.class_names,
                f"Confusion: {title}",
            ),
            class_accuracy(
                folder / f"{stem}_classes.png",
                found.class_names,
                [c.accuracy for c in found.per_class],
                f"Accuracy by class: {title}",
            ),
        ]
        report["files"] = [str(f) for f in (*files, folder / f"{stem}.json")]
        write_json(folder / f"{stem}.json", report)
    if json:
        print_json(report)
        return
    console = results()
    console.print(class_table(found.per_class))
    low, high = found.interval
    console.print(
        "Accuracy",
        styled(f"{found.accuracy:.2%}"),
        f"(95% interval {low:.2%} to {high:.2%}), "
        f"{found.correct:,} of {found.num_images:,} images; loss {found.loss:.4f}",
    )
    print_files(report["files"])
