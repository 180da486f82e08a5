"""`cifar-resnet recipes list | show | copy`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cifar_cli.cli import options

app = typer.Typer(help="List, show and copy the built-in recipes.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A built-in recipe.")]


@app.command("list")
def list_recipes(json: options.Json = False) -> None:
    """List the recipes, each with its first line."""
    from cifar_cli.config import load_config, recipe_names, recipe_text
    from cifar_cli.output.console import print_json, results
    from cifar_cli.output.tables import recipe_table
    from cifar_cli.rundir import SCHEMA_VERSION

    rows = []
    for name in recipe_names():
        config = load_config(name, env={})
        model = config.model
        is_speed = model.name == "speed_resnet"
        rows.append(
            {
                "name": name,
                "epochs": config.train.epochs,
                "batch_size": config.train.batch_size,
                "widths": list(model.widths) if is_speed else [model.width],
                "augment": config.augment.form,
                "data": config.data.source,
                "about": recipe_text(name).splitlines()[0].removeprefix("# "),
            }
        )
    if json:
        print_json({"schema_version": SCHEMA_VERSION, "recipes": rows})
    else:
        results().print(recipe_table(rows))


@app.command("show")
def show_recipe(name: Name) -> None:
    """Print a recipe as YAML."""
    from cifar_cli.config import recipe_text

    print(recipe_text(name), end="")


@app.command("copy")
def copy_recipe(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
) -> None:
    """Copy a recipe into a file of your own, to change it."""
    import shlex

    from cifar_cli.config import recipe_text
    from cifar_cli.errors import ConfigError
    from cifar_cli.output.console import print_line
    from cifar_cli.storage import write_text

    text = recipe_text(name)
    if os.path.lexists(file):  # a link that leads nowhere too
        raise ConfigError(f"{file} exists already; choose another name.")
    write_text(file, text)
    print_line(f"Train with it: cifar-resnet train --recipe {shlex.quote(str(file))}")
