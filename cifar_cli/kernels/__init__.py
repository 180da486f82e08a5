"""Kernels for training on a CPU: `accelerate(model)` has layers of `torch.nn` run by them."""

from cifar_cli.kernels.library import Status, status
from cifar_cli.kernels.modules import accelerate, restore, uses_compiled_code

__all__ = ["Status", "accelerate", "restore", "status", "uses_compiled_code"]
