"""Memory that is shared with child processes."""

from __future__ import annotations

import mmap
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from cifar_cli.data.worker import WITHOUT
from cifar_cli.errors import OutOfMemoryError, StorageError


class SharedMemory:
    """Bytes that a child process can map too, by `name`, for `open`.

    On Linux the memory has no file name. So it needs neither a temporary folder nor /dev/shm, which
    is small in containers.

    Args:
        size: In bytes.

    Raises:
        OutOfMemoryError, StorageError: It cannot be had.
    """

    def __init__(self, size: int) -> None:
        self.path: Path | None = None
        try:
            if hasattr(os, "memfd_create"):
                self.descriptor = os.memfd_create("cifar-resnet-images")
                # Raises an error now, instead of a signal at the first write.
                os.posix_fallocate(self.descriptor, 0, size)
            else:
                self.descriptor, path = tempfile.mkstemp(prefix="cifar-resnet-images-")
                self.path = Path(path)
                os.truncate(self.descriptor, size)
            self.map = mmap.mmap(self.descriptor, size)
        except (OSError, ValueError) as error:
            self.forget()
            kind = StorageError if self.path else OutOfMemoryError
            raise kind(
                f"Loader processes need {size / 10**6:,.0f} MB to share images: {error}.", WITHOUT
            ) from error

    @property
    def name(self) -> int | str:
        return str(self.path) if self.path else self.descriptor

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a child process has to inherit."""
        return () if self.path else (self.descriptor,)

    def forget(self) -> None:
        """Remove the name; the memory is freed with the last array on it."""
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)
        if self.path:
            with suppress(OSError):
                self.path.unlink()
