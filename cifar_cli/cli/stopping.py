"""Ctrl-C, SIGTERM and a closed terminal: an exit code of 128 + signal at any moment.

The handler raises KeyboardInterrupt, so that files are closed and half-written ones removed. Four
places would turn that into something else, and are dealt with here: an import, whose library may
catch it and report itself as missing; a callback of the interpreter, which prints and forgets it;
a library that swallows it; and one that waits outside Python and never sees it.

This is loaded before everything else, and imports next to nothing.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import time

from cifar_cli.stops import STOPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

GRACE_SECONDS = 10.0
"""So long may a command take to clean up after a signal, or after a second one."""
STEP_SECONDS = 120.0
"""So long may training take, which listens itself, for the step at hand and to save."""


def leave(number: int, _: object = None) -> None:
    """End the process at once, with one line and the exit code of a signal."""
    try:
        # Bars hide the cursor.
        cursor = b"\x1b[?25h" if os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb" else b""
        if is_writable(2):
            os.write(2, cursor + b"Interrupted.\n")
    except (OSError, ValueError):
        pass
    os._exit(128 + number)


def is_writable(descriptor: int) -> bool:
    """Whether a write would not wait, as for the reader of a full pipe or a paused terminal."""
    return os.name != "posix" or bool(select.select([], [descriptor], [], 0)[1])


def leave_on_signals() -> None:
    """For as long as there is nothing to clean up: before a command and after it."""
    for number in STOPS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` and `&` set it
            signal.signal(number, leave)
    if hasattr(signal, "SIGCHLD"):  # ignored by some that start programs: no child could be awaited
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    atexit.register(_ignore_signals)  # the first to be registered is called last


def _ignore_signals() -> None:
    """Python gives up its handlers a moment before the process ends with its exit code."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


class Stopping:
    """A block of code that ends on a signal; `number` is the one that came, if any did.

    Signals that are ignored stay ignored. Outside the main thread nothing is done, since Python
    takes signals only there.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.raises = False
        """Whether a signal raises, so that a command can clean up; else it ends the process."""
        self._is_over = False
        self._before: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._wakeup = -1
        self._hook = sys.unraisablehook

    def __enter__(self) -> Stopping:
        try:
            for number in STOPS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        except ValueError:  # not the main thread
            return self
        sys.unraisablehook = self._unraisable
        if os.name == "posix":
            self._watch()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        if self._pipe:
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._pipe[1])  # which ends the thread
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            sys.unraisablehook = self._hook

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None or not self.raises or _is_importing(frame):
            leave(number)
        self.number = number
        raise KeyboardInterrupt

    def _unraisable(self, unraisable: Any) -> None:
        if self.number is not None and isinstance(unraisable.exc_value, KeyboardInterrupt):
            leave(self.number)
        self._hook(unraisable)

    def _watch(self) -> None:
        """End the process even if the main thread does not come to answer a signal."""
        import threading

        try:
            ours, theirs = self._pipe = os.pipe()
        except OSError:  # no more files may be opened
            return
        os.set_blocking(theirs, False)
        self._wakeup = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        try:
            threading.Thread(target=self._wait_for_signals, args=(ours,), daemon=True).start()
        except RuntimeError:  # no more threads may be started
            os.close(ours)

    def _wait_for_signals(self, pipe: int) -> None:
        number, deadline = 0, None
        while not self._is_over:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([pipe], [], [], left)[0]:
                leave(number)
            received = os.read(pipe, 1)
            if not received:
                break
            if received[0] in self._before:
                is_first, number = deadline is None, received[0]
                is_training = signal.getsignal(number) != self._handle
                seconds = STEP_SECONDS if is_first and is_training else GRACE_SECONDS
                until = time.monotonic() + seconds
                deadline = until if deadline is None else min(deadline, until)
        os.close(pipe)


def _is_importing(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
