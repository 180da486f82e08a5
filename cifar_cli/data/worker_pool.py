"""Loader processes that augment batches ahead of the network, started once for a run."""

from __future__ import annotations

import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from cifar_cli import errors
from cifar_cli.config import Config
from cifar_cli.data.shared_memory import SharedMemory
from cifar_cli.data.types import ImageSet
from cifar_cli.data.worker import READY, WITHOUT, Layout, map_arrays
from cifar_cli.errors import ConfigError, OutOfMemoryError
from cifar_cli.stops import STOPS

AHEAD = 2
"""Batches requested from each process in advance."""
PATIENCE_SECONDS = 300.0
"""After so long without a batch, a process counts as stuck."""
STOP_SECONDS = 5.0
"""The same after a stop was requested."""
# The module search path comes first: -P keeps files of the current folder from being taken for
# modules of the standard library.
_PROGRAM = """
import json, sys
try:
    setup = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = setup.pop("path")
    from cifar_cli.data.worker import main
except Exception as error:
    kind = "OutOfMemoryError" if isinstance(error, (OSError, MemoryError)) else "ConfigError"
    what = f"A loader process cannot load the program ({type(error).__name__}: {error})."
    reply = json.dumps([0, kind, what, "Try --set data.workers=0."])
    print(f"\\n{sys.argv[1]}{reply}", flush=True)
else:
    main(setup, sys.argv[1])
"""


class StoppedWaitingError(Exception):
    """A stop was requested, and the next batch did not come within seconds."""


class WorkerPool:
    """Processes that read a split's images from shared memory and fill shared batches.

    Args:
        images: The split; its pixels are copied into the shared memory once.
        config: Seed, batch size and augmentation, which has the form `albumentations`.
        workers: How many processes.

    Raises:
        OutOfMemoryError: The shared memory, or a process, cannot be had.
    """

    def __init__(self, images: ImageSet, config: Config, workers: int) -> None:
        count, side = images.images.shape[:2]
        # One slot more than requested in advance: the batch that is being read.
        slots = (AHEAD + 1) * workers
        layout = Layout(count, side, min(config.train.batch_size, count), slots)
        self.count, self.batch_size = count, layout.batch_size
        self.ticket = READY
        self.is_stopping: Callable[[], bool] = lambda: False
        """Whether a stop was asked for, after which no wait is a long one."""
        memory = SharedMemory(layout.size)
        self.shared = map_arrays(memory.map, layout)
        self.shared.images[:] = images.images.numpy()
        self.shared.indices[:] = images.indices.numpy()
        setup = {
            # Notebooks put a `Path` there; Python itself ignores all but strings.
            "path": [os.fspath(p) for p in sys.path if isinstance(p, str | os.PathLike)],
            "memory": memory.name,
            "layout": layout,
            "augment": config.augment.model_dump(mode="json"),
            "fill": config.data.mean_colour,
            "seed": config.seed,
        }
        self.workers: list[_Worker] = []
        # Also called if nobody closes the pool: when it is collected, and at the program's end.
        self.close = weakref.finalize(self, _end, self.workers, memory)
        try:
            with _stops_held_back():
                for _ in range(workers):
                    self.workers.append(_Worker(memory.descriptors))
            for worker in self.workers:
                worker.send(setup)
        except (OSError, RuntimeError, MemoryError) as error:  # no handle, process, thread, memory
            self.close()
            why = (isinstance(error, OSError) and error.strerror) or error or "no memory is left"
            raise OutOfMemoryError(
                f"A loader process cannot be started: {why}.", WITHOUT
            ) from error
        except BaseException:
            self.close()
            raise

    def wait_until_ready(self) -> None:
        """Wait until every process has loaded what it needs.

        Raises:
            CifarError: What kept one from it.
        """
        for worker in self.workers:
            worker.wait_until_ready(self.is_stopping)

    def batches(self, epoch: int, order: Tensor, first_step: int) -> Iterator[Tensor]:
        """Yield augmented batches, uint8 (B, H, W, 3), of the images at `order`, int64 (N,).

        Each is valid until the next one is asked for. An iteration may be left at any point.

        Raises:
            CifarError: An image cannot be augmented, or a process was killed or is stuck.
            StoppedWaitingError: A stop was asked for, and a batch does not come.
        """
        self.wait_until_ready()
        self.shared.order[:] = order.numpy()
        starts = range(first_step * self.batch_size, self.count, self.batch_size)
        first_ticket = self.ticket + 1
        self.ticket += len(starts)

        def ask(number: int) -> None:
            if number < len(starts):
                first = starts[number]
                last = min(first + self.batch_size, self.count)
                slot = number % len(self.shared.slots)
                self._worker(number).send((first_ticket + number, epoch, first, last, slot))

        for number in range(AHEAD * len(self.workers)):
            ask(number)
        for number, first in enumerate(starts):
            self._worker(number).wait_for(first_ticket + number, self.is_stopping)
            ask(number + AHEAD * len(self.workers))
            size = min(self.batch_size, self.count - first)
            yield torch.from_numpy(self.shared.slots[number % len(self.shared.slots), :size])

    def _worker(self, number: int) -> _Worker:
        return self.workers[number % len(self.workers)]


