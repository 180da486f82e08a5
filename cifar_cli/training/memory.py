"""Out of memory: when it happened, and what would need less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cifar_cli.config import Config
from cifar_cli.errors import OutOfMemoryError, is_out_of_memory


@contextmanager
def memory_errors(when: str, remedy: str = "") -> Iterator[None]:
    """Turn an out-of-memory failure of torch or Python into one with a remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"Out of memory {when}.", remedy) from error


def smaller_batch(config: Config) -> tuple[str, str]:
    """Arguments of `memory_errors` for training steps."""
    size, narrower = config.train.batch_size, _narrower(config)
    if size == 1:
        return "in a training step of one image", (
            f"Try {_smaller_images(config)}a narrower network: {narrower}."
        )
    return f"at batch size {size}", (
        f"Try --batch-size {max(1, size // 2)} (and divide --max-lr alike), or a narrower network: "
        f"{narrower}."
    )


def fewer_images(config: Config) -> tuple[str, str]:
    """The same for loading images, all of which are held in memory."""
    return (
        f"while loading the images of {config.data.source}",
        f"Try {_smaller_images(config)}a folder with fewer images (--data), or allow more memory.",
    )


def smaller_network(config: Config) -> tuple[str, str]:
    """The same for building the network."""
    return "while building the network", f"Try a narrower one: {_narrower(config)}."


def _smaller_images(config: Config) -> str:
    if config.data.image_size < 2 * 32 or config.eval_size != config.data.image_size:
        return ""
    return f"--set data.image_size={config.data.image_size // 2}, or "


def _narrower(config: Config) -> str:
    model = config.model
    if model.name == "speed_resnet":
        return f"--set 'model.widths={[max(1, width // 2) for width in model.widths]}'"
    return f"--set model.width={max(1, model.width // 2)}"
