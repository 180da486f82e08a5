"""Runs that are stopped, and what of them must be the same afterwards."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest
import torch
from conftest import TINY_FLAGS, rows, tiny_config

from cifar_cli import train
from cifar_cli.errors import Interrupted
from cifar_cli.rundir import RunDir
from cifar_cli.training.checkpoint import load_checkpoint
from cifar_cli.training.observer import Observer

TIMES = ("seconds", "train_seconds")
FLAGS = [*TINY_FLAGS, "--set", "runtime.threads=1"]


class Stop(Observer):
    """Interrupts this process after a step."""

    def __init__(self, epoch: int, step: int) -> None:
        self.at = (epoch, step)

    def stepped(self, epoch: int, step: int) -> None:
        if (epoch, step) == self.at:
            os.kill(os.getpid(), signal.SIGINT)


class StopAfterEpoch(Stop):
    """Interrupts this process when an epoch is saved."""

    def __init__(self, epoch: int) -> None:
        super().__init__(epoch, -1)

    def epoch_ended(self, record: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def interrupted(path: Path | str, **changes: object) -> RunDir:
    """A run of three epochs that was stopped in its second."""
    with pytest.raises(Interrupted):
        train(tiny_config(train__epochs=3, **changes), path, observer=Stop(2, 2))
    return RunDir(Path(path))


def hashes(run: RunDir) -> dict[str, str]:
    """What the checkpoints hold, by name."""
    folder = run.last.parent
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def kept(run: RunDir, before: dict[str, str]) -> bool:
    """Whether the newest and the best checkpoint are as they were, and nothing else lies there."""
    now = hashes(run)
    same = all(now[name] == before[name] for name in ("last.pt", "best.pt"))
    return same and set(now) <= {"last.pt", "best.pt", "previous.pt"}


def equal(one: object, two: object) -> bool:
    """Compare trees of plain values and tensors to the bit, times left out."""
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(
            equal(one[key], two[key]) for key in one if key not in TIMES
        )
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


def same_run(one: RunDir, two: RunDir) -> bool:
    """Weights, optimiser, generators, history, LR trace and metrics, to the bit."""
    first, second = (load_checkpoint(run.last) for run in (one, two))
    assert first.training
    assert second.training
    without = [
        [{k: v for k, v in row.items() if k not in TIMES} for row in rows(run.path / "metrics.csv")]
        for run in (one, two)
    ]
    return (
        equal(first.weights, second.weights)
        and equal(first.training.model_dump(), second.training.model_dump())
        and equal(load_checkpoint(one.best).weights, load_checkpoint(two.best).weights)
        and (one.path / "steps.csv").read_bytes() == (two.path / "steps.csv").read_bytes()
        and without[0] == without[1]
    )
