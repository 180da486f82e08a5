"""What follows from a trained network whose weights a training starts from."""

from __future__ import annotations

from typing import NoReturn

import pytest

from cifar_cli.config import load_config
from cifar_cli.config.checking import complete_tree
from cifar_cli.config.starting import Pretrained
from cifar_cli.errors import ConfigError

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


def pretrained(text: str) -> Pretrained:
    model = {"name": "custom_resnet", "width": 16, "dropout": 0.0, "residual_dropout": 0.0}
    data = {"mean": list(MEAN), "std": list(STD), "image_size": 24}
    return Pretrained(f"/weights/{text}.pt", {"model": model, "data": data})


def unread(text: str) -> NoReturn:
    raise AssertionError(text)


def test_the_networks_own_settings_stand_between_the_recipe_and_what_the_user_sets() -> None:
    settings = {"train.init": "a", "data.std": (0.9, 0.9, 0.9), "optim.bias_lr": 2.0}
    config = load_config("fast90", settings=settings, env={}, read_pretrained=pretrained)
    assert config.train.init == "/weights/a.pt"
    assert config.model.model_dump()["width"] == 16
    assert (config.data.mean, config.data.std) == (MEAN, (0.9, 0.9, 0.9))
    assert config.data.image_size == 24
    # Logits of this network are not divided by its width, as those of the recipe's are.
    assert (config.optim.head_lr, config.optim.bias_lr) == (0.005, 2.0)  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"data\.image_size has no effect with train\.r"):
        load_config("fast90", settings={"data.image_size": 48}, env={}, read_pretrained=pretrained)


def test_a_complete_configuration_has_what_follows_already() -> None:
    first = load_config("own", settings={"train.init": "a"}, env={}, read_pretrained=pretrained)
    again = load_config(complete_tree(first), env={}, read_pretrained=unread)
    assert again == first
    off = load_config(
        complete_tree(first), settings={"train.epochs": 3}, env={}, read_pretrained=unread
    )
    assert off.train.init == "/weights/a.pt"


@pytest.mark.parametrize("recipe", ["baseline", "own"])
def test_a_share_without_weights_is_refused(recipe: str) -> None:
    told = "optim.init_lr_scale has no effect with train.init null"
    with pytest.raises(ConfigError, match=told):
        load_config(recipe, overrides=["optim.init_lr_scale=0.5"], env={})
    load_config(recipe, overrides=["optim.init_lr_scale=0.5", "train.init=a"], env={})
