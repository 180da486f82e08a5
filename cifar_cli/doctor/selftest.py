"""The engine against the simplest way to compute the same: one training step, and augmentation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cifar_cli.config import Config
from cifar_cli.config.loading import load_config
from cifar_cli.data.loader import TrainLoader
from cifar_cli.data.sources.shapes import load_shapes
from cifar_cli.data.types import ImageSet
from cifar_cli.errors import DivergedError
from cifar_cli.models import build_model
from cifar_cli.rng import kept_rng
from cifar_cli.training.memory import memory_errors
from cifar_cli.training.runtime import Runtime
from cifar_cli.training.schedule import StepSettings, settings_at
from cifar_cli.training.state import new_state
from cifar_cli.training.step import Step

IMAGES = 64
STEP_MEMORY = "in one step of 64 images", "Close other programs that use the device."
TOLERANCE = {"fp32": 1e-4, "bf16": 0.1}
"""Relative difference that is allowed in the loss, and in what the step changes."""
WORKERS, EPOCHS = 2, 2

STILL = {
    "augment.form": "tensor",
    "augment.crop_p": 0.0,
    "augment.flip_p": 0.0,
    "augment.cutout_p": 0.0,
    "model.width": 16,
    "model.dropout": 0.0,
    "model.residual_dropout": 0.0,
    "optim.max_lr": 0.01,
    "schedule.div_factor": 1.0,
    "train.epochs": 1,
    "train.batch_size": IMAGES,
}


class _Result(NamedTuple):
    """The loss before a step, and the weights after it, in float32 on the CPU."""

    loss: float
    weights: dict[str, Tensor]


class _Plain(NamedTuple):
    """A step from its definition: its loss, and each weight's gradient and change."""

    loss: float
    gradients: dict[str, Tensor]
    changes: dict[str, Tensor]


def compare_step(config: Config) -> str:
    """One training step as the engine does it, against the plain one on the CPU.

    Raises:
        DivergedError: Loss or weights differ by more than the tolerance.
    """
    images = load_shapes(IMAGES, 10).train
    settings = load_config(env={}, settings={**STILL, "device": config.device})
    tf32 = torch.backends.cudnn.allow_tf32
    runtime = Runtime.start(settings)
    fp32 = Runtime(runtime.device, runtime.settings.model_copy(update={"precision": "fp32"}))
    try:
        with kept_rng(runtime.device), memory_errors(*STEP_MEMORY):
            torch.manual_seed(settings.seed)
            first = build_model(settings.model, 10, 32).state_dict()
            first = {name: t.clone() for name, t in first.items()}
            torch.backends.cudnn.allow_tf32 = False
            plain = _plain_step(first, images, settings)
            steps = {"fp32": _engine_step(first, images, settings, fp32)}
            torch.backends.cudnn.allow_tf32 = tf32
            if runtime.uses_bf16:
                steps["bf16"] = _engine_step(first, images, settings, runtime)
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    device = runtime.device.type
    told, wrong = [f"loss {plain.loss:.4f}"], False
    for precision, step in steps.items():
        loss, change = _differences(first, step, plain)
        most = TOLERANCE[precision]
        wrong = wrong or not (loss <= most and change <= most)
        told.append(
            f"{device} in {precision} differs from a reference implementation by {loss:.0e} "
            f"in the loss and {change:.0e} in the weights (at most {most:.0e})"
        )
    if wrong:
        raise DivergedError(f"A training step goes wrong: {'; '.join(told)}.")
    return "; ".join(told)


