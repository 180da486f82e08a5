"""A parent process for the program if memory is limited, which reports how the program ended.

Compiled libraries end the whole process if they get no memory: with exit code 1, SIGABRT or
SIGSEGV. None of these can be caught. So if memory is limited, the program continues in
a child process, and the first process waits for it.
"""

from __future__ import annotations

import os
import signal

from cifar_cli.limits import memory_limit
from cifar_cli.stops import STOPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LIBRARIES_CODES = (1, 127)
_LIBRARIES_SIGNALS = [
    getattr(signal, name) for name in ("SIGABRT", "SIGSEGV", "SIGBUS") if hasattr(signal, name)
]


def guarded(program: Callable[[], int], report: Callable[[], int]) -> int:
    """Run the program and return its exit code; in a child process if memory is limited (Linux).

    Args:
        program: Returns the exit code, unless a library ends the process.
        report: Says that memory ran out, and returns the exit code of that.
    """
    if not _is_limited():
        return program()
    try:
        ours, theirs = os.pipe()
    except OSError:  # too few handles
        return program()
    heard = {*STOPS, signal.SIGCHLD}
    before, parent = signal.pthread_sigmask(signal.SIG_BLOCK, heard), os.getpid()
    try:
        child = os.fork()
    except OSError:  # too few processes
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return program()
    if not child:
        os.close(ours)
        end_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        code = program()
        os.write(theirs, b"x")  # which a library does not
        return code
    os.close(theirs)
    code = _exit_code(child, heard)
    if not os.read(ours, 1) and (code in _LIBRARIES_CODES or -code in _LIBRARIES_SIGNALS):
        return report()
    return code if code >= 0 else 128 - code


def _exit_code(child: int, heard: set[signal.Signals]) -> int:
    """That of a child, to which signals are passed on; the negative number of one that ended it."""
    while True:
        received = signal.sigwaitinfo(heard)
        if received.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
        elif received.si_code <= 0:  # from a process: what a terminal sends goes to both
            os.kill(child, received.si_signo)


def end_with(parent: int) -> None:
    """Have SIGTERM sent to this process when its parent, of that number, ends (Linux)."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG
    except (AttributeError, ImportError, OSError):
        return
    if os.getppid() != parent:  # it has ended already
        signal.raise_signal(signal.SIGTERM)


def _is_limited() -> bool:
    # A thread's stack may be too large for the machine as well.
    is_limited = memory_limit() is not None or "OMP_STACKSIZE" in os.environ
    return is_limited and hasattr(signal, "sigwaitinfo")
