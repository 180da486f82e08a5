"""Random resized crop: cut out a box and enlarge it to the size of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from cifar_cli.data.augment.transform import Draws, Transform, constant

ATTEMPTS = 10
"""Boxes that are drawn for an image; the first that fits into it is taken."""
BOX_DRAWS = 2 + 2 * ATTEMPTS


@dataclass(frozen=True)
class RandomResizedCrop(Transform):
    """Crop to a box of random area, aspect ratio and position, drawn as Albumentations 2.0.8."""

    scale: tuple[float, float]
    """Range of the box's area, as a fraction of the image."""
    ratio: tuple[float, float]
    """Range of width / height."""
    name = "random resized crop"
    column = 0

    def transformed(self, images: Tensor, draws: Draws) -> Tensor:
        return resized_crop(images, self.boxes(draws, images.shape[1]))

    def boxes(self, draws: Draws, size: int) -> Tensor:
        """Draw a box for each image, float32 (B, 4): top, left, height, width in whole pixels.

        The first of ten boxes that fits into the image; if none does, a central one.
        """
        u = draws.further(BOX_DRAWS, skip=6)
        (smallest, largest), (narrowest, widest) = self.scale, self.ratio
        area = size**2 * (smallest + u[:, 2::2] * (largest - smallest))
        log_ratio = math.log(narrowest) + u[:, 3::2] * math.log(widest / narrowest)
        ratio = torch.exp(log_ratio)
        sides = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], dim=2).round()
        fits = ((sides > 0) & (sides <= size)).all(dim=2)
        first = fits.to(torch.uint8).argmax(dim=1)  # argmax takes the first of equal values
        chosen = sides[torch.arange(len(sides), device=sides.device), first]
        corner = (u[:, :2] * (size - chosen + 1)).floor()
        central = constant(
            (min(size, round(size / narrowest)), min(size, round(size * widest))), sides
        )
        none = ~fits.any(dim=1, keepdim=True)
        return torch.cat(
            [
                torch.where(none, ((size - central) / 2).floor(), corner),
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

    def interpolate(lines: Tensor, axis: int) -> Tensor:
        lines = lines.view(count * size, size * 3)
        return embedding_bag(bags[axis], lines, per_sample_weights=weights[axis], mode="sum")

    pixels = interpolate(images.float(), 0)
    # Transposed, so that each column is contiguous, as each row was.
    pixels = pixels.view(count, size, size * 3).transpose(1, 2).contiguous()
    pixels = interpolate(pixels, 1).add_(0.5).view(count, size * 3, size)
    # On a CPU, torch converts float32 to uint8 four times faster by way of int16.
    return pixels.transpose(1, 2).contiguous().short().byte().view_as(images)


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
