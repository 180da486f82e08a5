"""Networks by the name that the configuration gives."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from cifar_cli.config import ModelConfig
from cifar_cli.errors import ConfigError
from cifar_cli.models.custom_resnet import CustomResnet
from cifar_cli.models.speed_resnet import SpeedResnet


def head_name(model: nn.Module) -> str:
    """The name of a network's last layer, which gives its logits."""
    names: list[str] = [n for n, module in model.named_modules() if isinstance(module, nn.Linear)]
    return names[-1]


def build_model(
    config: ModelConfig,
    num_classes: int,
    image_size: int,
    images: Callable[[], Tensor] | None = None,
    eval_size: int | None = None,
) -> nn.Module:
    """Build a network with freshly drawn weights (from torch's global generator).

    Args:
        config: Its name and sizes.
        num_classes: Number of logits.
        image_size: Side of the images in pixels.
        images: Gives normalised training images, float (N, 3, S, S), to networks that are fitted
            to them before training starts; None where the weights will be loaded.
        eval_size: Side to which images are resized in evaluation mode; None: as they are.

    Raises:
        ConfigError: The network cannot take images of that size.
    """
    eval_size = None if eval_size == image_size else eval_size
    if config.name == "speed_resnet":
        network = SpeedResnet(
            num_classes, config.widths, config.convolutions, config.residual, eval_size
        )
        if images is not None:
            network.whiten(images())
        return network
    if image_size % 8:
        raise ConfigError(
            f"data.image_size {image_size}: {config.name} halves the image three times and needs "
            "a multiple of 8."
        )
    return CustomResnet(
        num_classes, config.width, config.dropout, config.residual_dropout, image_size, eval_size
    )
