"""Floating-point operations of training, counted from the network's own operators."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from cifar_cli.config import Config
from cifar_cli.models import build_model

COUNTED = 2  # images; the count is proportional


def training_flops(config: Config, num_classes: int, images: int) -> float:
    """Operations of all forward and backward passes of a run over `images` images an epoch.

    Two a multiply-add; convolutions and matrix products only, which are nearly all. Images that
    grow during training count at their size of the time.
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
    state = torch.get_rng_state()
    model = build_model(config.model, num_classes, config.data.image_size)
    images = torch.zeros(COUNTED, 3, side, side)
    labels = torch.zeros(COUNTED, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        loss = F.cross_entropy(model(images), labels)
        torch.autograd.backward(loss)
    torch.set_rng_state(state)
    return float(counter.get_total_flops()) / COUNTED
