"""From settings to a configuration, with what pictures and pretrained weights say of it."""

from __future__ import annotations

from functools import partial

from cifar_cli.config.loading import choose_config as _choose_config
from cifar_cli.config.loading import load_config as _load_config
from cifar_cli.config.starting import Pretrained
from cifar_cli.data.facts import survey


def read_pretrained(text: str) -> Pretrained:
    """What follows from the network that a value of `train.init` means.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    from cifar_cli.training.pretrained import read_pretrained  # which imports torch

    return read_pretrained(text)


load_config = partial(_load_config, survey=survey, read_pretrained=read_pretrained)
choose_config = partial(_choose_config, survey=survey, read_pretrained=read_pretrained)
