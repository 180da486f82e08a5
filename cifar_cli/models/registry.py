"""Networks by the name that the configuration gives."""

from __future__ import annotations

from torch import nn

from cifar_cli.config import ModelConfig
from cifar_cli.errors import ConfigError
from cifar_cli.models.custom_resnet import CustomResnet


def build_model(config: ModelConfig, num_classes: int, image_size: int) -> nn.Module:
    """Build a network with freshly drawn weights (from torch's global generator).

    Raises:
        ConfigError: The network cannot take images of that size.
    """
    if image_size % 8:
        raise ConfigError(
            f"data.image_size {image_size}: {config.name} halves the image three times and needs "
            "a multiple of 8."
        )
    return CustomResnet(
        num_classes, config.width, config.dropout, config.residual_dropout, image_size
    )
