"""Values that every source of images hands over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how much is done, and the total if it is known."""


@dataclass(frozen=True)
class ImageSet:
    """Images of one split, decoded once and kept in memory.

    Attributes:
        images: uint8 (N, H, W, 3), RGB. The memory is that of a channels_last NCHW tensor.
        labels: int64 (N,), positions in the dataset's `class_names`.
        indices: int64 (N,), positions in the source's whole split; they survive `subset`.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def subset(self, rows: Tensor) -> ImageSet:
        """The images at `rows` (int64), in that order."""
        return ImageSet(self.images[rows], self.labels[rows], self.indices[rows])


class BadImage(NamedTuple):
    """A file that cannot be read as an image."""

    split: str
    """`train` or `test`."""
    path: str
    """Relative to the data folder."""
    reason: str


@dataclass(frozen=True)
class Dataset:
    """A train and a test split over the same classes."""

    name: str
    class_names: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    notes: tuple[str, ...] = ()
    """Remarks for the user on how the images were read, one sentence each."""
    skipped: tuple[BadImage, ...] = ()
    """Files that were skipped because they cannot be read."""
