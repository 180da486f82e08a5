"""Values that every source of images hands over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how much is done, and the total if it is known."""
SplitName = Literal["train", "val", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "val", "test")
IN_WORDS = {"train": "training", "val": "validation", "test": "test"}
"""What the images of a split are called."""


@dataclass(frozen=True)
class ImageSet:
    """Images of one split, decoded once and kept in memory.

    Attributes:
        images: uint8 (N, H, W, 3), RGB. The memory is that of a channels_last NCHW tensor.
        labels: int64 (N,), positions in the dataset's `class_names`.
        indices: int64 (N,), positions in the source's whole split; they survive `subset`.
        keys: int64 (N,), the first 8 bytes of a hash of each file's content; None if the images
            come from no files of their own.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    keys: Tensor | None = None

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def subset(self, rows: Tensor) -> ImageSet:
        """The images at `rows` (int64), in that order."""
        keys = None if self.keys is None else self.keys[rows]
        return ImageSet(self.images[rows], self.labels[rows], self.indices[rows], keys)


class BadImage(NamedTuple):
    """A file that cannot be read as an image."""

    split: str
    """`train`, `val` or `test`."""
    path: str
    """Relative to the source."""
    reason: str


@dataclass(frozen=True)
class Dataset:
    """The splits that a source has, over the same classes."""

    name: str
    class_names: tuple[str, ...]
    train: ImageSet
    test: ImageSet | None = None
    notes: tuple[str, ...] = ()
    """Remarks for the user on what was found and how it was read, one sentence each."""
    skipped: tuple[BadImage, ...] = ()
    """Files that were skipped because they cannot be read."""
    val: ImageSet | None = None
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By split: the printable names of its files, relative to the source, in the order of
    `ImageSet.indices`. Empty if the images come from no files of their own."""
    composited: int = 0
    """Number of images with transparency, which lie on `data.mean_colour`."""

    @property
    def splits(self) -> dict[SplitName, ImageSet]:
        """The splits that there are, by name."""
        every = zip(SPLIT_NAMES, (self.train, self.val, self.test), strict=True)
        return {name: images for name, images in every if images is not None}
