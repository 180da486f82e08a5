"""`cifar-resnet misclassified`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cifar_cli.cli import options
from cifar_cli.cli.evaluate import (
    Checkpoint,
    Split,
    evaluate_with_progress,
    foot_of,
    say_replacements,
    stem_of,
)

GALLERY_AT_MOST = 100


def misclassified(
    run: options.Run = None,
    n: Annotated[
        int, typer.Option("--n", min=1, max=10**9, metavar="N", help="Maximum number of images.")
    ] = 10,
    sort: Annotated[
        Literal["loss", "confidence", "index"],
        typer.Option(
            metavar="loss|confidence|index",
            help="Sort by highest loss, by highest confidence, or by position.",
        ),
    ] = "loss",
    checkpoint: Checkpoint = "last",
    split: Split = "val",
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
    """Draw a gallery of misclassified images.

    Writes gallery.png and misclassified.csv to the run's misclassified/.
    """
    given = locals()
    from cifar_cli.analysis.mistakes import find_mistakes
    from cifar_cli.output.console import show
    from cifar_cli.output.documents import mistake_document
    from cifar_cli.output.figures.images import Caption, mistake_gallery
    from cifar_cli.output.tables import mistake_table
    from cifar_cli.storage import write_csv

    predictions = evaluate_with_progress(given).predictions
    images, names = predictions.images, predictions.trained.class_names
    mistakes = find_mistakes(predictions.logits, images.labels, images.indices, sort)
    folder = out or (
        predictions.run.subfolder("misclassified") if predictions.run else Path("misclassified")
    )
    stem = stem_of(given, predictions)
    tag = "" if stem == "val_last" else f"_{stem}"
    files = [folder / f"gallery{tag}.{format_}", folder / f"misclassified{tag}.csv"]
    say_replacements(files, "misclassified", given, predictions)
    document = mistake_document(
        mistakes[:n],
        names,
        total=len(mistakes),
        num_images=len(images),
        files=files,
        names=predictions.files,
    )
    drawn = mistakes[: min(n, GALLERY_AT_MOST)]
    order = {"loss": "highest loss first", "confidence": "most confident first"}
    share = f"{len(mistakes):,} of {len(images):,} images"
    mistake_gallery(
        files[0],
        images.images[[m.row for m in drawn]].numpy(),
        [
            Caption(
                names[m.true],
                names[m.predicted],
                m.confidence,
                predictions.files[m.row] if predictions.files else f"image {m.index}",
            )
            for m in drawn
        ],
        f"{share} misclassified; {len(drawn)} shown, {order.get(sort, 'in order')}",
        foot_of(given, predictions),
    )
    rows = document["images"]
    columns = ["index", *["file"] * bool(predictions.files)]
    write_csv(files[1], [*columns, "true", "predicted", "confidence", "loss"], rows)
    show(document, json, mistake_table(rows), f"{share} are misclassified.")
