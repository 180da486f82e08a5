"""Locks that the system takes back however a process ends (flock)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

# What a file system without such locks answers.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL)
_PAUSE_SECONDS = 0.05


@contextmanager
def exclusive(descriptor: int, seconds: float = 0.0) -> Iterator[bool]:
    """Lock an open file or folder, and close it afterwards.

    Args:
        descriptor: What is locked. It is closed whatever happens.
        seconds: How long to wait for another process that has the lock.

    Yields:
        Whether it is locked: False where the system or its file system has no locks.

    Raises:
        BlockingIOError: Another process has the lock.
    """
    try:
        yield _is_locked(descriptor, time.monotonic() + seconds)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int, deadline: float) -> bool:
    if os.name != "posix":
        return False
    import fcntl

    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return False
