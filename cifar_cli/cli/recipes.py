"""`cifar-resnet recipes list | show | copy | explain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cifar_cli.cli import completion, options

app = typer.Typer(
    help="List, show and copy the built-in recipes, and explain settings.", no_args_is_help=True
)
Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A built-in recipe.", autocompletion=completion.recipes),
]


@app.command("list")
def list_recipes(json: options.Json = False) -> None:
    """List the built-in recipes."""
    from cifar_cli.config import load_config, recipe_names, recipe_text
    from cifar_cli.output.console import results, show
    from cifar_cli.output.documents import recipe_document
    from cifar_cli.output.tables import recipe_table

    configs = {name: load_config(name, env={}) for name in recipe_names()}
    headers = {name: recipe_text(name).partition("\n")[0] for name in configs}
    document = recipe_document(configs, headers)
    show(document, json, recipe_table(document["recipes"], results().width))


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
    from cifar_cli.config.explain import explain
    from cifar_cli.output.console import show
    from cifar_cli.output.documents import setting_document
    from cifar_cli.output.tables import setting_lines

    document = setting_document(explain(key))
    show(document, json, *(line for entry in document["settings"] for line in setting_lines(entry)))
