"""What a shell offers after `cifar-resnet ... <Tab>`: recipes, runs and checkpoints."""

from __future__ import annotations


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
