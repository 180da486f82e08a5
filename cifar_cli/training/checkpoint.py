"""Checkpoints: tensors and plain values in one file, checked before it is read.

A file is written beside its name, synced and renamed; what it replaces stays as
`previous.pt`, so that no single damaged file ends a run. It is what `torch.save` writes, a zip
archive, whose comment holds a SHA-256 of all bytes before it (`sealed`). What it holds is checked
against one schema (`document`).
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifar_cli.config import Config
from cifar_cli.config.checking import build_complete, complete_tree
from cifar_cli.config.migration import no_longer
from cifar_cli.errors import CheckpointError, ConfigError
from cifar_cli.models import build_model
from cifar_cli.rng import restore_rng, rng_state
from cifar_cli.storage import storage_errors, write_bytes
from cifar_cli.training.document import FORMAT, VERSION, Optimizer, Training, check_document
from cifar_cli.training.memory import memory_errors
from cifar_cli.training.sealed import DamagedError, read_archive, reading, seal
from cifar_cli.training.state import TrainState

PREVIOUS = "previous.pt"
EVAL_SIZE = "model.eval_size"
"""A setting of earlier versions."""
# What each optimiser remembers of a parameter; each of the parameter's shape, but for `step`.
_AVERAGES = {"Adam": {"step", "exp_avg", "exp_avg_sq"}, "Muon": {"momentum"}}
# What torch.compile and data parallelism put before the names of weights.
_PREFIX = re.compile(r"^(?:_orig_mod\.|module\.)+")


@dataclass(frozen=True)
class Checkpoint:
    """What a file held, verified."""

    path: Path
    config: Config
    class_names: tuple[str, ...]
    weights: dict[str, Tensor]
    data: str
    """Fingerprint of the images that it was trained and validated on."""
    training: Training | None
    """Optimiser, position, history and generators; None in a file of weights alone."""
    dropped: dict[str, Any] = field(default_factory=dict)
    """Settings that it was trained with and that this version no longer has, by key."""

    @property
    def eval_size(self) -> int:
        """Side in pixels at which its network classifies."""
        return int(self.dropped.get(EVAL_SIZE, self.config.eval_size))


def save_checkpoint(
    path: Path,
    state: TrainState,
    config: Config,
    class_names: tuple[str, ...],
    data: str,
    *,
    weights_only: bool = False,
) -> None:
    """Write `state` to `path`; with `weights_only` without what only training needs.

    Raises:
        StorageError: The file cannot be written; an older one is untouched.
    """
    device = next(state.model.parameters()).device
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "config": complete_tree(config),
        "class_names": list(class_names),
        "data": data,
        "weights": {name: t.detach().cpu() for name, t in state.model.state_dict().items()},
        "training": None,
    }
    if not weights_only:
        content["training"] = {
            "optimizer": state.optimizer.state_dict(),
            "epoch": state.epoch,
            "step": state.step,
            "seconds": state.seconds,
            "losses": torch.stack(state.losses).cpu() if state.losses else torch.zeros(0),
            "correct": 0 if state.correct is None else int(state.correct),
            "history": [asdict(record) for record in state.history],
            "rng": rng_state(device),
        }
        if state.has_new_head:
            content["training"]["new_head"] = True
    buffer = io.BytesIO()
    torch.save(content, buffer)
    keep = path.with_name(PREVIOUS) if path.name == "last.pt" else None
    write_bytes(path, seal(buffer.getvalue()), keep)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU and check all that it holds; no code in it is ever run.

    Raises:
        CheckpointError: Missing, damaged, of another program or of a newer version, or an entry is
            wrong.
        OutOfMemoryError: It does not fit into memory.
    """
    try:
        with memory_errors(*reading(path)):
            content = read_archive(path, _others(path))
        return checkpoint_of(path, content)
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint {path}.", _others(path)) from None


def checkpoint_of(path: Path, content: object, *, has_graph: bool = False) -> Checkpoint:
    """Check what a file holds.

    Args:
        path: The file, for messages.
        content: As `save_checkpoint` puts it together.
        has_graph: Whether the file has the weights in a graph of its own, not here.

    Raises:
        CheckpointError: As `load_checkpoint`.
    """
    try:
        document = check_document(content, str(path))
        config, dropped = build_complete(document.config)
        if "model.strided" in dropped:
            raise ConfigError(
                f"{no_longer(dropped)[0]}. Use the version of cifar-resnet that wrote it."
            )
        weights = {_PREFIX.sub("", name): tensor for name, tensor in document.weights.items()}
        with torch.device("meta"):  # which takes no memory, however wide it is
            network = build_model(config.model, len(document.class_names), config.data.image_size)
        if not has_graph:
            _check_weights(path, network, weights)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error.what}", error.remedy) from error
    except RecursionError:
        raise CheckpointError(f"{path} is nested too deeply for a checkpoint.") from None
    names = tuple(document.class_names)
    return Checkpoint(path, config, names, weights, document.data, document.training, dropped)


