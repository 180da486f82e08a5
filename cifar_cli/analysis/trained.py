"""A trained network with all that is needed to use it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from cifar_cli.analysis.tta import Tta, tta_forward
from cifar_cli.config import Config
from cifar_cli.data.loader import Normalise
from cifar_cli.errors import CheckpointError, DivergedError
from cifar_cli.models import build_model
from cifar_cli.rng import kept_rng
from cifar_cli.rundir import RunDir, find_run
from cifar_cli.training.checkpoint import Checkpoint, load_checkpoint, load_weights
from cifar_cli.training.evaluation import predict_logits
from cifar_cli.training.runtime import Runtime


@dataclass(frozen=True)
class Trained:
    """The network of a checkpoint, its classes, and how images are prepared for it."""

    model: nn.Module
    """Placed as `runtime` says."""
    class_names: tuple[str, ...]
    config: Config
    """What it was trained with."""
    runtime: Runtime
    path: Path
    """The checkpoint."""

    def predict(
        self,
        images: Tensor,
        tta: Tta = "none",
        on_batch: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Logits, float32 (N, C) on the CPU, of uint8 images (N, H, W, 3).

        Args:
            images: Of the size that it was trained on, `config.data.image_size`.
            tta: Test-time augmentation.
            on_batch: Called with the number of images done and of all; may raise to end it.

        Raises:
            DivergedError: A logit is not finite.
        """
        normalise = Normalise(*self.config.data.normalisation, self.runtime.channels_last)
        forward = tta_forward(self.model, tta)
        logits = predict_logits(self.model, images, normalise, self.runtime, forward, on_batch)
        if not logits.isfinite().all():
            raise DivergedError(
                f"{self.path} gives outputs that are not numbers: its training diverged.",
                "Train again with a lower --max-lr.",
            )
        return logits


def load_trained(checkpoint: Checkpoint, runtime: Runtime) -> Trained:
    """The network of a checkpoint, placed where `runtime` says."""
    model = runtime.place(build_network(checkpoint)).eval()
    return Trained(model, checkpoint.class_names, checkpoint.config, runtime, checkpoint.path)


def load_model(
    run: str | os.PathLike[str] | None = None, checkpoint: str | os.PathLike[str] = "last"
) -> nn.Module:
    """The trained network of a run, on the CPU, in evaluation mode.

    Args:
        run: Run directory or name under `runs/`; None: the newest.
        checkpoint: `last`, `best`, or the path of a file, which needs no run.

    Raises:
        CheckpointError: Not found, damaged, or of another program.
    """
    return build_network(find_checkpoint(run, checkpoint)[1]).eval()


def build_network(checkpoint: Checkpoint) -> nn.Module:
    """The plain network of a checkpoint, with its weights, on the CPU."""
    config, classes = checkpoint.config, len(checkpoint.class_names)
    with kept_rng():
        size, eval_size = config.data.image_size, checkpoint.eval_size
        model = build_model(config.model, classes, size, eval_size=eval_size)
    load_weights(model, checkpoint)
    return model


def find_checkpoint(
    run: str | os.PathLike[str] | None, checkpoint: str | os.PathLike[str]
) -> tuple[RunDir | None, Checkpoint]:
    """The checkpoint that is meant, and the run that it belongs to, if any.

    Raises:
        CheckpointError: There is no such run or file, or it is damaged.
    """
    if checkpoint in ("last", "best"):
        owner = find_run(run)
        return owner, load_checkpoint(owner.last if checkpoint == "last" else owner.best)
    path = Path(checkpoint)
    if not path.is_file():
        raise CheckpointError(
            f"--checkpoint {os.fspath(checkpoint)!r}: not last or best, and there is no such file."
        )
    return (find_run(run) if run is not None else None), load_checkpoint(path)
