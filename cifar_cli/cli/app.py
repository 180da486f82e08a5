"""The Typer app, and the one table from error to message and exit code."""

from __future__ import annotations

import os
import re
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from cifar_cli import __version__
from cifar_cli.cli import completion, recipes, runs, sweep
from cifar_cli.cli.bench import bench
from cifar_cli.cli.compare import compare
from cifar_cli.cli.doctor import doctor
from cifar_cli.cli.evaluate import evaluate
from cifar_cli.cli.export import export
from cifar_cli.cli.failures import explain, fail
from cifar_cli.cli.find_lr import find_lr
from cifar_cli.cli.misclassified import misclassified
from cifar_cli.cli.plot import plot
from cifar_cli.cli.predict import predict
from cifar_cli.cli.preview_augs import preview_augs
from cifar_cli.cli.report import report
from cifar_cli.cli.serve import serve
from cifar_cli.cli.stopping import Stopping
from cifar_cli.cli.summary import summary
from cifar_cli.cli.train import train
from cifar_cli.errors import path_problem
from cifar_cli.output.streams import own_streams, plain_warnings
from cifar_cli.text import printable

COMPLETION = "_CIFAR_RESNET_COMPLETE"
"""A shell sets this variable and calls the program, to complete a command line."""
# Typer would look for the shell itself, and take no name: see `completion.with_shell`.
os.environ["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"
# It prints members of this class, which would be shown as `Shells.bash`.
Shells = typer.completion.Shells  # type: ignore[attr-defined]
setattr(Shells, "__str__", lambda shell: shell.value)  # noqa: B010
app = typer.Typer(
    name="cifar-resnet",
    help="Train a custom ResNet on CIFAR-10, and see what it learned.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Two commands to start with: cifar-resnet train --recipe demo, then cifar-resnet plot",
)
for command in (
    summary,
    preview_augs,
    find_lr,
    train,
    evaluate,
    misclassified,
    predict,
    export,
    report,
    serve,
    plot,
    compare,
    bench,
    doctor,
):
    app.command()(command)
app.add_typer(recipes.app, name="recipes")
app.add_typer(runs.app, name="runs")
app.add_typer(sweep.app, name="sweep")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"cifar-resnet {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; every error ends as one message on stderr."""
    with own_streams(), plain_warnings(), Stopping() as stopping:
        return _run(sys.argv[1:] if arguments is None else arguments, stopping)


def _run(arguments: list[str], stopping: Stopping) -> int:
    _drop_bad_variables()
    if not _has_current_folder():
        return fail("The current folder no longer exists. Change to another one (cd).", 2)
    for text in arguments:  # many are paths, and all may be printed
        if problem := path_problem(text):
            return fail(f"The argument {text!a:.90} {problem}. Write it another way.", 2)
    arguments = [_expanded(text) for text in arguments]
    outcome: Any
    try:
        stopping.raises = True
        arguments = completion.with_shell(arguments)
        outcome = app(arguments, standalone_mode=False, prog_name="cifar-resnet")
        sys.stdout.flush()
    except BaseException as error:
        stopping.raises = False
        if isinstance(error, SystemExit) and _is_completing(arguments):
            return int(error.code or 0)
        if stopping.number is None and not isinstance(error, KeyboardInterrupt):
            if "--debug" in arguments:
                trace = "".join(traceback.format_exception(error))
                print(*map(printable, trace.splitlines()), sep="\n", file=sys.stderr)
            return fail(*explain(error, arguments))
        outcome = 130
    stopping.raises = False
    if stopping.number is not None:
        outcome = 128 + stopping.number
    if isinstance(outcome, int) and outcome > 128:  # what Typer makes of Ctrl-C is one, too
        return fail("Interrupted.", outcome)
    return outcome if isinstance(outcome, int) else 0


def _drop_bad_variables() -> None:
    """Forget variables that libraries would read as numbers or commands, and that are not."""
    if not re.fullmatch(r"(source|complete)_\w{2,12}", os.environ.get(COMPLETION, "")):
        os.environ.pop(COMPLETION, None)
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        if not re.fullmatch("[1-9][0-9]{1,4}", os.environ.get(name, "80")):
            del os.environ[name]


def _is_completing(arguments: list[str]) -> bool:
    """Whether Typer answers a shell, or shows or installs completion; it exits afterwards."""
    wanted = any(text.startswith(completion.OPTIONS) for text in arguments)
    return wanted or COMPLETION in os.environ


def _has_current_folder() -> bool:
    """Whether there is one: libraries end the process if it has been deleted."""
    try:
        return Path.cwd().is_dir()
    except OSError:
        return False


def _expanded(argument: str) -> str:
    """`~/x` and `--option=~/x` as paths in the home folder; a shell expands only some of them."""
    if not re.match(r"(--[\w-]+=)?~", argument):
        return argument
    option, _, path = argument.partition("~")
    return option + os.path.expanduser("~" + path)  # noqa: PTH111 - takes users that are unknown