def load_newest(path: Path) -> Checkpoint | None:
    """Read `last.pt`, or `previous.pt` where that is missing or damaged; None without both.

    Raises:
        CheckpointError: Files are there, and all are damaged, or one is not this program's.
    """
    damaged = []
    for candidate in (path, path.with_name(PREVIOUS)):
        if os.path.lexists(candidate):
            try:
                return load_checkpoint(candidate)
            except DamagedError:
                damaged.append(str(candidate))
    if damaged:
        raise CheckpointError(
            f"{' and '.join(damaged)} cannot be read: their checksums do not fit.",
            "This run cannot be resumed; start a new one. Its best.pt, if there is one, can still "
            "be evaluated.",
        )
    return None


def set_aside(path: Path) -> None:
    """Take a damaged checkpoint out of the way, lest it be kept in the place of a sound one."""
    if os.path.lexists(path):
        with storage_errors(path):
            path.replace(path.with_name("damaged.pt"))


def restore(state: TrainState, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's training state into a freshly built one.

    Raises:
        CheckpointError: It holds weights only, or belongs to another network or optimiser.
    """
    training = checkpoint.training
    if training is None:
        raise CheckpointError(f"{checkpoint.path} holds weights only; training needs last.pt.")
    device = next(state.model.parameters()).device
    load_weights(state.model, checkpoint)
    _restore_optimizer(state.optimizer, training.optimizer, checkpoint.path)
    state.epoch, state.step, state.seconds = training.epoch, training.step, training.seconds
    state.losses = list(training.losses.to(device))
    state.correct = torch.tensor(training.correct, device=device)
    state.history = [epoch.record for epoch in training.history]
    try:
        restore_rng(training.rng.states, device)
    except (RuntimeError, TypeError):
        raise _misfit(checkpoint.path, "training.rng", "random number generator") from None


def _restore_optimizer(optimizer: torch.optim.Optimizer, found: Optimizer, path: Path) -> None:
    """Averages come from the file, settings from the configuration, which may have been changed."""
    own = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    expected = _AVERAGES[type(optimizer).__name__]
    if set(found.state) != set(range(len(parameters))):
        raise _misfit(path, "training.optimizer.state", "optimiser")
    for number, averages in found.state.items():
        shapes = {name: tensor.shape for name, tensor in averages.items()}
        wanted = {n: torch.Size() if n == "step" else parameters[number].shape for n in expected}
        if shapes != wanted or not all(t.is_floating_point() for t in averages.values()):
            raise _misfit(path, f"training.optimizer.state.{number}", "optimiser")
    optimizer.load_state_dict({"state": found.state, "param_groups": own["param_groups"]})
    for parameter, averages in optimizer.state.items():
        for name, value in averages.items():
            if value.shape == parameter.shape:
                # The memory layout may have been changed, and fused steps take both as one.
                averages[name] = torch.empty_like(parameter).copy_(value)
            else:
                averages[name] = value.float()  # its number of steps


def _misfit(path: Path, entry: str, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: {entry} does not fit the {what} of this run.")


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's weights into `model`.

    Raises:
        CheckpointError: They belong to another network; the first that differ are named.
    """
    _check_weights(checkpoint.path, model, checkpoint.weights)
    model.load_state_dict(checkpoint.weights)


def _check_weights(path: Path, model: nn.Module, found: dict[str, Tensor]) -> None:
    own = model.state_dict()
    differing = [
        f"{name} is {_shape(found.get(name))} in the file, {_shape(own.get(name))} in the network"
        for name in dict.fromkeys([*own, *found])
        if _shape(own.get(name)) != _shape(found.get(name))
    ]
    if differing:
        more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise CheckpointError(
            f"{path} belongs to another network: {'; '.join(differing[:3])}{more}."
        )


def _others(path: Path) -> str:
    there = [p for name in ("last.pt", "best.pt", PREVIOUS) if (p := path.with_name(name)) != path]
    found = [str(p) for p in there if p.is_file()]
    return (
        f"Use {' or '.join(found)} with --checkpoint, or train again." if found else "Train again."
    )


def _shape(tensor: Tensor | None) -> str:
    if tensor is None:
        return "missing"
    kind = "" if tensor.is_floating_point() else " of whole numbers"
    return ("x".join(map(str, tensor.shape)) or "a number") + kind
