"""A Python that starts in milliseconds: forks of a server that has imported torch already.

For tests whose point is what a command prints and leaves in a terminal, a pipe or a script, and not
how Python starts: variables that libraries read while they are imported have no effect here.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

from processes import new_process

CHILDREN_TOO = "FORK_CHILDREN_TOO"
"""A variable: what that process starts in its turn starts quickly, too. Loaders cannot."""
LAUNCHER = """#!{python} -SEs
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps([sys.argv, os.getppid(), os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
server.sendall(request)
for descriptor in (0, 1, 2):
    os.close(descriptor)  # or a reader would wait for this process, too
answer = server.recv(1)
os._exit(answer[0] if answer else 137)
"""


class ForkedPython:
    """The server, and two programs: `path`, called as Python is, and `command`, the installed one.

    Args:
        folder: Where both lie; its path must be short, as a socket lies beside them.
    """

    def __init__(self, folder: Path) -> None:
        address = str(folder / "s")
        self.path, self.command = folder / "python", folder / "cifar-resnet"
        for path in (self.path, self.command):
            path.write_text(LAUNCHER.format(python=sys.executable, address=address))
            path.chmod(0o700)
        self._server = new_process(_serve, address)
        while not Path(address).exists():
            assert self._server.exitcode is None
            time.sleep(0.01)

    def close(self) -> None:
        """End the server."""
        self._server.kill()
        self._server.join()


def _serve(address: str) -> None:
    """Fork a process for each request, until this one is killed."""
    multiprocessing.set_start_method(None, force=True)  # loaders start as they do for users
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}-")
    listener.listen(64)
    Path(f"{address}-").rename(address)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            code = 1
            with contextlib.suppress(BaseException):
                code = _answer(connection)
            with contextlib.suppress(OSError):
                connection.sendall(bytes([code & 255]))
            os._exit(code)
        connection.close()


def _answer(connection: socket.socket) -> int:
    """Become the process that was asked for; its exit code."""
    length, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as stream:
        argv, parent, folder, variables = json.loads(stream.read(int.from_bytes(length, "big")))
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.getppid = lambda: int(parent)
    if variables.pop(CHILDREN_TOO, None):
        sys.executable = str(Path(argv[0]).parent / "python")
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, encoding="utf-8", buffering=1, closefd=False)
        for number, mode in enumerate("rww")
    )
    try:
        _run(Path(argv[0]).name, argv[1:])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    else:
        code = 0
    for output in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            output.flush()
    return code


def _run(name: str, arguments: list[str]) -> None:
    import runpy

    if name == "cifar-resnet":
        arguments = ["-m", "cifar_cli", *arguments]
    while arguments[0] == "-P":
        del arguments[0]
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")
