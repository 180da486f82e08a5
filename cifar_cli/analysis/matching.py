"""Which images of one data set are those of another."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cifar_cli.data.types import ImageSet


class Matching(NamedTuple):
    """The images of one set in another."""

    rows: Tensor
    """Of the other set, int64, for each image that both have, in the order of the first set."""
    is_complete: bool
    """Whether both sets have the same images with the same labels."""
    other_labels: int
    """How many images of the first set have another label in the other one."""


def match_images(first: ImageSet, other: ImageSet) -> Matching | None:
    """Find each image of one set in another; labels are numbers of the same classes.

    Images are equal if their files have the same content, whatever their names and the size that
    they are resized to. If one set comes from no files, they are equal if their pixels are.

    Returns:
        None if they cannot be told: one set comes from no files, and the sizes differ.
    """
    have_files = first.keys is not None and other.keys is not None
    if not have_files and first.images.shape[1:] != other.images.shape[1:]:
        return None
    there = defaultdict[Any, list[int]](list)
    named = set()
    keys = _identities(other, have_files)
    for row in reversed(range(len(other))):
        there[keys[row], int(other.labels[row])].append(row)
        named.add(keys[row])
    rows: list[int] = []
    other_labels = 0
    for key, label in zip(_identities(first, have_files), first.labels.tolist(), strict=True):
        if left := there.get((key, label)):
            rows.append(left.pop())
        else:
            other_labels += key in named
    is_complete = len(rows) == len(first) == len(other)
    return Matching(torch.tensor(rows, dtype=torch.int64), is_complete, other_labels)


def only_in(first: Sequence[str], other: Sequence[str]) -> list[str]:
    """The classes of the first sequence that the other one lacks."""
    known = set(other)
    return [name for name in first if name not in known]


def _identities(images: ImageSet, have_files: bool) -> list[Any]:
    """What each image is recognised by: the hash of its file, or of its pixels."""
    if have_files and images.keys is not None:
        return images.keys.tolist()
    return [hashlib.blake2b(image.numpy().tobytes()).digest() for image in images.images]
