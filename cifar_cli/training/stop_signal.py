"""Signals that ask training to stop after the step at hand."""

from __future__ import annotations

import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cifar_cli.stops import STOPS


class StopSignal:
    """Notes SIGINT, SIGTERM and SIGHUP, so that the loop can end after the step at hand.

    A second SIGINT interrupts at once.
    """

    def __init__(self, notify: Callable[[], None] = lambda: None) -> None:
        self.number: int | None = None
        self.notify = notify

    def __call__(self) -> bool:
        return self.number is not None

    @contextmanager
    def listening(self) -> Iterator[StopSignal]:
        """Install the handlers for the duration of a block (main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        # One that the process was started to ignore, as SIGHUP is by nohup, stays ignored.
        heard = [number for number in STOPS if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in heard}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: Any) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        if _is_read(sys.stderr):  # else the handler would wait, and nothing more be heard
            self.notify()


def _is_read(stream: Any) -> bool:
    """Whether what is printed to a stream would not wait for a reader."""
    with suppress(AttributeError, OSError, ValueError):
        return bool(select.select([], [stream], [], 0)[1])
    return True
