"""Export a network to a file that others can run, and compare the predictions of both."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cifar_cli.analysis.evaluate import Evaluation, evaluate
from cifar_cli.analysis.formats import FORMATS, ExportFormat, metadata_of, read_exported
from cifar_cli.analysis.pixel_network import PixelNetwork
from cifar_cli.analysis.trained import build_network, find_checkpoint, load_trained
from cifar_cli.data.types import Progress
from cifar_cli.errors import ConfigError
from cifar_cli.rundir import RunDir
from cifar_cli.storage import write_bytes
from cifar_cli.training.checkpoint import Checkpoint

TIE = 1e-5
"""Classes whose probabilities differ by no more are equally likely, as sums are rounded."""


@dataclass(frozen=True)
class Plan:
    """What will be written where."""

    run: RunDir | None
    checkpoint: Checkpoint
    format: ExportFormat
    file: Path

    @property
    def card(self) -> Path:
        """The model card beside the file."""
        return self.file.with_suffix(f"{self.file.suffix}.md")


@dataclass(frozen=True)
class Export:
    """An exported file, and how its predictions differ from the network's."""

    plan: Plan
    num_images: int
    num_different: int
    """Images that the file gives another class."""
    max_difference: float
    """Largest difference of a probability."""
    evaluation: Evaluation
    """Of the network, on the images that were compared."""
    size_bytes: int


def plan_export(
    run: str | os.PathLike[str] | None = None,
    *,
    checkpoint: str | os.PathLike[str] = "last",
    format_name: str | None = None,
    out: Path | None = None,
) -> Plan:
    """Find the checkpoint, and choose the format and the file.

    Args:
        run: Run directory or name under `runs/`; None: the newest.
        checkpoint: `last`, `best`, or the path of a file, which needs no run.
        format_name: Name of a format; None: that of the suffix of `out`, or ONNX.
        out: The file; None: in `export/` of the run, or in the current folder.

    Raises:
        ConfigError: Format and suffix do not fit, or a package is missing.
        CheckpointError: There is no such checkpoint.
        StorageError: The run's `export/` is a link.
    """
    suffixes = {row.suffix: name for name, row in FORMATS.items()}
    by_suffix = suffixes.get(out.suffix.lower()) if out else None
    row = FORMATS[format_name or by_suffix or "onnx"]
    if out and by_suffix != row.name:
        raise ConfigError(
            f"--out {out}: a file of the format {row.name} ends with {row.suffix}.",
            f"Known: {', '.join(f'{s} ({n})' for s, n in suffixes.items())}.",
        )
    row.check_packages()
    owner, found = find_checkpoint(run, checkpoint)
    if not found.weights:
        raise ConfigError(
            f"--checkpoint {found.path}: it is exported already.", "Give the run's own checkpoint."
        )
    if out is None:
        folder = owner.subfolder("export") if owner else Path()
        stem = f"{owner.name}_{found.path.stem}" if owner else found.path.stem
        out = folder / f"{stem}{row.suffix}"
    return Plan(owner, found, row, out)


def export_model(
    plan: Plan,
    *,
    data: str | None = None,
    data_dir: str | None = None,
    progress: Progress | None = None,
) -> Export:
    """Write the file, read it back, and compare it with the network on all validation images.

    Both compute on the CPU.

    Args:
        plan: What to write where; a file that is there is replaced.
        data: Other images of the same classes; None: those of the run.
        data_dir: Folder of downloads and caches.
        progress: Receives progress.

    Raises:
        CifarError: The images are not there (DataError), the file cannot be written
            (StorageError), or an output is not finite (DivergedError).
    """
    owner = plan.run.path if plan.run else None
    evaluation = evaluate(
        owner,
        checkpoint=plan.checkpoint.path,
        data=data,
        data_dir=data_dir,
        device="cpu",
        progress=progress,
    )
    if progress:
        progress(f"Exporting to {plan.format.name}", 0, None)
    network = PixelNetwork(build_network(plan.checkpoint).eval(), plan.checkpoint.config.data)
    content = plan.format.write(network, metadata_of(plan.checkpoint))
    write_bytes(plan.file, content)
    reference = evaluation.predictions
    exported = load_trained(read_exported(plan.file), reference.trained.runtime)

    def on_batch(done: int, total: int) -> None:
        if progress:
            progress("Comparing the exported file", done, total)

    logits = exported.logits(reference.images.images, on_batch=on_batch)
    return Export(
        plan,
        len(logits),
        count_different(logits, reference.logits),
        _largest_difference(logits, reference.logits),
        evaluation,
        len(content),
    )


def count_different(logits: Tensor, expected: Tensor) -> int:
    """Images whose likeliest class differs, both (N, C); a tie is the same class in any order."""
    shares, rows = expected.double().softmax(1), torch.arange(len(expected))
    lead = shares.amax(1) - shares[rows, logits.argmax(1)]
    return int((lead > TIE).sum())


def _largest_difference(one: Tensor, other: Tensor) -> float:
    return float((one.double().softmax(1) - other.double().softmax(1)).abs().max())
