"""Checkpoints: tensors and plain values in one file, checked when written and when read.

A file is written beside its name, synced and renamed; what it replaces stays as
`previous.pt`, so that no single damaged file ends a run.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cifar_cli.config import Config
from cifar_cli.config.loading import build_config
from cifar_cli.errors import CheckpointError, CifarError
from cifar_cli.rundir import EpochRecord, atomic_file
from cifar_cli.training.runtime import restore_rng, rng_state
from cifar_cli.training.trainer import TrainState

FORMAT = "cifar-resnet checkpoint"
VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a file held, verified."""

    path: Path
    config: Config
    class_names: tuple[str, ...]
    weights: dict[str, Tensor]
    training: dict[str, Any] | None
    """Optimiser, position, history and generators; None in a file of weights alone."""


def save_checkpoint(
    path: Path,
    state: TrainState,
    config: Config,
    class_names: tuple[str, ...],
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
        "config": config.model_dump(mode="json"),
        "class_names": list(class_names),
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
    content["checksum"] = _checksum(content)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    keep = path.with_name("previous.pt") if path.name == "last.pt" else None
    with atomic_file(path, keep) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint onto the CPU; no code in the file is ever run.

    Raises:
        CheckpointError: Missing, damaged, of another program, or of a newer version.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of other programs' files
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint {path}.") from None
    except Exception as error:  # damaged bytes make an unpickler raise anything
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint of this program. "
            "Use another one (checkpoints/previous.pt, checkpoints/best.pt) or train anew."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of cifar-resnet.")
    if content.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has version {content.get('version')}; this program reads version {VERSION}. "
            "Update cifar-resnet."
        )
    if content.pop("checksum", None) != _checksum(content):
        raise CheckpointError(
            f"{path} is damaged: its checksum does not fit. Use checkpoints/previous.pt or "
            "checkpoints/best.pt, or train anew."
        )
    try:
        config = build_config(content["config"])
    except CifarError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Checkpoint(
        path,
        config,
        tuple(content["class_names"]),
        content["weights"],
        content["training"],
    )


def load_newest(path: Path) -> Checkpoint | None:
    """Read `last.pt`, or `previous.pt` where that is missing or damaged; None without both.

    Raises:
        CheckpointError: Files are there, and all are damaged.
    """
    failure: CheckpointError | None = None
    for candidate in (path, path.with_name("previous.pt")):
        if candidate.is_file():
            try:
                return load_checkpoint(candidate)
            except CheckpointError as error:
                failure = failure or error
    if failure:
        raise failure
    return None


def restore(state: TrainState, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's training state into a freshly built one.

    Raises:
        CheckpointError: It holds weights only, or belongs to another network.
    """
    training = checkpoint.training
    if training is None:
        raise CheckpointError(f"{checkpoint.path} holds weights only; training needs last.pt.")
    device = next(state.model.parameters()).device
    load_weights(state.model, checkpoint)
    state.optimizer.load_state_dict(training["optimizer"])
    state.epoch, state.step = training["epoch"], training["step"]
    state.seconds = training["seconds"]
    state.losses = list(training["losses"].to(device))
    state.correct = torch.tensor(training["correct"], device=device)
    state.history = [EpochRecord(**record) for record in training["history"]]
    restore_rng(training["rng"], device)


def load_weights(model: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's weights into `model`.

    Raises:
        CheckpointError: They belong to another network.
    """
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{checkpoint.path} belongs to another network: {str(error).splitlines()[-1].strip()}"
        ) from error


def _checksum(value: Any) -> str:
    """SHA-256 over names, types and bytes of everything in a tree of plain values and tensors."""
    digest = hashlib.sha256()
    _update(digest, value)
    return digest.hexdigest()


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            digest.update(f"{type(key).__name__} {key}:".encode())
            _update(digest, item)
    elif isinstance(value, list | tuple):
        digest.update(f"[{len(value)}]".encode())
        for item in value:
            _update(digest, item)
    elif isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        digest.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    else:
        digest.update(f"{type(value).__name__} {value!r};".encode())
