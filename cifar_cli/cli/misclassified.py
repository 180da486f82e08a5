"""`cifar-resnet misclassified`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cifar_cli.cli import options
from cifar_cli.cli.evaluate import Checkpoint, Split

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
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw a gallery of misclassified images.

    Writes gallery.png and misclassified.csv to the run's misclassified/.
    """
    from cifar_cli.analysis.evaluate import evaluate
    from cifar_cli.analysis.mistakes import find_mistakes
    from cifar_cli.output.console import Bars, print_files, print_json, results
    from cifar_cli.output.figures.images import Caption, mistake_gallery
    from cifar_cli.output.tables import mistake_table
    from cifar_cli.rundir import SCHEMA_VERSION
    from cifar_cli.storage import write_csv

    with Bars(quiet) as bars:
        evaluation = evaluate(
            run,
            checkpoint=checkpoint,
            split=split,  # type: ignore[arg-type]  # checked there
            data=data,
            data_dir=str(data_dir) if data_dir else None,
            device=device,
            limit=limit_val,
            skip_bad_images=skip_bad_images,
            progress=bars.update,
        )
        found = evaluation.predictions
        bars.say(found.notes)
    names = found.trained.class_names
    mistakes = find_mistakes(found.logits, found.images.labels, found.images.indices, sort)
    shown = mistakes[:n]
    rows = [
        {
            "index": m.index,
            "true": names[m.true],
            "predicted": names[m.predicted],
            "confidence": m.confidence,
            "loss": m.loss,
        }
        for m in shown
    ]
    folder = out or (found.run.subfolder("misclassified") if found.run else Path("misclassified"))
    drawn = shown[:GALLERY_AT_MOST]
    order = {"loss": "highest loss first", "confidence": "most confident first"}
    gallery = mistake_gallery(
        folder / "gallery.png",
        found.images.images[[m.row for m in drawn]].numpy(),
        [Caption(names[m.true], names[m.predicted], m.confidence) for m in drawn],
        f"{len(mistakes):,} of {len(found.images):,} images misclassified; "
        f"{len(drawn)} shown, {order.get(sort, 'in order')}",
    )
    table = folder / "misclassified.csv"
    write_csv(table, ["index", "true", "predicted", "confidence", "loss"], rows)
    if json:
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "count": len(shown),
                "total": len(mistakes),
                "num_images": len(found.images),
                "images": rows,
                "files": [str(gallery), str(table)],
            }
        )
        return
    console = results()
    console.print(mistake_table(rows))
    console.print(f"{len(mistakes):,} of {len(found.images):,} images are misclassified.")
    print_files([gallery, table])
