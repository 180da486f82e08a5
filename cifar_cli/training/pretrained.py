"""Weights of a trained network from which another training starts (`train.init`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from cifar_cli.config import Config
from cifar_cli.config.starting import Pretrained
from cifar_cli.errors import CheckpointError, ConfigError
from cifar_cli.models import build_model, head_name
from cifar_cli.rundir import find_run
from cifar_cli.rundir.naming import RUNS
from cifar_cli.training.checkpoint import Checkpoint, load_checkpoint
from cifar_cli.training.exported import SUFFIX, read_safetensors
from cifar_cli.training.state import Start

FILES = ("best.pt", "last.pt")
"""Checkpoints of a run, the preferred one first."""
# Settings of a network that its weights do not depend on.
_FREE = {"dropout", "residual_dropout"}


def find_weights(text: str) -> Path:
    """The file that a value of `train.init` means, absolute: itself, or of a run the best epoch's.

    Raises:
        CheckpointError: There is no such file or run, or the run has no checkpoint.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return path.absolute()
    if path.suffix and not path.exists():
        raise CheckpointError(f"--init {text}: there is no such file.")
    try:
        run = find_run(text)
    except CheckpointError as error:
        why = f"{error.what[0].lower()}{error.what[1:]}"
        raise CheckpointError(f"--init: there is no such file, and {why}") from None
    folder = run.last.parent.absolute()
    found = next((file for name in FILES if (file := folder / name).is_file()), None)
    if found is None:
        raise CheckpointError(
            f"--init {text}: the run {run.path} has no checkpoint yet.",
            "Train it for an epoch at least: cifar-resnet train --resume --run-dir DIR",
        )
    return found


def is_same(text: str | None, stored: str | None) -> bool:
    """Whether a value of `train.init` means a stored path, though that may no longer be there."""
    if text is None or stored is None:
        return text == stored
    path = Path(text).expanduser()
    runs = [folder / "checkpoints" / name for folder in (path, RUNS / path) for name in FILES]
    return Path(stored) in [file.absolute() for file in (path, *runs)]


def read_weights(path: Path) -> Checkpoint:
    """Read a checkpoint or an exported safetensors file, whose weights are all finite.

    Raises:
        CheckpointError: It is damaged, of another program, or holds no usable weights.
    """
    if path.suffix.lower() in (".onnx", ".pt2"):
        raise CheckpointError(
            f"--init {path}: an exported graph cannot be trained.",
            f"Give the run, its checkpoint, or a {SUFFIX} file.",
        )
    try:
        found = (read_safetensors if path.suffix.lower() == SUFFIX else load_checkpoint)(path)
    except CheckpointError as error:
        remedy = "Give another file, such as the run's last.pt, or export it again."
        raise CheckpointError(f"--init: {error.what}", remedy) from error
    for name, tensor in found.weights.items():
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"--init {path}: {name} holds values that are not finite. Its training diverged.",
                "Give a network whose training did not.",
            )
    return found


def read_pretrained(text: str) -> Pretrained:
    """Read what a configuration depends on; arguments and errors as of the functions above."""
    path = find_weights(text)
    config = read_weights(path).config
    data = config.data.model_dump(mode="json", include={"mean", "std", "image_size"})
    return Pretrained(str(path), {"model": config.model.model_dump(mode="json"), "data": data})


def weights_for(config: Config) -> Checkpoint | None:
    """Read the weights that `train.init` names, which fit the network of `config`; None: none.

    Raises:
        CheckpointError: They cannot be read.
        ConfigError: They are of another network.
    """
    if config.train.init is None:
        return None
    found = read_weights(find_weights(config.train.init))
    own, theirs = config.model.model_dump(mode="json"), found.config.model.model_dump(mode="json")
    keys = ["name"] if own["name"] != theirs["name"] else [key for key in own if key not in _FREE]
    differing = [
        f"model.{key} is {own[key]} in the settings and {theirs[key]} in the weights"
        for key in keys
        if own[key] != theirs[key]
    ]
    if differing:
        raise ConfigError(
            f"--init {found.path}: {'; '.join(differing)}.",
            "Leave these settings out. They follow from the weights.",
        )
    return found


def start_from(found: Checkpoint, class_names: Sequence[str]) -> Start:
    """Weights for a network of these classes.

    If they are those of the trained network, in whatever order, the head's rows are put into
    theirs. Otherwise the head is left out.

    Args:
        found: The trained network.
        class_names: Of the new one, in the order of its logits.
    """
    with torch.device("meta"):
        network = build_model(
            found.config.model, len(found.class_names), found.config.data.image_size
        )
    head = f"{head_name(network)}."
    names = list(found.class_names)
    is_kept = sorted(names) == sorted(class_names) and len(set(names)) == len(names)
    weights = {name: t for name, t in found.weights.items() if not name.startswith(head)}
    count = len(found.weights)
    if is_kept:
        rows = [names.index(name) for name in class_names]
        weights |= {n: t[rows] for n, t in found.weights.items() if n.startswith(head)}
        note = f"all {count} tensors; the head is kept, since the classes are the same"
    else:
        note = f"{len(weights)} of {count} tensors; new head for {len(class_names):,} classes"
    return Start(not is_kept, weights, f"Weights of {found.path}: {note}.")
