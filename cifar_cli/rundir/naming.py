"""How a run gets its folder, and how it is found again."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from cifar_cli.errors import CheckpointError, ConfigError, nearest_hint
from cifar_cli.rundir.folder import RunDir
from cifar_cli.storage import storage_errors

RUNS = Path("runs")


def create_run(path: Path, *, exactly: bool = False) -> RunDir:
    """Make a new run directory; if the name is taken, `-2`, `-3` … is added, unless `exactly`.

    Making its `checkpoints/` is what claims a folder, so that of several processes only one gets
    it. A folder that is there without files can be claimed too.

    Raises:
        ConfigError: The path is the root of the file system, or it is taken and `exactly` meant.
        StorageError: The folder cannot be made.
    """
    if path.name in ("", ".."):
        path = path.resolve()
    if not path.name:
        raise ConfigError(f"--run-dir {path}: the root of the file system cannot be a run.")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        candidate, number = path, 1
        while True:
            with suppress(FileExistsError):
                candidate.mkdir()
            run = RunDir(candidate)
            if candidate.is_dir() and run.is_empty:
                try:
                    run.last.parent.mkdir()
                except FileExistsError:
                    pass
                else:
                    return run
            if exactly:
                raise ConfigError(
                    f"{path} is taken: another process has just made it, or it is not a folder.",
                    "Choose another --name or --run-dir.",
                )
            number += 1
            candidate = path.with_name(f"{path.name}-{number}")


def run_path(name: str) -> Path:
    """The folder of a run's name, `runs/<name>`.

    Raises:
        ConfigError: The name cannot be the name of a folder.
    """
    if not re.fullmatch(r"[\w.+=-]{1,100}", name) or name.strip(".") == "":
        raise ConfigError(f"--name {name!r}: use letters, digits, and . _ - + = only.")
    return RUNS / name


def known_runs() -> list[Path]:
    """The runs under `runs/`, the newest last."""
    found = []
    for path in RUNS.iterdir() if RUNS.is_dir() else ():
        with suppress(OSError):  # one that is closed, or is just being removed, hides no other
            status = (path / "config.yaml").stat()
            if stat.S_ISREG(status.st_mode):
                found.append((status.st_mtime_ns, path.name, path))
    return [path for *_, path in sorted(found)]


def find_run(run: str | os.PathLike[str] | None = None) -> RunDir:
    """Find a run by directory or by its name under `runs/`; None finds the newest.

    Raises:
        CheckpointError: There is no such run.
    """
    known = known_runs()
    if run is None:
        if not known:
            raise CheckpointError(
                "No run under runs/ yet.", "Train one first: cifar-resnet train --recipe demo"
            )
        return RunDir(known[-1])
    for candidate in (Path(run), RUNS / run):
        if (candidate / "config.yaml").is_file():
            return RunDir(candidate)
    names = [p.name for p in known]
    listed = f" Runs here: {', '.join(names[-8:])}." if names else " There are no runs here."
    raise CheckpointError(
        f"No run {os.fspath(run)!r}{nearest_hint(os.fspath(run), names)}: neither a run directory "
        f"nor a name under runs/.{listed}"
    )
