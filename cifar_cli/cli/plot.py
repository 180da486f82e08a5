"""`cifar-resnet plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cifar_cli.cli import options


def plot(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Run directories, or names under runs/. Default: the newest run.",
            show_default=False,
        ),
    ] = None,
    out: options.Out = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw loss, accuracy and learning rate of one run, or of several runs in one picture.

    Default folder: the run's plots/; for several runs comparison/.
    """
    from cifar_cli.errors import CheckpointError
    from cifar_cli.output.console import show
    from cifar_cli.output.documents import file_document
    from cifar_cli.output.figures.curves import (
        RunCurves,
        learning_rates,
        loss_and_accuracy,
        step_losses,
    )
    from cifar_cli.rundir import find_run

    found = [find_run(run) for run in runs] if runs else [find_run()]
    curves = [RunCurves(run.name, run.read_metrics(), run.read_steps()) for run in found]
    for run, curve in zip(found, curves, strict=True):
        if not curve.epochs:
            when = "training is in its first one" if run.is_running else "nothing trains there now"
            raise CheckpointError(
                f"{run.path} has no finished epoch yet ({when}); there is nothing to plot."
            )
    folder = out or (found[0].subfolder("plots") if len(found) == 1 else Path("comparison"))
    files = [loss_and_accuracy(folder / "loss_accuracy.png", curves)]
    if all(curve.steps for curve in curves):
        files.append(learning_rates(folder / "learning_rate.png", curves))
        files.append(step_losses(folder / "step_loss.png", curves))
    show(file_document(files), json)
