"""Several workers of one sweep on this machine, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from cifar_cli.errors import CifarError, OutOfMemoryError
from cifar_cli.experiments.child import NO_MEMORY, own_command, signal_name, stop

POLL_SECONDS = 0.5


def run_workers(
    arguments: Sequence[str],
    count: int,
    variables: Mapping[str, str],
    poll: Callable[[], None],
) -> None:
    """Run a command in `count` processes until all have ended; they do not outlive this one.

    Args:
        arguments: Of the command; what it prints on stdout is thrown away.
        count: Number of processes.
        variables: Environment variables that they are given beside this process's own.
        poll: Called twice a second.

    Raises:
        CifarError: One failed, with its own exit code. The others were run to their end.
    """
    command = own_command(arguments)
    environment = {**os.environ, **variables}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(count)
    ]
    workers = list(running)
    try:
        while running:
            time.sleep(POLL_SECONDS)
            running = [process for process in running if process.poll() is None]
            poll()
    except BaseException:
        stop(*workers)
        raise
    codes = [process.returncode for process in workers]
    for code in codes:
        if code < 0 and signal_name(-code) in NO_MEMORY:
            raise OutOfMemoryError(
                f"{sum(c < 0 for c in codes)} of {count} workers were killed by "
                f"{signal_name(-code)}, as systems do for lack of memory.",
                "Run the command again with fewer --workers; nothing is lost.",
            )
        if code:
            error = CifarError(
                f"{sum(c != 0 for c in codes)} of {count} workers failed; see above.",
                "Run the command again; nothing is lost.",
            )
            error.exit_code = code if code > 0 else 128 - code
            raise error
