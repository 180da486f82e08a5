"""Entry point of ``cifar-resnet`` and ``python -m cifar_cli``."""

from __future__ import annotations

from cifar_cli.cli.guard import end_with, guarded
from cifar_cli.cli.stopping import leave_on_signals


def main(parent: int | None = None) -> None:
    """Run the command line and exit with the code that the contract names.

    Args:
        parent: Number of the process that this one is not to outlive, if there is one.
    """
    leave_on_signals()
    if parent is not None:
        end_with(parent)
    from cifar_cli.output.streams import open_closed_descriptors

    open_closed_descriptors()
    raise SystemExit(guarded(_run, lambda: _failed(MemoryError())))


def _run() -> int:
    from cifar_cli.output.streams import own_streams

    with own_streams():
        try:
            from cifar_cli.cli.app import run
        except Exception as error:  # a library of the command line itself is missing or damaged
            return _failed(error)
        return run()


def _failed(error: Exception) -> int:
    from cifar_cli.cli.failures import explain, fail

    return fail(*explain(error))


if __name__ == "__main__":
    main()
