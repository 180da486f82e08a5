"""From images in memory to batches on the device: gather, augment, cast, normalise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, Self

import torch
from torch import Tensor

from cifar_cli.config import Config
from cifar_cli.data.augment.tensor import TensorAugment, transforms_in_use
from cifar_cli.data.keyed import epoch_order
from cifar_cli.data.types import ImageSet
from cifar_cli.data.worker_pool import WorkerPool

if TYPE_CHECKING:
    from cifar_cli.data.augment.by_albumentations import AlbumentationsAugment


class Augment(Protocol):
    """Augments uint8 (B, H, W, 3) images with int64 (B,) positions, perhaps in place."""

    def __call__(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor: ...

    def alone(self) -> Mapping[str, Augment]:
        """By the name of a transform in use: the augmentation that always applies it alone."""


class Normalise:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W): channels_last or contiguous, mean 0, std 1."""

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], channels_last: bool = True
    ) -> None:
        self.scale = torch.tensor([1 / (255 * s) for s in std])
        self.offset = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
        self.channels_last = channels_last

    def __call__(self, images: Tensor) -> Tensor:
        if self.scale.device != images.device:  # copied once, not at each batch
            self.scale, self.offset = self.scale.to(images.device), self.offset.to(images.device)
        pixels = torch.addcmul(self.offset, images.float(), self.scale).permute(0, 3, 1, 2)
        # The memory of (B, H, W, 3) already is that of channels_last.
        return pixels if self.channels_last else pixels.contiguous()


def count_at(size: int, count: int) -> int:
    """How many images of `size` x `size` have as many pixels as `count` of 32 x 32.

    At most `count`, at least one.
    """
    return max(1, count * 32**2 // max(size, 32) ** 2)


class TrainLoader:
    """Shuffled, augmented batches of an epoch; the same for the same (seed, epoch).

    With loader processes, close it or use it in a `with` block.

    Args:
        images: What to train on; moved to `device` once if the augmentation runs there.
        config: Seed, batch size, augmentation, loader processes and layout.
        device: Device of the batches.

    Raises:
        OutOfMemoryError: Loader processes, or the memory that they share, cannot be had.
    """

    def __init__(self, images: ImageSet, config: Config, device: torch.device) -> None:
        self.batch_size = config.train.batch_size
        self.seed = config.seed
        self.device = device
        self.is_stopping: Callable[[], bool] = lambda: False
        self.normalise = Normalise(*config.data.normalisation, config.runtime.channels_last)
        by_image = config.augment.form == "albumentations"
        # Albumentations works on the CPU; everything else is fastest where the network is.
        home = torch.device("cpu") if by_image else device
        self.images = ImageSet(
            images.images.to(home), images.labels.to(home), images.indices.to(home)
        )
        workers = min(config.data.workers, self.steps)
        self.pool = WorkerPool(self.images, config, workers) if workers else None
        self.augment = None if self.pool else make_augment(config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the loader processes."""
        if self.pool:
            self.pool.close()

    def wait_until_ready(self) -> None:
        """Wait until loader processes, which start in the background, can give batches.

        Raises:
            CifarError: What keeps them from it.
        """
        if self.pool:
            self.pool.wait_until_ready()

    def heed(self, is_stopping: Callable[[], bool]) -> None:
        """Once `is_stopping()` is true, wait at most a few seconds for loader processes."""
        self.is_stopping = is_stopping
        if self.pool:
            self.pool.is_stopping = is_stopping

    @property
    def steps(self) -> int:
        """Batches per epoch; the last one may be smaller."""
        return -(-len(self.images) // self.batch_size)

    def sample(self, count: int = 5000) -> Tensor:
        """At most `count` images, not augmented: float32 (N, 3, H, W), normalised, on the CPU.

        Drawn by the seed from the whole split, since images may be sorted by class. Of images
        larger than 32 x 32, fewer are drawn, with as many pixels in total.
        """
        count = count_at(self.images.images.shape[1], count)
        order = epoch_order(self.seed, 0, len(self.images), self.images.images.device)
        return self.normalise(self.images.images[order[:count].sort().values]).cpu()

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, float32 (B, 3, H, W), and labels, int64 (B,), from `first_step` on.

        Raises:
            CifarError: An image cannot be augmented, or a loader process was killed or is stuck.
            StoppedWaitingError: A stop was asked for, and a loader process gives no batch.
        """
        order = epoch_order(self.seed, epoch, len(self.images), self.images.labels.device)
        batches = torch.split(order, self.batch_size)[first_step:]
        augmented = (
            map(self._out_of_slot, self.pool.batches(epoch, order, first_step))
            if self.pool
            else (self._augmented(rows, epoch) for rows in batches)
        )
        for rows, images in zip(batches, augmented, strict=True):
            labels = self.images.labels[rows].to(self.device, non_blocking=True)
            yield self.normalise(images.to(self.device, non_blocking=True)), labels

    def _augmented(self, rows: Tensor, epoch: int) -> Tensor:
        assert self.augment is not None
        # index_select copies whole images; plain indexing goes byte by byte.
        pixels = self.images.images.index_select(0, rows)
        return self.augment(pixels, self.images.indices[rows], epoch)

    def _out_of_slot(self, images: Tensor) -> Tensor:
        """A batch that stays as it is while it is copied to a device in the background."""
        if self.device.type == "cuda":
            return images.pin_memory()
        # On a CPU, the batch is normalised before the next one is written.
        return images if self.device.type == "cpu" else images.clone()


def make_augment(config: Config) -> Augment:
    """The augmentation in the form that `config.augment.form` names."""
    chosen = config.augment
    if chosen.form == "tensor":
        return TensorAugment(transforms_in_use(chosen, config.data.mean_colour), config.seed)
    # Only this form needs Albumentations, whose import takes seconds.
    from cifar_cli.data.augment.by_albumentations import AlbumentationsAugment

    fill, size = config.data.mean_colour, config.data.image_size
    return _OnTensors(AlbumentationsAugment(chosen, fill, config.seed, size))


class _OnTensors:
    """Albumentations for tensors; it works on NumPy arrays."""

    def __init__(self, augment: AlbumentationsAugment) -> None:
        self.augment = augment

    def __call__(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        return torch.from_numpy(self.augment(images.numpy(), indices.numpy(), epoch))

    def alone(self) -> dict[str, Augment]:
        return {name: _OnTensors(augment) for name, augment in self.augment.alone().items()}