class _Worker:
    """One process, and the thread that reads its replies."""

    def __init__(self, descriptors: tuple[int, ...]) -> None:
        self.is_ready = False
        self.replies: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.token = secrets.token_hex(8)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, self.token],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=descriptors,
            # One thread per process: more would only wait for each other.
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            # Windows sends Ctrl-C to a whole group of processes; POSIX holds it back by a mask.
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        try:
            self.reader.start()
        except BaseException:
            self.end()
            raise

    def _read(self) -> None:
        assert self.process.stdout is not None
        with suppress(OSError, ValueError):  # closed at the end
            token = self.token.encode()
            for line in self.process.stdout:
                if line.startswith(token):
                    self.replies.put(line.removeprefix(token))
        self.replies.put(None)

    def wait_until_ready(self, is_stopping: Callable[[], bool]) -> None:
        if not self.is_ready:
            self.wait_for(READY, is_stopping)
            self.is_ready = True

    def wait_for(self, ticket: int, is_stopping: Callable[[], bool]) -> None:
        """Wait for the reply with that ticket, and skip older ones."""
        deadline, stop_seen = time.monotonic() + PATIENCE_SECONDS, False
        while True:
            if is_stopping() and not stop_seen:
                deadline, stop_seen = min(deadline, time.monotonic() + STOP_SECONDS), True
            left = deadline - time.monotonic()
            try:
                line = self.replies.get(timeout=max(0.0, min(left, STOP_SECONDS / 10)))
            except queue.Empty:
                if left > 0:
                    continue
                if stop_seen:
                    raise StoppedWaitingError from None
                raise OutOfMemoryError(
                    f"A loader process has given no batch for {PATIENCE_SECONDS:.0f} s.", WITHOUT
                ) from None
            if line is None:
                raise self._death()
            answered, kind, what, remedy = json.loads(line)
            if answered == ticket:
                break
        if kind:
            raise getattr(errors, kind)(what, remedy)
        if what:
            raise RuntimeError(f"In a loader process: {what}")

    def send(self, value: object) -> None:
        """Send the setup, or a request: ticket, epoch, first, last, slot."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(value).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise self._death() from None

    def _death(self) -> errors.CifarError:
        """The error for a process that has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        code = self.process.returncode
        if code is not None and code > 0:
            return ConfigError(f"A loader process ended with exit code {code}.", WITHOUT)
        return OutOfMemoryError(
            "A loader process was killed, as the system does where memory runs out "
            f"(signal {-(code or 0)}).",
            WITHOUT,
        )

    def end(self) -> None:
        """Kill the process, which holds nothing of value, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        if self.reader.ident is not None:  # it was started
            self.reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what was not sent yet need not be
                stream.close()  # type: ignore[union-attr]


def _end(workers: list[_Worker], memory: SharedMemory) -> None:
    for worker in workers:
        worker.end()
    memory.forget()


@contextmanager
def _stops_held_back() -> Iterator[None]:
    """On POSIX, start processes that ignore stop signals from the beginning.

    The main process answers a stop, and needs its loader until the current step is done.
    """
    if os.name != "posix":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
