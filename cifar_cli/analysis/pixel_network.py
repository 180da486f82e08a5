"""A network that takes pictures as they are: resizing and normalisation are layers of its graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cifar_cli.config import DataConfig

_A = -0.5  # of the cubic filter, as Pillow's
_SUPPORT = 2


class PixelNetwork(nn.Module):
    """From RGB pixels, uint8 (N, H, W, 3), of any size to logits, float32 (N, C).

    Images are resized as `data.sources.pixels` has Pillow do it: bicubic with a filter that grows
    with the scale, across before down, rounded to whole numbers after each. The filters are
    matrices that the graph computes from H and W, so that every exporter has all operations.

    Args:
        network: From normalised images, float (N, 3, S, S), to logits; plain layers of torch.
        data: Size, resizing and normalisation.
    """

    mean_colour: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, data: DataConfig) -> None:
        super().__init__()
        self.network, self.size, self.resize = network, data.image_size, data.resize
        mean, std = data.normalisation
        numbers = {
            "mean_colour": [float(value) for value in data.mean_colour],
            "scale": [1 / (255 * s) for s in std],
            "offset": [-m / s for m, s in zip(mean, std, strict=True)],
        }
        for name, values in numbers.items():
            self.register_buffer(name, torch.tensor(values), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Pixels, uint8 (N, H, W, 3), to logits, float32 (N, C)."""
        pixels = self.resized(images.float())
        inputs = torch.addcmul(self.offset, pixels, self.scale).permute(0, 3, 1, 2).contiguous()
        logits: Tensor = self.network(inputs)
        return logits

    def resized(self, pixels: Tensor) -> Tensor:
        """Pixels in 0..255, float32 (N, H, W, 3), as whole numbers, float32 (N, S, S, 3)."""
        count, height, width, channels = pixels.shape
        rows, columns = (torch.arange(n, dtype=torch.float64) for n in (height, width))
        h, w = rows[-1] + 1, columns[-1] + 1
        short, long = torch.minimum(h, w), torch.maximum(h, w)
        down, inside_down = self._filter(rows, h, short, long)
        across, inside_across = self._filter(columns, w, short, long)
        half = _whole(torch.matmul(across, pixels))
        small = _whole(torch.matmul(down, half.reshape(count, height, self.size * channels)))
        small = small.reshape(count, self.size, self.size, channels)
        if self.resize == "pad":
            inside = inside_down[:, None, None] * inside_across[None, :, None]
            small = small + (1 - inside) * self.mean_colour
        return small

    def _filter(
        self, positions: Tensor, length: Tensor, short: Tensor, long: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The matrix, float32 (S, length), of one axis; and 1 for each row that is in the image."""
        steps = torch.arange(self.size, dtype=torch.float64)
        inside = torch.ones_like(steps)
        start, scale = torch.zeros_like(length), length / self.size
        if self.resize == "crop":
            start, scale = (length - short) / 2, short / self.size
        elif self.resize == "pad":
            inner = torch.clamp(torch.round(length * (self.size / long)), min=1)
            steps = steps - torch.floor((self.size - inner) / 2)
            inside = ((steps >= 0) & (steps < inner)).double()
            scale = length / inner
        centres = (start + (steps + 0.5) * scale)[:, None]
        x = ((positions + 0.5)[None, :] - centres) / torch.clamp(scale, min=1)
        x = torch.clamp(x.abs(), max=_SUPPORT)
        near = ((_A + 2) * x - (_A + 3)) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * _A
        weights = torch.where(x < 1, near, far)
        # Rows beside a padded image may lie beyond every pixel.
        total = torch.where(inside > 0, weights.sum(1), torch.ones_like(inside))
        weights = weights / total[:, None] * inside[:, None]
        return weights.float(), inside.float()


def _whole(pixels: Tensor) -> Tensor:
    return torch.clamp(torch.floor(pixels + 0.5), 0, 255)
