"""Versions and hardware that a run was trained with: what `env.json` holds."""

from __future__ import annotations

import platform
import re
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cifar_cli import __version__, kernels
from cifar_cli.training.runtime import Runtime

PACKAGES = ("torch", "torchvision", "albumentations", "numpy", "pydantic")


def describe_environment(runtime: Runtime, model: nn.Module) -> dict[str, Any]:
    """Versions and hardware, and what of it the placed model uses; plain values."""
    device = runtime.device
    return {
        "cifar_resnet": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "compiled_code": kernels.uses_compiled_code(model),
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
    }


def _processor() -> str:
    """The processor's model as Linux names it; elsewhere as Python does."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if model := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
            return model[1]
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
