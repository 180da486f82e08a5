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
    from cifar_cli.output.console import remarks, show
    from cifar_cli.output.documents import file_document
    from cifar_cli.output.figures.curves import (
        learning_rates,
        loss_and_accuracy,
        run_curves,
        step_losses,
    )
    from cifar_cli.rundir import find_run

    found = [find_run(run) for run in runs] if runs else [find_run()]
    curves = [run_curves(run) for run in found]
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
