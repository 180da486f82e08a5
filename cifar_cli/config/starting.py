"""What follows from a trained network whose weights a training starts from (`train.init`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from cifar_cli.config.migration import is_complete
from cifar_cli.config.settings import chosen_variant
from cifar_cli.errors import path_problem

# Rates of the last layer and of biases that Muon needs for each network: the logits of
# speed_resnet are divided by its width. Those of the recipes fast90 and resnet94.
_MUON_RATES = {
    "speed_resnet": {"head_lr": 343.0, "bias_lr": 27.0},
    "custom_resnet": {"head_lr": 0.005, "bias_lr": 10.0},
}


class Pretrained(NamedTuple):
    """A trained network, as far as a configuration depends on it."""

    path: str
    """The file of its weights, absolute."""
    settings: Mapping[str, Mapping[str, Any]]
    """Its own network, normalisation and image size, by section."""


ReadPretrained = Callable[[str], Pretrained]
"""Finds and reads the network that a value of `train.init` means."""


def chosen_start(sources: Iterable[Mapping[str, Any]]) -> str | None:
    """The `train.init` that sources come to; None if none has one.

    A complete configuration has what follows from it already.
    """
    for source in reversed(list(sources)):
        train = source.get("train")
        if isinstance(train, Mapping) and "init" in train:
            text = train["init"]
            usable = isinstance(text, str) and not path_problem(text) and not is_complete(source)
            return text if usable else None
    return None


def derived_settings(
    pretrained: Pretrained, recipe: Iterable[Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Settings that follow from a trained network, to stand above those of the recipe.

    They are the network's own. If the recipe uses Muon for another network, they include the
    rates that this one needs.
    """
    settings = dict(pretrained.settings)
    names = {"model": "", "optim": ""}
    for section in names:
        for tree in recipe:
            if isinstance(inner := tree.get(section), Mapping) and "name" in inner:
                names[section] = chosen_variant(section, inner)
    network = pretrained.settings["model"]["name"]
    if names["optim"] == "muon" and names["model"] not in ("", network):
        settings["optim"] = _MUON_RATES[network]
    return settings
