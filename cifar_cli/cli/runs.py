"""`cifar-resnet runs list | show | prune`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cifar_cli.cli import options

app = typer.Typer(help="List, show and remove the runs under runs/.", no_args_is_help=True)


@app.command("list")
def list_runs(
    sort: Annotated[
        Literal["accuracy", "date", "name"],
        typer.Option(
            metavar="accuracy|date|name", help="Sort by accuracy, by date (newest first), or name."
        ),
    ] = "date",
    json: options.Json = False,
) -> None:
    """List the runs under runs/ with state, data, epochs and validation accuracy."""
    from cifar_cli.output.console import counted, results, show
    from cifar_cli.output.documents import runs_document
    from cifar_cli.output.tables import run_table
    from cifar_cli.rundir.listing import list_runs

    document = runs_document(list_runs(sort))
    rows = document["runs"]
    table = [run_table(rows, results().width)] if rows else []
    show(document, json, *table, f"{counted(len(rows), 'run')} under runs/.")


@app.command("show")
def show_run(run: options.Run = None, json: options.Json = False) -> None:
    """Show what is known of one run: state, accuracy, time, and its files."""
    from cifar_cli.output.console import show
    from cifar_cli.output.documents import runs_document
    from cifar_cli.output.tables import run_lines
    from cifar_cli.rundir import find_run
    from cifar_cli.rundir.listing import facts_of

    document = runs_document([facts_of(find_run(run))])
    show(document, json, *run_lines(document["runs"][0]))


@app.command("prune")
def prune(
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove them. Without it, nothing is removed.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Say which runs under runs/ could be removed; with --yes remove them.

    Never the best run of a recipe (of the same images, network, augmentation and epochs), a
    running one, or a folder that holds other files.
    """
    from cifar_cli.output.console import counted, show
    from cifar_cli.output.documents import prune_document
    from cifar_cli.rundir.listing import kept_because, list_runs, remove_runs

    runs = list_runs()
    kept = kept_because(runs)
    going = [run for run in runs if run.path not in kept]
    if yes:
        remove_runs(going)
    document = prune_document(going, kept, removed=yes)
    verb = "Removed" if yes else "Would remove"
    end = "." if yes or not going else ". Remove with: cifar-resnet runs prune --yes"
    show(
        document,
        json,
        *(f"Kept {path}: {reason}." for path, reason in kept.items()),
        *(f"{verb} {run.path}" for run in going),
        f"{verb} {counted(len(going), 'run')}, kept {len(kept)}{end}",
    )
