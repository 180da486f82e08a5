"""One typed, frozen configuration object, its recipes, and the ways to override it. No torch."""

from cifar_cli.config.data_schema import DataConfig
from cifar_cli.config.loading import load_config
from cifar_cli.config.recipe_files import recipe_names, recipe_text
from cifar_cli.config.schema import (
    AlbumentationsConfig,
    AugmentConfig,
    Config,
    ModelConfig,
    MuonConfig,
    OneCycleConfig,
    OptimConfig,
    RuntimeConfig,
    ScheduleConfig,
    TensorConfig,
)

__all__ = [
    "AlbumentationsConfig",
    "AugmentConfig",
    "Config",
    "DataConfig",
    "ModelConfig",
    "MuonConfig",
    "OneCycleConfig",
    "OptimConfig",
    "RuntimeConfig",
    "ScheduleConfig",
    "TensorConfig",
    "load_config",
    "recipe_names",
    "recipe_text",
]
