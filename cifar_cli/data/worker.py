"""A loader process: it augments the batches that it is asked for, into shared memory.

`worker_pool` starts it as a program of its own. So multiprocessing's start method does not matter,
nothing of the user's script is imported, and no locks or threads are inherited. Requests and
replies are lines of JSON on standard input and output. A reply begins with a token that only this
process was given, since sitecustomize and libraries may print there as well.

Nothing here may import torch: it would take two more seconds and half a gigabyte a process.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cifar_cli.errors import CifarError
from cifar_cli.stops import STOPS

WITHOUT = "Try --set data.workers=0."
READY = 0
"""Ticket of the reply that says that a process can take requests."""


class Layout(NamedTuple):
    """Shapes of the arrays in the shared memory."""

    num_images: int
    """Images of the split."""
    side: int
    """Height and width of an image, in pixels."""
    batch_size: int
    slots: int
    """Number of batches that fit."""

    @property
    def image_bytes(self) -> int:
        return self.side * self.side * 3

    @property
    def size(self) -> int:
        """Bytes in all."""
        images = self.num_images + self.slots * self.batch_size
        return 2 * 8 * self.num_images + images * self.image_bytes


class Shared(NamedTuple):
    """Arrays in the shared memory."""

    indices: NDArray[np.int64]
    """(N,) positions of the images in their source."""
    order: NDArray[np.int64]
    """(N,) rows of `images`, in the order of the epoch."""
    images: NDArray[np.uint8]
    """(N, H, W, 3)"""
    slots: NDArray[np.uint8]
    """(S, B, H, W, 3): augmented batches."""


def map_arrays(memory: mmap.mmap, layout: Layout) -> Shared:
    """Arrays that look at `memory`, which is `layout.size` bytes long."""
    n, side = layout.num_images, layout.side
    image = (side, side, 3)
    pixels = 2 * 8 * n
    slots = pixels + n * layout.image_bytes
    return Shared(
        indices=np.frombuffer(memory, np.int64, n),
        order=np.frombuffer(memory, np.int64, n, 8 * n),
        images=np.frombuffer(memory, np.uint8, n * layout.image_bytes, pixels).reshape(-1, *image),
        slots=np.frombuffer(memory, np.uint8, offset=slots).reshape(
            layout.slots, layout.batch_size, *image
        ),
    )


def main(setup: dict[str, Any], token: str) -> None:
    """Answer requests until standard input ends, at the latest with the training process."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # from now on, what a library prints goes to standard error
    try:
        answer_requests(setup, replies, token)
    except BrokenPipeError:
        return


def answer_requests(setup: dict[str, Any], replies: BinaryIO, token: str) -> None:
    """Say that all is ready, then fill one slot per request: ticket, epoch, first, last, slot."""

    def reply(ticket: int, kind: str = "", what: str = "", remedy: str = "") -> None:
        # On a new line, whatever was printed before.
        replies.write(f"\n{token}{json.dumps([ticket, kind, what, remedy])}\n".encode())

    try:
        # Albumentations imports torch if it can, and works without it.
        sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
        from cifar_cli.config import AlbumentationsConfig
        from cifar_cli.data.augment.by_albumentations import AlbumentationsAugment

        layout = Layout(*setup["layout"])
        with open(setup["memory"], "r+b", closefd=True) as file:
            shared = map_arrays(mmap.mmap(file.fileno(), layout.size), layout)
        augment = AlbumentationsAugment(
            AlbumentationsConfig(**setup["augment"]), setup["fill"], setup["seed"], layout.side
        )
    except Exception as error:
        reply(READY, *_as_values(error))
        return
    reply(READY)
    for line in sys.stdin.buffer:
        ticket, epoch, first, last, slot = json.loads(line)
        rows = shared.order[first:last]
        try:
            shared.slots[slot, : last - first] = augment(
                shared.images[rows], shared.indices[rows], epoch
            )
        except Exception as error:
            reply(ticket, *_as_values(error))
        else:
            reply(ticket)


def _as_values(error: Exception) -> tuple[str, str, str]:
    """The name of an error's kind, empty for a fault of the program; what is wrong; the remedy."""
    if isinstance(error, CifarError):
        return type(error).__name__, error.what, error.remedy
    if isinstance(error, MemoryError):
        return "OutOfMemoryError", "A loader process has no memory left.", WITHOUT
    return "", f"{type(error).__name__}: {error}", ""
