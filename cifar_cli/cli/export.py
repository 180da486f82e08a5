"""`cifar-resnet export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cifar_cli.cli import options
from cifar_cli.cli.evaluate import Checkpoint
from cifar_cli.cli.result_files import replacement_note


def export(
    run: options.Run = None,
    format_: Annotated[
        Literal["onnx", "torch-export", "safetensors"] | None,
        typer.Option(
            "--format",
            metavar="onnx|torch-export|safetensors",
            help="Format of the file. Default: that of the ending of --out, else onnx.",
        ),
    ] = None,
    checkpoint: Checkpoint = "last",
    data: options.RunData = None,
    data_dir: options.DataDir = None,
    out: Annotated[
        Path | None,
        options.of_output("--out FILE", "The file. Default: in export/ of the run."),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Export the network to a file that other programs can run, with a model card beside it.

    It takes RGB pixels of any size: resizing and normalisation are part of it, except in
    safetensors, which holds weights alone. The file is read back, and its predictions on all
    validation images are compared with the network's. A different class is exit code 5.
    """
    from cifar_cli.analysis.evaluate import FEWER_IMAGES
    from cifar_cli.analysis.export import export_model, plan_export
    from cifar_cli.errors import DivergedError
    from cifar_cli.output.console import show
    from cifar_cli.output.documents import export_document
    from cifar_cli.output.model_card import model_card
    from cifar_cli.output.progress import Bars
    from cifar_cli.storage import write_text
    from cifar_cli.training.memory import memory_errors

    with Bars(quiet) as bars:
        plan = plan_export(run, checkpoint=checkpoint, format_name=format_, out=out)
        in_run = out is None and plan.run is not None
        bars.say(replacement_note([plan.file, plan.card], "export", in_run=in_run))
        with memory_errors(*FEWER_IMAGES):
            found = export_model(
                plan,
                data=data,
                data_dir=str(data_dir) if data_dir else None,
                progress=bars.update,
            )
        bars.say(found.evaluation.predictions.notes)
    write_text(plan.card, model_card(found))
    result = f"{found.num_different:,} of {found.num_images:,} validation images get another class"
    show(
        export_document(found),
        json,
        f"{result}; probabilities differ by at most {found.max_difference:.2g}.",
    )
    if found.num_different:
        raise DivergedError(
            f"{result} from {plan.file} than from {plan.checkpoint.path}.",
            "Do not use the file, or only where so much does not matter.",
        )
