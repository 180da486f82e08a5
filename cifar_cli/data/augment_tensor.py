"""The three training augmentations as tensor operations on a whole batch.

The same distribution as the Albumentations form, without a Python loop over images. Draws are
keyed, so that an image's augmentation depends neither on the batch around it nor on the device.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cifar_cli.config import AugmentConfig
from cifar_cli.data.keyed import uniforms

CROP_ATTEMPTS = 10


class Draws(NamedTuple):
    """What is done to each image of a batch of B; boxes in pixels."""

    cropped: Tensor
    """bool (B,)"""
    crop_box: Tensor
    """float32 (B, 4): top, left, height, width; whole numbers."""
    flipped: Tensor
    """bool (B,)"""
    cut: Tensor
    """bool (B,)"""
    hole: Tensor
    """int64 (B, 2): top, left."""


class TensorAugment:
    """Random resized crop, horizontal flip and one square hole, drawn for each image anew."""

    def __init__(self, config: AugmentConfig, mean: tuple[float, ...], seed: int) -> None:
        self.config = config
        self.seed = seed
        self.fill = fill_colour(mean)

    def __call__(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        """Augment uint8 (B, H, W, 3) images whose dataset positions are `indices`, int64 (B,)."""
        draws = draw(self.config, self.seed, epoch, indices, images.shape[1])
        images = crop_and_flip(images, draws, chosen_alone=images.device.type == "cpu")
        pixel = torch.arange(images.shape[1], device=images.device)
        end = draws.hole + self.config.cutout_size
        inside = (pixel >= draws.hole[..., None]) & (pixel < end[..., None])
        hole = inside[:, 0, :, None] & inside[:, 1, None, :] & draws.cut[:, None, None]
        return torch.where(hole[..., None], _vector(self.fill, images), images)


def crop_and_flip(images: Tensor, draws: Draws, *, chosen_alone: bool) -> Tensor:
    """The first two augmentations of uint8 (B, S, S, 3) images; the images stay as they are.

    Either on the chosen images alone, which is less work, or on all, of which the chosen are
    taken: a GPU need not be waited for, as it must be to count the chosen ones.
    """
    if chosen_alone:
        images = images.clone()
        rows = draws.cropped.nonzero()[:, 0]
        images[rows] = resized_crop(images[rows], draws.crop_box[rows])
        rows = draws.flipped.nonzero()[:, 0]
        images[rows] = images[rows].flip(2)
        return images
    cropped = resized_crop(images, draws.crop_box)
    images = torch.where(draws.cropped[:, None, None, None], cropped, images)
    return torch.where(draws.flipped[:, None, None, None], images.flip(2), images)


def fill_colour(mean: tuple[float, ...]) -> tuple[int, ...]:
    """The mean colour in 0..255, with which holes are filled."""
    return tuple(round(255 * channel) for channel in mean)


def _vector(numbers: tuple[int, ...], like: Tensor) -> Tensor:
    """Plain numbers as a tensor, filled in on the device: copying them there would wait for it."""
    return torch.stack([like.new_full((), number) for number in numbers])


def draw(config: AugmentConfig, seed: int, epoch: int, indices: Tensor, size: int) -> Draws:
    """Draw what is done to each image, as Albumentations 2.0.8 would."""
    u = uniforms(seed, epoch, indices, 8 + 2 * CROP_ATTEMPTS)
    free = size - config.cutout_size + 1
    return Draws(
        cropped=u[:, 0] < config.crop_p,
        crop_box=_crop_boxes(config, u[:, 6:8], u[:, 8:], size),
        flipped=u[:, 1] < config.flip_p,
        cut=u[:, 2] < config.cutout_p,
        hole=(u[:, 3:5] * free).long(),
    )


def _crop_boxes(config: AugmentConfig, place: Tensor, shape: Tensor, size: int) -> Tensor:
    """The first of ten tried boxes that fits into the image; failing all, a central one."""
    (smallest, largest), (narrowest, widest) = config.crop_scale, config.crop_ratio
    area = size**2 * (smallest + shape[:, 0::2] * (largest - smallest))
    log_ratio = math.log(narrowest) + shape[:, 1::2] * math.log(widest / narrowest)
    ratio = torch.exp(log_ratio)
    sides = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], dim=2).round()
    fits = ((sides > 0) & (sides <= size)).all(dim=2)
    first = fits.to(torch.uint8).argmax(dim=1)  # argmax finds the first that fits
    chosen = sides[torch.arange(len(sides), device=sides.device), first]
    place = (place * (size - chosen + 1)).floor()
    central = _vector((min(size, round(size / narrowest)), min(size, round(size * widest))), sides)
    none = ~fits.any(dim=1, keepdim=True)
    return torch.cat(
        [
            torch.where(none, ((size - central) / 2).floor(), place),
            torch.where(none, central, chosen),
        ],
        dim=1,
    )


def resized_crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Cut `boxes` (float32 (B, 4)) out of uint8 (B, S, S, 3) and enlarge them to S x S bilinearly.

    Bilinear interpolation is a product with one sparse matrix a side: pixel centres lie at
    halves, and the box's edge pixels are repeated beyond it (as OpenCV's INTER_LINEAR does).
    """
    size = images.shape[1]
    vertical = _interpolation(boxes[:, 0], boxes[:, 2], size)
    horizontal = _interpolation(boxes[:, 1], boxes[:, 3], size)
    pixels = images.float().reshape(len(images), size, size * 3)
    rows = torch.bmm(vertical, pixels).reshape(-1, size, size, 3)
    columns = torch.einsum("bow,bhwc->bhoc", horizontal, rows)
    return columns.round().clamp(0, 255).to(torch.uint8)


def _interpolation(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Weights (B, S, S): row o holds the two source pixels of output pixel o."""
    pixel = torch.arange(size, device=start.device, dtype=torch.float32)
    source = (pixel + 0.5) * (length / size)[:, None] - 0.5
    source = start[:, None] + source.clamp(min=0).minimum((length - 1)[:, None])
    return (1 - (source[:, :, None] - pixel).abs()).clamp(min=0)
