"""Whether a picture is unlike the images that a network was trained for.

Score: the largest logit (Hendrycks et al. 2022, https://arxiv.org/abs/1911.11132), here above the
mean of the picture's logits, so that adding a number to all of them, which changes no probability,
changes no score. The threshold is the 5th percentile of the scores of the validation images: of
pictures like these, one in twenty is called unlike them.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from cifar_cli.analysis.trained import Trained
from cifar_cli.config import Config
from cifar_cli.config.checking import build_config
from cifar_cli.data.sources.load import load_dataset, needs_download
from cifar_cli.data.splits import choose_splits
from cifar_cli.data.types import Progress
from cifar_cli.errors import ConfigError, DataError, StorageError
from cifar_cli.rundir import SCHEMA_VERSION, RunDir
from cifar_cli.rundir.reading import read_json_object
from cifar_cli.storage import open_regular, write_json
from cifar_cli.training.checkpoint import Checkpoint

QUANTILE = 0.05
SCORE = "largest logit above their mean"


class Threshold(NamedTuple):
    """Below which score a picture is unlike the training data."""

    value: float | None
    """None: unknown."""
    reason: str = ""
    """Why it is unknown; a clause."""


def unlike_scores(logits: Tensor) -> Tensor:
    """Scores, float64 (N,), of logits (N, C): the lower, the less like the training data."""
    values = logits.double()
    return values.amax(1) - values.mean(1)


def find_threshold(
    trained: Trained,
    checkpoint: Checkpoint,
    run: RunDir | None,
    progress: Progress | None = None,
    data_dir: str | None = None,
) -> Threshold:
    """The threshold of a checkpoint: the one kept in its run, or one computed now and kept there.

    Nothing is downloaded for it.

    Args:
        trained: The network, in the place where it computes.
        checkpoint: What it was made from.
        run: The run that it belongs to; None: nothing is kept.
        progress: Receives progress.
        data_dir: Folder of downloads and caches.
    """
    file = run.path / "eval" / f"unlike_{checkpoint.path.stem}.json" if run else None
    digest = _digest(checkpoint.path)
    if file and (kept := _kept(file, digest)) is not None:
        return Threshold(kept)
    try:
        images = _validation_images(checkpoint, progress, data_dir)
    except (ConfigError, DataError) as error:
        return Threshold(None, error.what.rstrip("."))

    def on_batch(done: int, total: int) -> None:
        if progress:
            progress("Calibrating on the validation images", done, total)

    scores = unlike_scores(trained.logits(images, on_batch=on_batch))
    value = float(scores.quantile(QUANTILE)) if len(scores) <= 2**23 else _large_quantile(scores)
    if run and file:
        with suppress(StorageError):  # a run that may only be read is no reason to fail
            run.subfolder("eval")
            write_json(
                file,
                {
                    "schema_version": SCHEMA_VERSION,
                    "checkpoint_sha256": digest,
                    "score": SCORE,
                    "quantile": QUANTILE,
                    "num_images": len(scores),
                    "threshold": value,
                },
            )
    return Threshold(value)


def _validation_images(
    checkpoint: Checkpoint, progress: Progress | None, data_dir: str | None
) -> Tensor:
    """Those that the checkpoint was validated on, uint8 (N, S, S, 3).

    Raises:
        ConfigError, DataError: They are not here, or are others by now.
    """
    own = checkpoint.config.data.dir
    config = _at(checkpoint.config, data_dir)
    if needs_download(config.data) and (own is None or needs_download(_at(config, own).data)):
        raise DataError(f"{config.data.source} is not here")
    dataset = load_dataset(config.data, progress, own)
    splits = choose_splits(dataset, config.data, config.seed)
    if splits.fingerprint != checkpoint.data:
        raise DataError(f"{config.data.source} holds other images than the run's")
    return splits.val.images


def _at(config: Config, folder: str | None) -> Config:
    """With that folder of downloads and caches; the file's own is never written to."""
    tree = config.model_dump()
    tree["data"]["dir"] = folder
    return build_config(tree)


def _large_quantile(scores: Tensor) -> float:
    """As `torch.quantile`, which takes no more than 2**24 numbers, without interpolation."""
    return float(scores.kthvalue(max(1, round(QUANTILE * len(scores)))).values)


def _kept(file: Path, digest: str) -> float | None:
    """The threshold in a file, if it is of that checkpoint."""
    try:
        content = read_json_object(file)
    except (OSError, ValueError):
        return None
    value = content.get("threshold")
    is_own = content.get("checkpoint_sha256") == digest and content.get("score") == SCORE
    return value if is_own and isinstance(value, float) and math.isfinite(value) else None


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
