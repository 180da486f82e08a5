"""Checkpoints: tensors and plain values in one file, checked before it is read.

A file is written beside its name, synced and renamed; what it replaces stays as
`previous.pt`, so that no single damaged file ends a run. It is what `torch.save` writes, a zip
archive, whose comment holds a SHA-256 of all bytes before it.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifar_cli.config import Config
from cifar_cli.config.loading import build_config
from cifar_cli.errors import CheckpointError, CifarError
from cifar_cli.rundir import EpochRecord
from cifar_cli.storage import storage_errors, write_bytes
from cifar_cli.training.averaging import SlowWeights
from cifar_cli.training.runtime import restore_rng, rng_state
from cifar_cli.training.trainer import TrainState

FORMAT = "cifar-resnet checkpoint"
VERSION = 2
PREVIOUS = "previous.pt"
# The end record of a zip archive; its last two bytes are the length of the comment that follows.
_END, _END_BYTES = b"PK\5\6", 22
# What torch.compile and data parallelism put before the names of weights.
_PREFIX = re.compile(r"^(?:_orig_mod\.|module\.)+")


class DamagedError(CheckpointError):
    """A file that is not as it was written."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file held, verified."""

    path: Path
    config: Config
    class_names: tuple[str, ...]
    weights: dict[str, Tensor]
    data: str
    """Fingerprint of the images that it was trained and validated on."""
    training: dict[str, Any] | None
    """Optimiser, position, history and generators; None in a file of weights alone."""


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
        "config": config.model_dump(mode="json"),
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
            "mean": {
                "count": state.slow.count,
                "kind": state.slow.kind,
                "tensors": [t.cpu() for t in state.slow.tensors],
            },
            "rng": rng_state(device),
        }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    keep = path.with_name(PREVIOUS) if path.name == "last.pt" else None
    write_bytes(path, seal(buffer.getvalue()), keep)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint onto the CPU; no code in the file is ever run.

    Raises:
        CheckpointError: Missing, damaged, of another program, or of a newer version.
    """
    try:
        file = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint {path}. {_others(path)}") from None
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.") from error
    if not _seal_fits(file):
        what = "is damaged: its checksum does not fit" if file else "is empty"
        raise DamagedError(f"{path} {what}. {_others(path)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of other programs' files
            content = torch.load(io.BytesIO(file), map_location="cpu", weights_only=True)
    except Exception as error:  # foreign bytes make an unpickler raise anything
        raise CheckpointError(f"{path} is not a checkpoint of cifar-resnet.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of cifar-resnet.")
    if content.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has version {content.get('version')}; this program reads version {VERSION}. "
            "Use the version of cifar-resnet that wrote it, or the newest one."
        )
    try:
        return Checkpoint(
            path,
            build_config(content["config"]),
            tuple(content["class_names"]),
            {_PREFIX.sub("", name): tensor for name, tensor in content["weights"].items()},
            content["data"],
            content["training"],
        )
    except CifarError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} lacks a part of a checkpoint: {error}.") from error


def load_newest(path: Path) -> Checkpoint | None:
    """Read `last.pt`, or `previous.pt` where that is missing or damaged; None without both.

    Raises:
        CheckpointError: Files are there, and all are damaged, or one is not this program's.
    """
    damaged = []
    for candidate in (path, path.with_name(PREVIOUS)):
        if candidate.exists():
            try:
                return load_checkpoint(candidate)
            except DamagedError:
                damaged.append(str(candidate))
    if damaged:
        raise CheckpointError(
            f"{' and '.join(damaged)} cannot be read: their checksums do not fit. This run cannot "
            "go on; start a new one. Its best.pt, if it is there, can still be evaluated."
        )
    return None


def set_aside(path: Path) -> None:
    """Take a damaged checkpoint out of the way, lest it be kept in the place of a sound one."""
    if path.exists():
        with storage_errors(path):
            path.replace(path.with_name("damaged.pt"))


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
    settings = [_settings(group) for group in state.optimizer.param_groups]
    state.optimizer.load_state_dict(training["optimizer"])
    # Averages come from the file, settings from the configuration, which may have been changed.
    for group, own in zip(state.optimizer.param_groups, settings, strict=True):
        group.update(own)
    for parameter, averages in state.optimizer.state.items():
        for name, value in averages.items():
            if value.shape == parameter.shape:
                # The memory layout may have been changed, and fused steps take both as one.
                averages[name] = torch.empty_like(parameter).copy_(value)
    state.epoch, state.step = training["epoch"], training["step"]
    state.seconds = training["seconds"]
    state.losses = list(training["losses"].to(device))
    state.correct = torch.tensor(training["correct"], device=device)
    state.history = history_of(training)
    if mean := training.get("mean"):  # which older files have not
        tensors = [tensor.to(device) for tensor in mean["tensors"]]
        state.slow = SlowWeights(mean["count"], mean.get("kind", "mean"), tensors)
    restore_rng(training["rng"], device)


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def history_of(training: dict[str, Any]) -> list[EpochRecord]:
    """The epochs that a checkpoint's `training` part tells of."""
    return [EpochRecord(**record) for record in training["history"]]


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's weights into `model`.

    Raises:
        CheckpointError: They belong to another network; the first that differ are named.
    """
    own, found = model.state_dict(), checkpoint.weights
    differing = [
        f"{name} is {_shape(found.get(name))} in the file, {_shape(own.get(name))} in the network"
        for name in dict.fromkeys([*own, *found])
        if _shape(own.get(name)) != _shape(found.get(name))
    ]
    if differing:
        more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise CheckpointError(
            f"{checkpoint.path} belongs to another network: {'; '.join(differing[:3])}{more}."
        )
    model.load_state_dict(found)


def seal(file: bytes) -> bytes:
    """Add a SHA-256 of all bytes to a file of `torch.save`, as the comment of its archive."""
    assert file[-_END_BYTES:][:4] == _END
    digest = hashlib.sha256
    file = file[:-2] + digest().digest_size.to_bytes(2, "little")
    return file + digest(file).digest()


def _seal_fits(file: bytes) -> bool:
    """Whether a file is as it was written; one that `torch.save` wrote anew has no seal."""
    size = hashlib.sha256().digest_size
    body, found = file[:-size], file[-size:]
    if body[-_END_BYTES:][:4] == _END and body[-2:] == size.to_bytes(2, "little"):
        return hashlib.sha256(body).digest() == found
    return file[-_END_BYTES:][:4] == _END and file[-2:] == b"\0\0"


def _others(path: Path) -> str:
    there = [p for name in ("last.pt", "best.pt", PREVIOUS) if (p := path.with_name(name)) != path]
    found = [str(p) for p in there if p.is_file()]
    return f"Use {' or '.join(found)} with --checkpoint, or train anew." if found else "Train anew."


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else "x".join(map(str, tensor.shape)) or "a number"
