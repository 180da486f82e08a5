"""What pictures a source holds, before any is decoded: recipes can be fitted to it."""

from __future__ import annotations

from pathlib import Path

from cifar_cli.config import DataConfig
from cifar_cli.config.fitting import Facts


def survey(data: DataConfig) -> Facts | None:
    """Number, classes and size of the training images; None for CIFAR-10 and drawn images.

    Raises:
        DataError: They are arranged in no known way.
    """
    if not Path(data.source).expanduser().exists():
        return None  # a keyword, or a mistake that loading the images tells of
    from cifar_cli.data.sources.load import facts_of  # which imports torch

    return facts_of(data)
