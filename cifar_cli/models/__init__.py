"""Networks by name, and the table that sums one up."""

from cifar_cli.models.registry import build_model

__all__ = ["build_model"]
