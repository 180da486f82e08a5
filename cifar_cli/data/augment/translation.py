"""Translation by whole pixels; the border is reflected."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_cli.data.augment.crop import BOX_DRAWS
from cifar_cli.data.augment.transform import Draws, Transform


@dataclass(frozen=True)
class Translation(Transform):
    """Move each image by at most `limit` pixels in each direction; `p` is 0 or 1."""

    limit: int
    name = "translation"

    def offsets(self, draws: Draws) -> Tensor:
        """Draw corners of the image in its reflected padding: int64 (B, 2), 0 to 2 `limit`."""
        return (draws.further(2, skip=6 + BOX_DRAWS) * (2 * self.limit + 1)).long()

    def transformed(self, images: Tensor, draws: Draws) -> Tensor:
        return translate(images, self.offsets(draws), self.limit)


def translate(images: Tensor, offsets: Tensor, limit: int) -> Tensor:
    """Pad images (B, S, S, 3) by `limit` reflected pixels, and cut out S x S at `offsets`."""
    count, size = images.shape[:2]
    line = torch.arange(-limit, size + limit, device=images.device).abs()
    line = size - 1 - (size - 1 - line).abs()
    padded = images.index_select(1, line).index_select(2, line)
    # All windows of the size of the image, as a view: (B, 2 limit + 1, 2 limit + 1, 3, S, S).
    windows = padded.unfold(1, size, 1).unfold(2, size, 1)
    row = torch.arange(count, device=images.device)
    return windows[row, offsets[:, 0], offsets[:, 1]].permute(0, 2, 3, 1).contiguous()
