"""The three training augmentations as tensor operations on a whole batch.

The same distribution as the Albumentations form, without a Python loop over images. Draws are
keyed, so that an image's augmentation depends neither on the batch around it nor on the device.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from cifar_cli.config import TensorConfig
from cifar_cli.data.keyed import uniforms

CROP_ATTEMPTS = 10


class Draws(NamedTuple):
    """What is done to each image of a batch of B; where a crop lies is drawn by `crop_boxes`."""

    cropped: Tensor
    """bool (B,)"""
    flipped: Tensor
    """bool (B,)"""
    cut: Tensor
    """bool (B,)"""
    hole: Tensor
    """int64 (B, 2): top, left, in pixels."""


class TensorAugment:
    """Random resized crop, horizontal flip and one square hole, drawn for each image anew."""

    def __init__(self, config: TensorConfig, fill: tuple[int, ...], seed: int) -> None:
        self.config = config
        self.seed = seed
        self.fill = fill

    def __call__(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        """Augment uint8 (B, H, W, 3) images whose dataset positions are `indices`, int64 (B,).

        On a CPU this happens in place.
        """
        draws = draw(self.config, self.seed, epoch, indices, images.shape[1])
        if most := self.config.translate:
            images = translated(images, draw_shifts(self.seed, epoch, indices, most), most)
        if images.device.type == "cpu":
            return self.change_chosen(images, draws, indices, epoch)
        return self.change_all(images, draws, indices, epoch)

    def change_chosen(self, images: Tensor, draws: Draws, indices: Tensor, epoch: int) -> Tensor:
        """Work on the chosen images alone, and in place; the least work."""
        size, side = images.shape[1], self.config.cutout_size
        rows = draws.cropped.nonzero()[:, 0]
        boxes = crop_boxes(self.config, self.seed, epoch, indices[rows], size)
        _replace(images, rows, resized_crop(images.index_select(0, rows), boxes))
        rows = draws.flipped.nonzero()[:, 0]
        _replace(images, rows, images.index_select(0, rows).flip(2))
        rows = draws.cut.nonzero()[:, 0]
        corner = (rows * size + draws.hole[rows, 0]) * size + draws.hole[rows, 1]
        pixel, channel = torch.arange(side), torch.arange(3)
        hole = (pixel[:, None, None] * size + pixel[:, None]) * 3 + channel
        fill = _vector(self.fill, images).repeat(side**2).expand(len(rows), -1).reshape(-1)
        images.view(-1).scatter_(0, (corner[:, None] * 3 + hole.view(-1)).view(-1), fill)
        return images

    def change_all(self, images: Tensor, draws: Draws, indices: Tensor, epoch: int) -> Tensor:
        """Work on all images and take the chosen: a GPU need not be waited for to count them."""
        size = images.shape[1]
        if self.config.crop_p:
            cropped = resized_crop(images, crop_boxes(self.config, self.seed, epoch, indices, size))
            images = torch.where(draws.cropped[:, None, None, None], cropped, images)
        images = torch.where(draws.flipped[:, None, None, None], images.flip(2), images)
        if not self.config.cutout_p:
            return images
        pixel = torch.arange(size, device=images.device)
        end = draws.hole + self.config.cutout_size
        inside = (pixel >= draws.hole[..., None]) & (pixel < end[..., None])
        hole = inside[:, 0, :, None] & inside[:, 1, None, :] & draws.cut[:, None, None]
        return torch.where(hole[..., None], _vector(self.fill, images), images)


def _vector(numbers: tuple[int, ...], like: Tensor) -> Tensor:
    """Plain numbers as a tensor, filled in on the device: copying them there would wait for it."""
    return torch.stack([like.new_full((), number) for number in numbers])


def draw(config: TensorConfig, seed: int, epoch: int, indices: Tensor, size: int) -> Draws:
    """Draw what is done to each image, as Albumentations 2.0.8 would."""
    u = uniforms(seed, epoch, indices, 5)
    free = size - config.cutout_size + 1
    return Draws(
        cropped=u[:, 0] < config.crop_p,
        flipped=_flipped(config, seed, epoch, indices, u[:, 1]),
        cut=u[:, 2] < config.cutout_p,
        hole=(u[:, 3:5] * free).long(),
    )


def _flipped(config: TensorConfig, seed: int, epoch: int, indices: Tensor, drawn: Tensor) -> Tensor:
    if config.flip == "random":
        return drawn < config.flip_p
    # Epoch 0, which is never trained, stands for the draw that holds for all epochs.
    first = uniforms(seed, 0, indices, 1)[:, 0] < 0.5
    return first ^ bool(epoch % 2)


def draw_shifts(seed: int, epoch: int, indices: Tensor, most: int) -> Tensor:
    """Draw how far each image is shifted, 0 to 2 `most`: int64 (B, 2), `most` being in place."""
    u = uniforms(seed, epoch, indices, 2, skip=8 + 2 * CROP_ATTEMPTS)
    return (u * (2 * most + 1)).long()


def translated(images: Tensor, shift: Tensor, most: int) -> Tensor:
    """Shift images (B, S, S, 3) by `shift` - `most` pixels, int64 (B, 2); borders reflected."""
    count, size = images.shape[:2]
    border = torch.arange(-most, size + most, device=images.device).abs()
    border = size - 1 - (size - 1 - border).abs()
    padded = images.index_select(1, border).index_select(2, border)
    # All windows of the size of the image, as a view: (B, 2 most + 1, 2 most + 1, 3, S, S).
    windows = padded.unfold(1, size, 1).unfold(2, size, 1)
    row = torch.arange(count, device=images.device)
    return windows[row, shift[:, 0], shift[:, 1]].permute(0, 2, 3, 1).contiguous()


def crop_boxes(config: TensorConfig, seed: int, epoch: int, indices: Tensor, size: int) -> Tensor:
    """Draw the box that would be cut out of each image: top, left, height, width.

    The first of ten tried boxes that fits into the image; failing all, a central one. Float32
    (B, 4), whole numbers of pixels.
    """
    u = uniforms(seed, epoch, indices, 2 + 2 * CROP_ATTEMPTS, skip=6)
    place, shape = u[:, :2], u[:, 2:]
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

    Pixel centres lie at halves, and the box's edge pixels are repeated beyond it (as OpenCV's
    INTER_LINEAR does).
    """
    count, size = images.shape[:2]
    bags, weights = _neighbours(boxes, size)

    def interpolate(lines: Tensor, side: int) -> Tensor:
        lines = lines.view(count * size, size * 3)
        return embedding_bag(bags[side], lines, per_sample_weights=weights[side], mode="sum")

    pixels = interpolate(images.float(), 0)
    # Turned round, so that columns lie together as rows did.
    pixels = pixels.view(count, size, size * 3).transpose(1, 2).contiguous()
    pixels = interpolate(pixels, 1).add_(0.5).view(count, size * 3, size)
    enlarged = torch.empty_like(images)
    enlarged.view(count, size, size * 3).copy_(pixels.transpose(1, 2))
    return enlarged


def _neighbours(boxes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two lines between which each output line lies, among all B S, and their weights.

    (2, B S, 2) each: rows, then columns; int64 and float32.
    """
    count = len(boxes)
    start, length = boxes.view(count, 2, 2, 1).permute(1, 2, 0, 3)
    line = torch.arange(size, device=boxes.device)
    source = ((line + 0.5) * (length / size) - 0.5).clamp_(min=0).minimum(length - 1).add_(start)
    share = source.frac()
    first = source.long() + (torch.arange(count, device=boxes.device) * size)[:, None]
    pairs = torch.stack([first, first + (share > 0)], 3), torch.stack([1 - share, share], 3)
    return pairs[0].flatten(1, 2), pairs[1].flatten(1, 2)


def _replace(images: Tensor, rows: Tensor, by: Tensor) -> None:
    """Write whole images in place, by words of eight bytes where they consist of such."""
    if (count := images[0].numel()) % 8 == 0:
        images, by = (t.view(len(t), count).view(torch.int64) for t in (images, by))
    images.index_copy_(0, rows, by)
