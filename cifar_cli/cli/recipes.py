"""`cifar-resnet recipes list | show | copy | explain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cifar_cli.cli import options

app = typer.Typer(
    help="List, show and copy the built-in recipes, and explain settings.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A built-in recipe.")]


@app.command("list")
def list_recipes(json: options.Json = False) -> None:
    """List the built-in recipes."""
    from cifar_cli.config import load_config, recipe_names, recipe_text
    from cifar_cli.output.console import print_json, results
    from cifar_cli.output.tables import recipe_table
    from cifar_cli.rundir import SCHEMA_VERSION

    rows = []
    for name in recipe_names():
        config = load_config(name, env={})
        model = config.model
        rows.append(
            {
                "name": name,
                "epochs": config.train.epochs,
                "batch_size": config.train.batch_size,
                "widths": list(model.widths) if model.name == "speed_resnet" else [model.width],
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
    """Print a recipe as YAML, as it is written."""
    from cifar_cli.config import recipe_text

    print(recipe_text(name), end="")


@app.command("copy")
def copy_recipe(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")],
) -> None:
    """Copy a built-in recipe to a file that you can edit."""
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


@app.command("explain")
def explain_setting(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="A setting, such as model.width, or a section.")
    ],
    json: options.Json = False,
) -> None:
    """Explain a setting or a section: meaning, values, default, and which modules read it."""
    from dataclasses import asdict

    from cifar_cli.config.explain import explain
    from cifar_cli.config.loading import variable
    from cifar_cli.config.settings import TAGS
    from cifar_cli.output.console import print_json, results, styled
    from cifar_cli.rundir import SCHEMA_VERSION

    entries = explain(key)
    if json:
        settings = [asdict(entry) | {"variable": variable(entry.key)} for entry in entries]
        print_json({"schema_version": SCHEMA_VERSION, "settings": settings})
        return
    console = results()
    for entry in entries:
        console.print(styled(entry.key))
        console.print(f"  {entry.meaning}")
        console.print(f"  values       {entry.values}")
        console.print(f"  default      {entry.default!r}")
        if entry.belongs_to:
            section = entry.key.partition(".")[0]
            console.print(f"  belongs to   {section}.{TAGS[section]} {', '.join(entry.belongs_to)}")
        console.print(f"  read by      {', '.join(entry.read_by)}")
        console.print(f"  environment  {variable(entry.key)}")
