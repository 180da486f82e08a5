"""A trained network with all that is needed to use it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor, nn

from cifar_cli.analysis.formats import ExportedFile, format_of, read_exported
from cifar_cli.analysis.tta import Tta, tta_forward
from cifar_cli.config import Config
from cifar_cli.config.checking import build_config
from cifar_cli.data.inputs import Inputs, One, each_input, is_one, stacked, to_pixels
from cifar_cli.data.loader import Normalise
from cifar_cli.data.sources.pixels import Rules
from cifar_cli.errors import CheckpointError, ConfigError, DataError, DivergedError
from cifar_cli.models import build_model
from cifar_cli.rng import kept_rng
from cifar_cli.rundir import RunDir, find_run
from cifar_cli.training.checkpoint import Checkpoint, load_checkpoint, load_weights
from cifar_cli.training.evaluation import predict_logits
from cifar_cli.training.runtime import Runtime


class Prediction(NamedTuple):
    """What a network makes of one image."""

    class_name: str
    """The likeliest class."""
    probability: float
    """Of that class."""
    probabilities: dict[str, float]
    """Of every class, by its name, the likeliest first; they add up to 1."""


@dataclass(frozen=True, repr=False)
class Trained:
    """The network of a checkpoint, its classes, and how images are prepared for it.

    Every attribute of the network can be used here too. Methods that change it in place, such as
    `to` and `train`, return the network.
    """

    network: nn.Module
    """Placed as `runtime` says; from normalised images, float (B, 3, S, S), to logits."""
    class_names: tuple[str, ...]
    config: Config
    """What it was trained with."""
    runtime: Runtime
    path: Path
    """The checkpoint."""

    def __repr__(self) -> str:
        size, names = (
            self.config.data.image_size,
            (type(self).__name__, type(self.network).__name__),
        )
        return (
            f"{names[0]}({names[1]}, {len(self.class_names)} classes, {size} x {size} pixels, "
            f"{str(self.path)!r})"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "network" not in vars(self):  # while it is copied
            raise AttributeError(name)
        return getattr(self.network, name)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits, float (B, C), of normalised images, float (B, 3, S, S): the network itself.

        Raises:
            DataError: These are pictures; `predict` takes them.

        Warns:
            UserWarning: They have no value below 0. Such pixels are hardly normalised, and the
                network misreads them.
        """
        if not (isinstance(images, Tensor) and images.is_floating_point()):
            raise DataError(
                f"The network takes normalised float tensors, not {type(images).__name__}.",
                "Give images, arrays, tensors or paths to .predict(), which prepares them.",
            )
        if images.numel() and images.min() >= 0 and images.max() > 0:
            warnings.warn(
                "The network takes normalised images, and these have no value below 0. Give images "
                "to .predict(), which prepares them.",
                stacklevel=2,
            )
        logits: Tensor = self.network(images)
        return logits

    @overload
    def predict(self, images: One) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Iterable[One]) -> list[Prediction]: ...
    def predict(self, images: Inputs) -> Prediction | list[Prediction]:
        """Class and probabilities of images of any size, prepared as those of training were.

        Args:
            images: A path, an image of Pillow's, or an array or tensor of one image: (H, W),
                (H, W, C) or (C, H, W), uint8 or float in 0..1. Or several of them: a list, or an
                array or tensor with one more dimension.

        Returns:
            A prediction, or a list of them for several images.

        Raises:
            DataError: One cannot be read as an image.
            DivergedError: An output of the network is not finite.
        """
        rules = Rules.of(self.config.data)
        pixels = [to_pixels(image, rules) for image in each_input(images)]
        found = self.predictions(self.logits(stacked(pixels, rules.size)))
        return found[0] if is_one(images) else found

    @property
    def normalise(self) -> Normalise:
        """From images as training stores them, uint8 (B, S, S, 3), to the network's input."""
        return Normalise(*self.config.data.normalisation, self.runtime.channels_last)

    def predictions(self, logits: Tensor) -> list[Prediction]:
        """What logits, float (N, C), say, image by image."""
        shares, classes = logits.double().softmax(1).sort(dim=1, descending=True, stable=True)
        rows = zip(shares.tolist(), classes.tolist(), strict=True)
        ranked = [
            dict(zip((self.class_names[number] for number in numbers), own, strict=True))
            for own, numbers in rows
        ]
        return [Prediction(*next(iter(own.items())), own) for own in ranked]

    def logits(
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
        if not len(images):
            return torch.empty(0, len(self.class_names))
        logits = self._logits(images, tta, on_batch)
        if not logits.isfinite().all():
            raise DivergedError(
                f"{self.path} gives outputs that are not numbers: its training diverged.",
                "Train again with a lower --max-lr.",
            )
        return logits

    def _logits(
        self, images: Tensor, tta: Tta, on_batch: Callable[[int, int], None] | None
    ) -> Tensor:
        forward = tta_forward(self.network, tta)
        return predict_logits(self.network, images, self.normalise, self.runtime, forward, on_batch)


class Exported(Trained):
    """An exported graph, which takes pixels, and computes on the CPU."""

    def __call__(self, images: Tensor) -> Tensor:
        """Logits, float32 (N, C), of pixels, uint8 (N, H, W, 3)."""
        logits: Tensor = self.network(images)
        return logits

    def _logits(
        self, images: Tensor, tta: Tta, on_batch: Callable[[int, int], None] | None
    ) -> Tensor:
        if tta != "none":
            raise ConfigError(
                f"--tta {tta}: {self.path} is exported, and takes each image as it is.",
                "Use --tta none, or the checkpoint of the run.",
            )
        runtime = replace(self.runtime, device=torch.device("cpu"))
        size = runtime.eval_batch(self.config.data.image_size)
        logits, done = [], 0
        with torch.inference_mode():
            for pixels in torch.split(images, size):
                logits.append(self.network(pixels.contiguous()).float())
                done += len(pixels)
                if on_batch:
                    on_batch(done, len(images))
        return torch.cat(logits)


def load_trained(checkpoint: Checkpoint, runtime: Runtime) -> Trained:
    """The network of a checkpoint, placed where `runtime` says, in evaluation mode."""
    if isinstance(checkpoint, ExportedFile):
        return Exported(
            checkpoint.graph, checkpoint.class_names, checkpoint.config, runtime, checkpoint.path
        )
    network = runtime.place(build_network(checkpoint)).eval()
    return Trained(network, checkpoint.class_names, checkpoint.config, runtime, checkpoint.path)


def load_model(
    run: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] = "last",
    device: str = "cpu",
) -> Trained:
    """The trained network of a run, in evaluation mode, with its classes and preprocessing.

    Args:
        run: Run directory or name under `runs/`; None: the newest.
        checkpoint: `last`, `best`, or the path of a file, which needs no run. An exported file
            is run as it is, and computes on the CPU.
        device: `cpu`, `cuda`, `mps`, or `auto`.

    Raises:
        CheckpointError: Not found, damaged, or of another program.
        ConfigError: The device is not present.
    """
    return load_on(find_checkpoint(run, checkpoint)[1], device)


def load_on(checkpoint: Checkpoint, device: str, **runtime: object) -> Trained:
    """The network of a checkpoint on a device, with the settings of its run.

    Args:
        checkpoint: What to load.
        device: Where it computes.
        runtime: Settings of the section `runtime` that are to differ.

    Raises:
        ConfigError: The device is not present.
    """
    tree = checkpoint.config.model_dump()
    tree["runtime"].update(runtime)
    config = build_config(tree | {"device": device})
    return load_trained(checkpoint, Runtime.start(config))


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
    read = read_exported if format_of(path) else load_checkpoint
    return (find_run(run) if run is not None else None), read(path)
