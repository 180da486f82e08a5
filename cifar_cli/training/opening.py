"""A run directory that is to be trained in: found, locked, and its checkpoint read, once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_cli.config.checking import complete_tree
from cifar_cli.errors import CheckpointError, nearest_hint
from cifar_cli.rundir import RunDir, create_run, known_runs, run_path
from cifar_cli.training.checkpoint import Checkpoint, load_newest


@dataclass
class OpenRun:
    """A run directory that this process may train in."""

    run: RunDir
    is_resume: bool
    """Whether a run that is there is to be resumed."""
    is_named: bool
    """Whether the user chose the folder, so that no other may take its place."""
    is_here: bool
    """Whether the folder is there already; it is locked then."""
    checkpoint: Checkpoint | None
    """The newest state of the run; None if there is none."""
    stack: ExitStack
    """Holds the lock."""

    def own_settings(self) -> dict[str, Any] | None:
        """The run's complete settings: its checkpoint's, else its config.yaml; None without both.

        All but its data folder and torch.compile: the run may be from elsewhere, and caches are
        written to that folder, and code is compiled only if this process was asked to.
        """
        if self.checkpoint:
            own = complete_tree(self.checkpoint.config)
        elif self.is_here and self.run.is_run and os.path.lexists(self.run.config):
            own = complete_tree(self.run.read_config())
        else:
            return None
        own["data"]["dir"] = None
        own["runtime"]["compile"] = False
        return own

    def make(self) -> RunDir:
        """Make the folder and lock it, unless it is there already; return it."""
        if not self.is_here:
            self.run = create_run(self.run.path, exactly=self.is_resume and self.is_named)
            self.stack.enter_context(self.run.locked())
        return self.run


@contextmanager
def open_run(
    run_dir: str | os.PathLike[str] | None = None, name: str | None = None, resume: bool = False
) -> Iterator[OpenRun]:
    """Open the run directory that is meant; with `resume` its lock is held from here on.

    Args:
        run_dir: The folder; None: the one of that name.
        name: The name under `runs/`; None: the date and time.
        resume: Read what is there, to resume it.

    Raises:
        CheckpointError: There is no such run, it is damaged, or it is something else.
        StorageError: Another process trains there.
    """
    run = RunDir(Path(run_dir) if run_dir is not None else _named(name, resume))
    is_named = run_dir is not None or name is not None
    is_here = resume and run.path.is_dir()
    with ExitStack() as stack:
        checkpoint = None
        if is_here:
            stack.enter_context(run.locked())
            checkpoint = _checkpoint_of(run)
        yield OpenRun(run, resume, is_named, is_here, checkpoint, stack)


def _named(name: str | None, resume: bool) -> Path:
    target = run_path(name or time.strftime("%Y%m%d-%H%M%S"))
    # A new folder may be resumed, but a name that is not among the others is a slip.
    if resume and name and not target.exists() and (others := known_runs()):
        names = [path.name for path in others]
        raise CheckpointError(
            f"--resume --name {name}: there is no such run{nearest_hint(name, names)}. Runs here: "
            f"{', '.join(names[-8:])}.",
            "To start a new one, leave out --resume.",
        )
    return target


def _checkpoint_of(run: RunDir) -> Checkpoint | None:
    """The newest checkpoint in a folder that is to be resumed; None if there is none yet.

    A process that is killed before its first `last.pt` may have left `best.pt` and `steps.csv`;
    an epoch in `metrics.csv`, or a result, comes after it only.

    Raises:
        CheckpointError: All are damaged or lost, or the folder holds something else than a run.
    """
    if not run.is_run:
        if run.is_empty:
            return None
        raise CheckpointError(
            f"{run.path} holds files, but not a run of cifar-resnet. Nothing is resumed, "
            "and nothing is written there.",
            "Choose another --name or --run-dir.",
        )
    run.subfolder("checkpoints")  # refused here already, before a damaged one is set aside
    checkpoint = load_newest(run.last)
    if checkpoint is None and (os.path.lexists(run.result) or run.read_metrics()):
        raise CheckpointError(
            f"{run.path} has results, but its checkpoints last.pt and previous.pt are lost: it "
            "cannot be resumed.",
            "Start a new run.",
        )
    return checkpoint
