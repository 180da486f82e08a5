"""Write `doc/commands.md` from the command line's own help; `--check` tells whether it drifted."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import typer

from cifar_cli import errors
from cifar_cli.cli.app import app

TARGET = Path(__file__).with_name("commands.md")
HEADER = """\
# Commands

<!-- Written by doc/generate_commands.py (make docs) from the help texts; do not edit. -->

Results go to stdout, progress and remarks to stderr. `RUN` is a run directory or the name of one
under `runs/`; left out, it is the newest. Settings are taken from the defaults, then the recipe,
then `--config`, then the environment (`CIFAR_RESNET_MODEL__WIDTH=32` sets `model.width`), then
`--set`, then the other options; what comes later wins. With `--resume`, the run's own settings
stand in the place of recipe and environment. `cifar-resnet --debug COMMAND` adds the traceback to
an error.
"""


def text() -> str:
    """The whole document."""
    root: Any = typer.main.get_command(app)
    parts = [HEADER]
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            parts.append(f"## `cifar-resnet {name}`\n\n{_prose(command.help)}\n")
            for inner_name, inner in command.commands.items():
                parts.append(_section(f"{name} {inner_name}", inner, level=3))
        else:
            parts.append(_section(name, command, level=2))
    parts.append(_exit_codes())
    return "\n".join(parts)


def _section(name: str, command: Any, level: int) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    shown = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join(["cifar-resnet", name, "[OPTIONS]", *(_argument(a) for a in arguments)])
    lines = [f"{'#' * level} `cifar-resnet {name}`", "", _prose(command.help), ""]
    lines += ["```", usage, "```", "", "| option | default | meaning |", "|---|---|---|"]
    for argument in arguments:
        lines.append(f"| `{_name(argument)}` | | {_cell(argument.help)} |")
    for option in shown:
        lines.append(f"| {_option(option)} | {_default(option)} | {_cell(option.help)} |")
    return "\n".join([*lines, ""])


def _name(argument: Any) -> str:
    """Without the brackets and dots that a metavar has where there may be none or several."""
    return str(argument.metavar or argument.name.upper()).strip("[].")


def _argument(argument: Any) -> str:
    name = _name(argument) + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _option(option: Any) -> str:
    names = ", ".join(option.opts)
    if option.is_flag:
        return f"`{names}`"
    return f"`{names} {_cell(option.metavar)}`"


def _default(option: Any) -> str:
    # A default of None is told in the help text, where there is one to tell.
    plain = option.default is None or option.is_flag or callable(option.default)
    return "" if plain else f"`{option.default}`"


def _cell(words: str | None) -> str:
    return " ".join((words or "").split()).replace("|", "\\|")


def _prose(words: str | None) -> str:
    paragraphs = inspect.cleandoc(words or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _exit_codes() -> str:
    lines = ["## Exit codes", "", "| code | meaning |", "|---|---|", "| 0 | done |"]
    lines.append("| 1 | a fault of the program |")
    for error in errors.CifarError.__subclasses__():
        if "exit_code" in vars(error):
            meaning = _cell(str(error.__doc__)).removesuffix(".")
            lines.append(f"| {error.exit_code} | {meaning[0].lower()}{meaning[1:]} |")
    meaning = (
        "interrupted by SIGINT or SIGTERM; training was saved first, unless a second SIGINT came"
    )
    lines.append(f"| 130, 143 | {meaning} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Write the document, or compare it."""
    if "--check" in sys.argv:
        if not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text():
            raise SystemExit(f"{TARGET.name} does not match the help texts: run make docs.")
        return
    TARGET.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
