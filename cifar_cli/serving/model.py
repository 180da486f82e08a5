"""A trained network as it is served: from pixels to classes and activation maps."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from cifar_cli.analysis.activation_map import activation_maps
from cifar_cli.analysis.predict import Decoded, classify_decoded
from cifar_cli.analysis.trained import Exported, Trained, find_checkpoint, load_on
from cifar_cli.analysis.unlike import Threshold, find_threshold
from cifar_cli.data.inputs import Pixels, stacked
from cifar_cli.data.sources.decode import EXTENSIONS
from cifar_cli.data.sources.pixels import Rules
from cifar_cli.data.types import Progress
from cifar_cli.errors import CifarError

WEAK, STRONG = np.array([255, 214, 10]), np.array([230, 0, 76])
"""Colours of a map, RGB, which is transparent where nothing speaks for the class."""
OPACITY = 165
NO_PLACE = "No part of the picture speaks for its class."


class Job(NamedTuple):
    """A picture to classify."""

    pixels: Pixels
    top: int
    with_map: bool


class Answer(NamedTuple):
    """What a network makes of a picture."""

    predictions: tuple[tuple[str, float], ...]
    unlike: bool | None
    map: bytes | None = None
    """A PNG file with transparency, of the network's size."""
    map_problem: str | None = None
    """Why there is no map although one was wanted; a sentence."""


@dataclass(frozen=True)
class ServedModel:
    """A network with what is known of it before the first picture."""

    trained: Trained
    name: str
    """Of the run, or of the file."""
    threshold: Threshold
    """Below which score a picture is unlike the training data."""
    map_problem: str | None
    """Why there are no activation maps; a sentence."""

    @property
    def rules(self) -> Rules:
        """How pictures are decoded."""
        return Rules.of(self.trained.config.data)

    @property
    def notes(self) -> list[str]:
        """What it cannot tell, a sentence each."""
        reason = self.threshold.reason
        unknown = f"Not known which pictures are unlike the training data: {reason}."
        notes = [unknown if self.threshold.value is None else "", self.map_problem or ""]
        return [note for note in notes if note]

    def facts(self, max_bytes: int, max_pixels: int) -> dict[str, Any]:
        """What the page has to know."""
        data = self.trained.config.data
        return {
            "name": self.name,
            "class_names": list(self.trained.class_names),
            "image_size": data.image_size,
            "resize": data.resize,
            "as_stored": data.as_stored,
            "knows_unlike": self.threshold.value is not None,
            "map_error": self.map_problem,
            "max_bytes": max_bytes,
            "max_pixels": max_pixels,
            "extensions": list(EXTENSIONS),
        }

    def classify(self, jobs: list[Job]) -> list[Answer]:
        """The answers to several jobs, in order.

        Raises:
            DivergedError: An output of the network is not finite.
        """
        top = min(max(job.top for job in jobs), len(self.trained.class_names))
        batch = tuple(Decoded("", job.pixels) for job in jobs)
        found = list(classify_decoded(self.trained, batch, top, self.threshold.value))
        likeliest = [one.predictions[0][0] for one in found]
        rows = [row for row, job in enumerate(jobs) if job.with_map and not self.map_problem]
        maps = self._maps([jobs[row].pixels for row in rows], [likeliest[row] for row in rows])
        of_row = dict(zip(rows, maps, strict=True))
        return [
            self._answer(job, one, of_row.get(n))
            for n, (job, one) in enumerate(zip(jobs, found, strict=True))
        ]

    def _maps(
        self, pixels: Sequence[Pixels], names: Sequence[str]
    ) -> list[npt.NDArray[np.float32]]:
        if not pixels:
            return []
        images = stacked(list(pixels), self.trained.config.data.image_size)
        numbers = [self.trained.class_names.index(name) for name in names]
        return list(activation_maps(self.trained, images, numbers).numpy())

    def _answer(self, job: Job, found: Any, heat: npt.NDArray[np.float32] | None) -> Answer:
        answer = Answer(found.predictions[: job.top], found.unlike)
        if not job.with_map:
            return answer
        if heat is None:
            return answer._replace(map_problem=self.map_problem)
        if not heat.any():
            return answer._replace(map_problem=NO_PLACE)
        return answer._replace(map=png(heat_colours(heat)))


def load_served(
    run: str | None,
    checkpoint: str,
    device: str,
    progress: Progress | None = None,
    data_dir: str | None = None,
) -> ServedModel:
    """Load a network, and find out what it can tell.

    Args:
        run: Run directory or name under `runs/`; None: the newest.
        checkpoint: `last`, `best`, or the path of a file.
        device: Where it computes.
        progress: Receives progress.
        data_dir: Folder of downloads and caches.

    Raises:
        CheckpointError: Not found, damaged, or of another program.
        ConfigError: The device is not present.
        DivergedError: Its outputs are not finite.
    """
    # For a single picture, several threads wait for each other more than they help, much more so
    # if others want the processor; and the kernels' preparation of filters takes longer than the
    # convolutions. Both pay for the many images of the threshold.
    torch.set_num_threads(1)  # which ONNX Runtime takes over
    owner, found = find_checkpoint(run, checkpoint)
    threshold = find_threshold(load_on(found, device), found, owner, progress, data_dir)
    trained = load_on(found, device, threads=1, winograd=False)
    size = trained.config.data.image_size
    black = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    trained.logits(black)
    problem = None
    if isinstance(trained, Exported):
        problem = "An exported file has no activation map; serve the checkpoint of the run for one."
    else:
        try:
            activation_maps(trained, black, [0])
        except CifarError as error:
            problem = str(error)
    return ServedModel(trained, owner.name if owner else found.path.name, threshold, problem)


def heat_colours(heat: npt.NDArray[np.float32]) -> Pixels:
    """A map, float (S, S) in 0..1, as colours with transparency, uint8 (S, S, 4)."""
    share = heat[..., None]
    colours = WEAK * (1 - share) + STRONG * share
    return np.concatenate([colours, share * OPACITY], axis=2).round().astype(np.uint8)


def png(pixels: Pixels) -> bytes:
    """Pixels as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