def compare_augmentation() -> str:
    """Albumentations' draws in loader processes: all different, and those without processes.

    Raises:
        DivergedError: Draws repeat, or depend on the processes.
    """
    # One picture many times over: what comes out differs only where the draws do.
    picture = load_shapes(10, 10).train.images[:1].expand(IMAGES, 32, 32, 3).clone()
    images = ImageSet(picture, torch.arange(IMAGES), torch.arange(IMAGES))
    drawn = {}
    for workers in (0, WORKERS):
        settings = load_config(
            env={},
            settings={
                "augment.crop_p": 1.0,
                "augment.flip_p": 0.5,
                "augment.cutout_p": 1.0,
                "train.batch_size": IMAGES // 4,
                "data.workers": workers,
            },
        )
        with TrainLoader(images, settings, torch.device("cpu")) as loader:
            batches = [b for epoch in range(1, EPOCHS + 1) for b, _ in loader.epoch(epoch)]
        drawn[workers] = torch.cat(batches).contiguous()
    total = IMAGES * EPOCHS
    distinct = len({image.numpy().tobytes() for image in drawn[WORKERS]})
    if distinct != total:
        raise DivergedError(f"Of {total} draws in {WORKERS} loader processes {distinct} differ.")
    if not torch.equal(drawn[0], drawn[WORKERS]):
        raise DivergedError("Loader processes draw other augmentations than the training process.")
    return (
        f"{total} draws in {WORKERS} loader processes are all different, and equal those made "
        "without loader processes"
    )


def _engine_step(
    first: dict[str, Tensor], images: ImageSet, config: Config, runtime: Runtime
) -> _Result:
    state = new_state(config, 10, runtime)
    state.model.load_state_dict(first)
    step = Step(state.model.train(), state.optimizer, config, runtime)
    # All images make one batch.
    ((pixels, labels),) = TrainLoader(images, config, runtime.device).epoch(1)
    loss = step(pixels, labels, _settings(config), 0.0).loss
    weights = {name: p.detach().cpu().float() for name, p in state.model.named_parameters()}
    return _Result(float(loss), weights)


def _settings(config: Config) -> StepSettings:
    return settings_at(0, 1, float(config.optim.max_lr), config.schedule)


def _plain_step(first: dict[str, Tensor], images: ImageSet, config: Config) -> _Plain:
    """The step from its definition: float32, (B, C, H, W) in plain order, no code of the engine."""
    mean, std = (torch.tensor(t).view(3, 1, 1) for t in config.data.normalisation)
    x = (images.images.permute(0, 3, 1, 2).contiguous().float() / 255 - mean) / std
    weights = {
        name: t.clone().requires_grad_()
        for name, t in first.items()
        if t.is_floating_point() and "running" not in name
    }

    def block(x: Tensor, name: str, pool: bool = False) -> Tensor:
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weights[f"{name}.0.weight"])
        x, norm = (F.max_pool2d(x, 2), 2) if pool else (x, 1)
        scale, shift = weights[f"{name}.{norm}.weight"], weights[f"{name}.{norm}.bias"]
        return F.relu(F.batch_norm(x, None, None, scale, shift, training=True))

    def residual(x: Tensor, name: str) -> Tensor:
        x = block(x, f"{name}.pooled", pool=True)
        return x + block(block(x, f"{name}.residual.first"), f"{name}.residual.second")

    x = residual(block(x, "prep"), "layer1")
    x = residual(block(x, "layer2", pool=True), "layer3")
    logits = F.max_pool2d(x, 4).flatten(1) @ weights["classifier.weight"].T
    loss = F.cross_entropy(logits, images.labels)
    gradients = torch.autograd.grad(loss, list(weights.values()))
    lr = _settings(config).lr
    by_name = dict(zip(weights, gradients, strict=True))
    changes = {}
    for name, gradient in by_name.items():
        # Adam's first step: both averages are corrected to the gradient and its square.
        g = gradient + config.optim.weight_decay * weights[name].detach()
        changes[name] = -lr * g / (g.abs() + 1e-8)
    return _Plain(loss.item(), by_name, changes)


def _differences(first: dict[str, Tensor], found: _Result, plain: _Plain) -> tuple[float, float]:
    """Relative differences of the loss and of the weights' change.

    Adam's first step goes by the sign of each gradient alone, so that a weight whose gradient is
    next to nothing may go either way; therefore each counts by its gradient. A wrong gradient or
    rule makes the difference 1 or more.
    """
    apart = whole = 0.0
    for name, change in plain.changes.items():
        size = plain.gradients[name].abs()
        apart += float((size * (found.weights[name] - first[name] - change).abs()).sum())
        whole += float((size * change.abs()).sum())
    return abs(found.loss - plain.loss) / plain.loss, apart / whole
