"""Weights in an exported safetensors file, read as a checkpoint without training state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cifar_cli.config.data_schema import LARGEST, SMALLEST
from cifar_cli.errors import CheckpointError, OutOfMemoryError, check_extra
from cifar_cli.storage import read_regular
from cifar_cli.training.checkpoint import EVAL_SIZE, Checkpoint, checkpoint_of
from cifar_cli.training.memory import memory_errors
from cifar_cli.training.sealed import reading

SAFETENSORS, SUFFIX = "safetensors", ".safetensors"
"""Name of the format, its package and the extra; and how its files end."""
MAX_BYTES = 8 * 2**30


@contextmanager
def exported_errors(path: Path, name: str) -> Iterator[None]:
    """Turn whatever a reader of foreign bytes raises into errors that name the file and format."""
    try:
        with memory_errors(*reading(path)):
            yield
    except (CheckpointError, OutOfMemoryError):
        raise
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from error
    except Exception as error:
        raise CheckpointError(
            f"{path} is not a file that cifar-resnet has exported as {name}."
        ) from error


def read_safetensors(path: Path) -> Checkpoint:
    """Read the weights of an exported safetensors file, and what it says of them.

    Raises:
        CheckpointError: It cannot be read, or is not of this program.
        ConfigError: The package of the format is not installed.
        OutOfMemoryError: It does not fit into memory.
    """
    check_extra(SAFETENSORS, (SAFETENSORS,), f"The format {SAFETENSORS}")
    with exported_errors(path, SAFETENSORS):
        from safetensors.torch import load

        content = read_regular(path, MAX_BYTES)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size])["__metadata__"]
        document = json.loads(metadata["cifar_resnet"])
        found = checkpoint_of(path, document | {"weights": load(content)})
        size = document["eval_size"]
        if type(size) is not int or not SMALLEST <= size <= LARGEST:
            raise ValueError
    return found if size == found.eval_size else replace(found, dropped={EVAL_SIZE: size})
