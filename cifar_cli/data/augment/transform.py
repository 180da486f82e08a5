"""What the tensor transforms share: keyed draws, and how a transform reaches the chosen images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from cifar_cli.data.keyed import uniforms


class Draws(NamedTuple):
    """The random numbers of a batch of B images in one epoch, each in [0, 1)."""

    seed: int
    epoch: int
    indices: Tensor
    """int64 (B,): positions of the images in the dataset."""
    first: Tensor
    """float32 (B, 5): three that choose images, then two for cutout; drawn at once for speed."""

    @classmethod
    def of(cls, seed: int, epoch: int, indices: Tensor) -> Draws:
        return cls(seed, epoch, indices, uniforms(seed, epoch, indices, 5))

    def at(self, rows: Tensor) -> Draws:
        """Those of the images at `rows`, int64."""
        return self._replace(
            indices=self.indices.index_select(0, rows), first=self.first.index_select(0, rows)
        )

    def further(self, count: int, skip: int) -> Tensor:
        """Float32 (B, count) numbers, without the first `skip` of each image."""
        return uniforms(self.seed, self.epoch, self.indices, count, skip)


@dataclass(frozen=True)
class Transform:
    """One augmentation of uint8 (B, S, S, 3) images, written once for CPU and GPU.

    Each transform has draws of its own: adding one leaves the others as they are. No transform
    may wait for the device, as `item` and `nonzero` do.
    """

    p: float
    """Probability that an image is transformed."""
    name: ClassVar[str]
    column: ClassVar[int]
    """Which of the first draws chooses images."""

    def chosen(self, draws: Draws) -> Tensor | None:
        """Which images to transform, bool (B,); None: all of them."""
        return None if self.p >= 1 else draws.first[:, self.column] < self.p

    def transformed(self, images: Tensor, draws: Draws) -> Tensor:
        """All of the images transformed, as a new tensor."""
        raise NotImplementedError

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Transform the chosen images; on a CPU, this may happen in place."""
        chosen = self.chosen(draws)
        if chosen is None:
            return self.transformed(images, draws)
        # Counting the chosen images of a GPU would wait for it.
        apply = self.to_rows if images.device.type == "cpu" else self.to_all
        return apply(images, draws, chosen)

    def to_rows(self, images: Tensor, draws: Draws, chosen: Tensor) -> Tensor:
        """Work on the chosen images only, and write them back in place."""
        rows = chosen.nonzero()[:, 0]
        transformed = self.transformed(images.index_select(0, rows), draws.at(rows))
        to = images
        if (count := images[0].numel()) % 16 == 0:  # written 16 bytes at a time
            to, transformed = (
                t.view(len(t), count).view(torch.complex128) for t in (images, transformed)
            )
        to.index_copy_(0, rows, transformed)
        return images

    def to_all(self, images: Tensor, draws: Draws, chosen: Tensor) -> Tensor:
        """Work on all images, and keep the result of the chosen ones."""
        return torch.where(chosen[:, None, None, None], self.transformed(images, draws), images)


def constant(numbers: tuple[int, ...], like: Tensor) -> Tensor:
    """Plain numbers as a tensor, filled in on the device: copying them there would wait for it."""
    return torch.stack([like.new_full((), number) for number in numbers])
