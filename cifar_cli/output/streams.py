"""Standard output and error as they may be: closed, full, of any encoding, or with nobody behind.

Results go to standard output: what cannot be written there is an error, unless nobody reads it.
Remarks and progress go to standard error, and never end a command.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from cifar_cli.errors import StorageError
from cifar_cli.text import NEAREST, printable

# The reader of a pipe has seen enough; the descriptor is closed; the terminal is gone.
_NOBODY_READS = (errno.EPIPE, errno.EBADF, errno.ECONNRESET, errno.ENXIO)


def open_closed_descriptors() -> None:
    """Open those of 0, 1 and 2 that are closed, so that no file gets their number."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


@contextmanager
def own_streams() -> Iterator[None]:
    """Replace `sys.stdout` and `sys.stderr` by a `Stream` each for the duration of a block."""
    before = sys.stdout, sys.stderr
    sys.stdout = Stream(before[0] or io.StringIO(), is_needed=True)
    sys.stderr = Stream(before[1] or io.StringIO(), is_needed=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _usable(encoding: str | None) -> str:
    """The encoding, or UTF-8 if it does not encode plain text with an error handler of ours."""
    try:
        codecs.getincrementalencoder(encoding or "utf-8")(NEAREST).encode("a.. b\u2713\n")
    except (LookupError, UnicodeError):
        return "utf-8"
    return encoding or "utf-8"


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print what Python and libraries warn of as one line each, without lines of their code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(printable(f"Warning: {' '.join(str(message).split())}"), file=sys.stderr)

    before = warnings.showwarning
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


class Stream(io.TextIOBase):
    """A text stream that writes the nearest ASCII for what its encoding lacks.

    If nobody reads it, what is written is discarded. Other errors raise a `StorageError` if
    the stream `is_needed`; else they are ignored, and the next line is tried again.
    """

    def __init__(self, inner: TextIO, is_needed: bool) -> None:
        self.inner, self.is_needed = inner, is_needed
        self.is_over = False
        self._encoding = _usable(getattr(inner, "encoding", None))
        self._encoder = codecs.getincrementalencoder(self._encoding)(NEAREST)
        self._descriptor: int | None = None
        if os.name == "posix":  # elsewhere the ends of lines differ
            with suppress(OSError, ValueError):
                inner.flush()
                self._descriptor = inner.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base has an attribute
        """Of the stream behind."""
        return self._encoding

    def isatty(self) -> bool:
        """Whether a terminal is behind."""
        return self.inner.isatty()

    def fileno(self) -> int:
        """The descriptor behind."""
        return self.inner.fileno()

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, text: str) -> int:
        """Write at once; there is no buffer.

        Raises:
            StorageError: The stream is needed and cannot be written, as on a full disk.
        """
        if not isinstance(text, str):
            raise TypeError(f"a text is needed, not {type(text).__name__}")
        if not self.is_over:
            try:
                self._write(self._encoder.encode(text))
            except OSError as error:
                self._failed(error)
        return len(text)

    def _write(self, data: bytes) -> None:
        if self._descriptor is None:
            self.inner.write(data.decode(self.encoding))
            self.inner.flush()
            return
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # other programs at the same terminal may have set it so
                select.select([], [self._descriptor], [], 1)

    def _failed(self, error: OSError) -> None:
        nobody = error.errno in _NOBODY_READS or (error.errno == errno.EIO and self.isatty())
        self.is_over = nobody or self.is_needed
        if self.is_needed and not nobody:
            raise StorageError(
                f"Cannot write the results to standard output: {error.strerror or error}.",
                "Free some space, or send them elsewhere.",
            ) from error
