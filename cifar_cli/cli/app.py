"""The Typer app, and the one table from error to message and exit code."""

from __future__ import annotations

import errno
import os
import re
import select
import sys
import traceback
from typing import Annotated, Any

import typer

from cifar_cli import __version__
from cifar_cli.cli import recipes
from cifar_cli.cli.bench import bench
from cifar_cli.cli.doctor import doctor
from cifar_cli.cli.evaluate import evaluate
from cifar_cli.cli.find_lr import find_lr
from cifar_cli.cli.misclassified import misclassified
from cifar_cli.cli.plot import plot
from cifar_cli.cli.preview_augs import preview_augs
from cifar_cli.cli.summary import summary
from cifar_cli.cli.train import train
from cifar_cli.errors import CifarError, path_problem

app = typer.Typer(
    name="cifar-resnet",
    help="Train a custom ResNet on CIFAR-10, and see what it learned.",
    no_args_is_help=True,
    add_completion=False,
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
    plot,
    bench,
    doctor,
):
    app.command()(command)
app.add_typer(recipes.app, name="recipes")


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
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    for text in arguments:  # many are paths, and all may be printed
        if problem := path_problem(text):
            return _fail(f"The argument {text!a:.90} {problem}. Write it another way.", 2)
    try:
        outcome: Any = app(arguments, standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # The reader of a pipe has seen enough (Typer and Rich turn that into an exit of their
        # own). Where it read the results, the work was done; where it read the remarks, it was not.
        aborted = _reader_is_gone(sys.stderr.fileno())
        for stream in (sys.stdout, sys.stderr):  # keep Python from complaining at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 1 if aborted else 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _fail(*_message_and_code(error, arguments))
    if outcome == 130:  # what Typer makes of Ctrl-C
        return _fail("Interrupted.", 130)
    return outcome if isinstance(outcome, int) else 0


def _reader_is_gone(descriptor: int) -> bool:
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _message_and_code(error: Exception, arguments: list[str]) -> tuple[str, int]:
    if isinstance(error, CifarError):
        return str(error), error.exit_code
    # Typer's and click's own errors of usage know their code and text.
    show = getattr(error, "format_message", None)
    if show is not None and hasattr(error, "exit_code"):
        return _with_value(str(show()).strip(), arguments), int(error.exit_code)
    if isinstance(error, OSError) and isinstance(error.filename, str | os.PathLike):
        # A path that cannot even be looked at: its name too long, its folder closed.
        name = os.fspath(error.filename)
        return f"Cannot use the path {name!r:.90}: {error.strerror}. Give another one.", (
            7 if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO) else 2
        )
    return (
        f"A fault of the program: {type(error).__name__}: {error}. "
        "Run it again with --debug (before the command) and report what it prints."
    ), 1


def _with_value(message: str, arguments: list[str]) -> str:
    """Add the value that was given, which not every message of Typer's names."""
    if named := re.match(r"Invalid value for '(--[\w-]+)'", message):
        for text, following in zip(arguments, [*arguments[1:], ""], strict=True):
            option, equals, value = text.partition("=")
            value = value if equals else following
            if option == named[1] and value not in message:
                message = f"{named[0]}: {value!r}{message[named.end() :]}"
    if not message:
        return ""
    end = "" if message.endswith(("?", ".")) else "."
    return f"{message}{end} Try --help."


def _fail(message: str, code: int) -> int:
    if not message:  # such as a command group without a command, which has shown its help
        return code
    print(f"Error: {message}" if code < 128 else message, file=sys.stderr)
    return code
