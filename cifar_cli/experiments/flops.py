"""Floating-point operations of training, counted from the network's own operators."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from cifar_cli.config import Config
from cifar_cli.models import build_model
from cifar_cli.rng import kept_rng

COUNTED = 2  # images; the count is proportional


def training_flops(config: Config, num_classes: int, images: int) -> float:
    """FLOPs of all forward and backward passes of a run over `images` images per epoch.

    Two per multiply-add, direct convolution; convolutions and GEMMs only, which are nearly all.
    Images that grow during training count at their size of the time.
    """
    stages = [*config.train.resolutions, (1.0, config.data.image_size)]
    total, before = 0.0, 0.0
    for until, side in stages:
        share = min(until, 1.0) - before
        if share > 0:
            total += share * config.train.epochs * images * _per_image(config, num_classes, side)
        before = max(before, until)
    return total


def _per_image(config: Config, num_classes: int, side: int) -> float:
    images = torch.zeros(COUNTED, 3, side, side)
    labels = torch.zeros(COUNTED, dtype=torch.int64)
    with kept_rng(), FlopCounterMode(display=False) as counter:
        model = build_model(config.model, num_classes, config.data.image_size)
        torch.autograd.backward(F.cross_entropy(model(images), labels))
    return float(counter.get_total_flops()) / COUNTED
