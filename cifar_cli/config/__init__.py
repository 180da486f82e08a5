"""One typed, frozen configuration object, its recipes, and the ways to override it. No torch."""

from cifar_cli.config.loading import load_config, recipe_names, recipe_text
from cifar_cli.config.schema import AugmentConfig, Config, DataConfig, ModelConfig

__all__ = [
    "AugmentConfig",
    "Config",
    "DataConfig",
    "ModelConfig",
    "load_config",
    "recipe_names",
    "recipe_text",
]
