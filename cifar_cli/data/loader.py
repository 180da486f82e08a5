"""From images in memory to batches on the device: gather, augment, cast, normalise."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cifar_cli.config import Config
from cifar_cli.data.augment_tensor import TensorAugment
from cifar_cli.data.keyed import epoch_order
from cifar_cli.data.types import ImageSet

STOPS = (signal.SIGINT, signal.SIGTERM)


class Augment(Protocol):
    """uint8 (B, H, W, 3) images and their int64 (B,) positions to augmented images alike.

    The images may be changed in place.
    """

    def __call__(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor: ...


class Normalise:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W): channels_last or contiguous, mean 0, std 1."""

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], channels_last: bool = True
    ) -> None:
        self.scale = torch.tensor([1 / (255 * s) for s in std])
        self.shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
        self.channels_last = channels_last

    def __call__(self, images: Tensor) -> Tensor:
        if self.scale.device != images.device:  # copied once, not at each batch
            self.scale, self.shift = self.scale.to(images.device), self.shift.to(images.device)
        pixels = torch.addcmul(self.shift, images.float(), self.scale).permute(0, 3, 1, 2)
        # The memory of (B, H, W, 3) already is that of channels_last.
        return pixels if self.channels_last else pixels.contiguous()


def count_at(side: int, count: int) -> int:
    """How many images of that side, in pixels, have the pixels of `count` of 32 x 32.

    At most `count`, at least one.
    """
    return max(1, count * 32**2 // max(side, 32) ** 2)


class TrainLoader:
    """Shuffled, augmented batches of an epoch; the same for the same (seed, epoch).

    Args:
        images: What to train on; moved to `device` once where the augmentation runs there.
        config: Seed, batch size, augmentation and layout.
        device: Where the batches are wanted.
    """

    def __init__(self, images: ImageSet, config: Config, device: torch.device) -> None:
        self.batch_size = config.train.batch_size
        self.seed = config.seed
        self.device = device
        self.augment = make_augment(config)
        self.normalise = Normalise(config.data.mean, config.data.std, config.runtime.channels_last)
        self.workers = config.data.workers if config.augment.form == "albumentations" else 0
        # Albumentations works on the CPU; everything else is fastest where the network is.
        home = torch.device("cpu") if config.augment.form == "albumentations" else device
        self.images = ImageSet(
            images.images.to(home), images.labels.to(home), images.indices.to(home)
        )

    @property
    def steps(self) -> int:
        """Batches an epoch; the last one may be smaller."""
        return -(-len(self.images) // self.batch_size)

    def sample(self, count: int = 5000) -> Tensor:
        """At most `count` images, not augmented: float32 (N, 3, H, W), normalised, on the CPU.

        From all over the split, as images may lie class by class; drawn by the seed. Of images
        larger than 32 x 32 fewer, with as many pixels in all.
        """
        count = count_at(self.images.images.shape[1], count)
        order = epoch_order(self.seed, 0, len(self.images), self.images.images.device)
        return self.normalise(self.images.images[order[:count].sort().values]).cpu()

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, float32 (B, 3, H, W), and labels, int64 (B,), from `first_step` on."""
        order = epoch_order(self.seed, epoch, len(self.images), self.images.labels.device)
        batches = torch.split(order, self.batch_size)[first_step:]
        for rows, augmented in zip(batches, self._augmented(batches, epoch), strict=True):
            pixels = augmented.to(self.device, non_blocking=True)
            labels = self.images.labels[rows].to(self.device, non_blocking=True)
            yield self.normalise(pixels), labels

    def _augmented(self, batches: tuple[Tensor, ...], epoch: int) -> Iterator[Tensor]:
        job = _AugmentJob(self.images, self.augment, batches, epoch)
        if self.workers == 0 or not batches:
            for number in range(len(batches)):
                yield _batch(job[number])
            return
        loader = DataLoader(
            job,
            batch_size=None,
            num_workers=min(self.workers, len(batches)),
            worker_init_fn=_start_worker,
            pin_memory=self.device.type == "cuda",
            # Workers must not draw from the generator that training draws from.
            generator=torch.Generator(),
        )
        with _stops_held_back():
            results = iter(loader)
        try:
            for result in fetched(results):
                yield _batch(result)
        finally:
            # An error would keep the iterator alive, and it its workers, which ignore SIGTERM.
            results._shutdown_workers()  # type: ignore[attr-defined]


class _AugmentJob(Dataset[Tensor | Exception]):
    """Batch number to augmented batch, in this process or in a worker.

    What goes wrong is handed over as a value: a worker's exceptions arrive as text.
    """

    def __init__(
        self, images: ImageSet, augment: Augment, batches: tuple[Tensor, ...], epoch: int
    ) -> None:
        self.images, self.augment, self.batches, self.epoch = images, augment, batches, epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Tensor | Exception:
        rows = self.batches[number]
        # index_select copies whole images; plain indexing goes byte by byte.
        pixels = self.images.images.index_select(0, rows)
        try:
            return self.augment(pixels, self.images.indices[rows], self.epoch)
        except Exception as error:
            return error


def _batch(result: Tensor | Exception) -> Tensor:
    if isinstance(result, Exception):
        raise result
    return result


def fetched(results: Iterator[Tensor | Exception]) -> Iterator[Tensor | Exception]:
    """Pass on what workers give, and have torch's own word where one was killed as it gave.

    Raises:
        RuntimeError: The connection over which a worker hands its memory on was cut.
    """
    try:
        yield from results
    except (ConnectionError, EOFError) as error:
        raise RuntimeError(f"DataLoader worker exited unexpectedly: {error!r}") from error


def _start_worker(_: int) -> None:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    torch.set_num_threads(1)
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _stops_held_back() -> Iterator[None]:
    """Start workers deaf to stops from their first instant, where the system can (POSIX).

    A stop is the main process's to answer; it needs its workers until the step at hand is done.
    """
    if os.name != "posix":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def make_augment(config: Config) -> Augment:
    """The augmentation in the form that `config.augment.form` names."""
    if config.augment.form == "tensor":
        return TensorAugment(config.augment, config.data.mean, config.seed)
    # Only this form needs Albumentations, whose import takes seconds.
    from cifar_cli.data.augment_albumentations import AlbumentationsAugment

    return AlbumentationsAugment(
        config.augment, config.data.mean, config.seed, config.data.image_size
    )


def plain_batches(
    images: ImageSet, normalise: Normalise, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches in order, not augmented: float32 (B, 3, H, W) and labels int64 (B,)."""
    parts = zip(*(torch.split(t, batch_size) for t in (images.images, images.labels)), strict=True)
    for pixels, labels in parts:
        yield normalise(pixels.to(device)), labels.to(device)
