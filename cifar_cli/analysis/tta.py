"""Test-time augmentation: the mean of the logits over several views of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

Tta = Literal["none", "flip", "flip-translate"]
KINDS: tuple[str, ...] = get_args(Tta)


def tta_forward(model: nn.Module, kind: Tta) -> Callable[[Tensor], Tensor]:
    """A function from images (B, 3, H, W) to logits (B, C).

    `flip` takes the mean over an image and its mirror image. `flip-translate` adds both moved by
    one pixel up-left and down-right, at half the weight of the unmoved ones: the six views of
    airbench (https://github.com/KellerJordan/cifar10-airbench).
    """

    def flip(images: Tensor) -> Tensor:
        # The mean in fp32, also of logits in bf16.
        mean: Tensor = (model(images).float() + model(images.flip(3)).float()) / 2
        return mean

    def flip_translate(images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        up_left = padded[:, :, :height, :width]
        down_right = padded[:, :, 2 : height + 2, 2 : width + 2]
        return flip(images) / 2 + (flip(up_left) + flip(down_right)) / 4

    views: dict[str, Callable[[Tensor], Tensor]] = {
        "none": model,
        "flip": flip,
        "flip-translate": flip_translate,
    }
    return views[kind]
