"""`cifar-resnet plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cifar_cli.cli import completion, options
from cifar_cli.cli.result_files import replacement_note


def plot(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Run directories, or names under runs/. Default: the newest run.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    out: options.Out = None,
    format_: options.Format = "png",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw loss, accuracy and learning rate of one run, or of several runs in one picture.

    Default folder: the run's plots/; for several runs comparison/.
    """
    from cifar_cli.errors import CheckpointError
    from cifar_cli.output.console import remarks, show
    from cifar_cli.output.documents import file_document
    from cifar_cli.output.figures.curves import (
        RunCurves,
        learning_rates,
        loss_and_accuracy,
        step_losses,
    )
    from cifar_cli.rundir import find_run
    from cifar_cli.rundir.listing import about_run, whole_number

    found = [find_run(run) for run in runs] if runs else [find_run()]
    curves = [
        RunCurves(
            run.name,
            run.read_metrics(),
            run.read_steps(),
            num_classes=whole_number(run, "num_classes"),
            about=about_run(run),
        )
        for run in found
    ]
    for run, curve in zip(found, curves, strict=True):
        if not curve.epochs:
            when = "training is in its first one" if run.is_running else "nothing trains there now"
            raise CheckpointError(
                f"{run.path} has no finished epoch yet ({when}); there is nothing to plot."
            )
    folder = out or (found[0].subfolder("plots") if len(found) == 1 else Path("comparison"))
    figures = {"loss_accuracy": loss_and_accuracy}
    if all(curve.steps for curve in curves):
        figures |= {"learning_rate": learning_rates, "step_loss": step_losses}
    files = [folder / f"{name}.{format_}" for name in figures]
    is_own = out is None and len(found) == 1
    for note in [] if quiet else replacement_note(files, "plot", in_run=is_own):
        remarks().say(note)
    for file, draw in zip(files, figures.values(), strict=True):
        draw(file, curves)
    show(file_document(files), json)
