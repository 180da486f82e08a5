"""Networks by name, and the table that sums one up."""

from cifar_cli.models.registry import build_model, head_name

__all__ = ["build_model", "head_name"]
