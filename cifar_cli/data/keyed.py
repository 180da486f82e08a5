"""Random numbers that are a hash of what they are for: seed, epoch, image, number of the draw.

There is no state to save or restore. The order of the calls does not matter, and every device
draws the same numbers.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea, Flood 2014), as signed 64-bit numbers, which wrap as unsigned ones do.
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64
# Draws are counted from 1; number 0 orders the images of an epoch.
_ORDER = 0


def uniforms(seed: int, epoch: int, indices: Tensor, count: int, skip: int = 0) -> Tensor:
    """Draw float32 (B, count) numbers in [0, 1) for the images at `indices`, int64 (B,).

    `skip` passes over the first draws of each image.
    """
    number = torch.arange(skip + 1, skip + count + 1, device=indices.device)
    return ((_bits(seed, epoch, indices, number) >> 40) & (2**24 - 1)).float() * 2**-24


def epoch_order(seed: int, epoch: int, count: int, device: torch.device | None = None) -> Tensor:
    """The order of the rows in an epoch (counted from 1), int64 (count,) on `device`."""
    number = torch.full((1,), _ORDER, device=device)
    return _bits(seed, epoch, torch.arange(count, device=device), number)[:, 0].argsort()


def mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser: int64 to int64, one to one."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * _MIX_1
    x = (x ^ ((x >> 27) & (2**37 - 1))) * _MIX_2
    return x ^ ((x >> 31) & (2**33 - 1))


def _bits(seed: int, epoch: int, indices: Tensor, number: Tensor) -> Tensor:
    image = mix(_key(seed, epoch) + (indices + 1) * GOLDEN)
    return mix(image[:, None] + number * GOLDEN)


@lru_cache
def _key(seed: int, epoch: int) -> int:
    # A plain number: copying a tensor to the device would wait for it.
    return int(mix(mix(torch.tensor(seed) + GOLDEN) + epoch))
