"""What a shell offers after `cifar-resnet ... <Tab>`: recipes, runs and checkpoints."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from cifar_cli.errors import ConfigError

OPTIONS = "--show-completion", "--install-completion"
SHELLS = "bash", "zsh", "fish", "powershell", "pwsh"


def with_shell(arguments: Sequence[str]) -> list[str]:
    """The command line with the shell that started it behind an option that names none.

    Raises:
        ConfigError: There is no completion for that shell, or it cannot be told which it is.
    """
    complete: list[str] = []
    for text, following in itertools.pairwise([*arguments, "-"]):
        complete.append(text)
        if text in OPTIONS and following.startswith("-"):
            complete.append(_parent_shell(text))
    return complete


def _parent_shell(option: str) -> str:
    import shellingham  # of Typer, which looks at the parent processes with it, too

    try:
        name = str(shellingham.detect_shell()[0])
    except (shellingham.ShellDetectionFailure, RuntimeError, OSError):
        name = ""
    if name in SHELLS:
        return name
    what = f"There is no completion for the shell {name}." if name else "No shell was recognised."
    raise ConfigError(what, f"Name one after {option}: {', '.join(SHELLS)}.")


def recipes(incomplete: str) -> list[str]:
    """Built-in recipes; a shell adds files by itself if none fits."""
    from cifar_cli.config import recipe_names

    return _starting(recipe_names(), incomplete)


def runs(incomplete: str) -> list[str]:
    """Runs under `runs/`, the newest first."""
    from cifar_cli.rundir import known_runs

    return _starting([path.name for path in reversed(known_runs())], incomplete)


def checkpoints(incomplete: str) -> list[str]:
    """The two names, and the files of the runs here."""
    from cifar_cli.rundir import known_runs

    files = [
        str(path)
        for run in reversed(known_runs())
        for path in sorted((run / "checkpoints").glob("*.pt"))
    ]
    return _starting(["last", "best", *files], incomplete)


def _starting(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
