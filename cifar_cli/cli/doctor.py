"""`cifar-resnet doctor`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cifar_cli.cli import options


def doctor(
    data: options.Data = None,
    data_dir: options.DataDir = None,
    run_dir: Annotated[
        Path,
        typer.Option(
            "--run-dir",
            metavar="DIR",
            help="Folder for runs.",
            rich_help_panel=options.IMAGES,
        ),
    ] = Path("runs"),
    device: options.Device = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check the installation and suggest fixes.

    Checks versions, device, free space, write access and images. Compares one training step
    with a reference implementation, and augmentation with and without loader processes.
    Downloads nothing.

    The exit code is 0, or that of the first failed check.
    """
    settings = options.resolve(locals(), "baseline")
    from cifar_cli.doctor.checks import examine
    from cifar_cli.output.console import show
    from cifar_cli.output.documents import check_document
    from cifar_cli.output.progress import Bars
    from cifar_cli.output.tables import doctor_table

    with Bars(quiet) as bars:
        checks = list(examine(settings, run_dir, bars.update))
    show(check_document(checks), json, doctor_table(checks))
    failed = [check for check in checks if not check.ok]
    if any(check.hangs for check in checks):
        # A thread that hangs cannot be ended but with the process.
        sys.stdout.flush()
        os._exit(failed[0].exit_code)
    if failed:
        raise typer.Exit(failed[0].exit_code)
