"""The state of torch's random number generators: saved, restored and kept, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

CPU = torch.device("cpu")


def rng_state(device: torch.device = CPU) -> dict[str, Tensor]:
    """State of the generators that initialisation and dropout draw from, by device; uint8."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_rng(state: dict[str, Tensor], device: torch.device = CPU) -> None:
    """Put back what `rng_state` returned; a state of an absent device is left out."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


@contextmanager
def kept_rng(device: torch.device = CPU) -> Iterator[None]:
    """Leave the generators as they were before, whatever is drawn inside."""
    before = rng_state(device)
    try:
        yield
    finally:
        restore_rng(before, device)
