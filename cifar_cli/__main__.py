"""Entry point of ``cifar-resnet`` and ``python -m cifar_cli``."""

from __future__ import annotations

from cifar_cli.cli.stopping import leave_on_signals


def main() -> None:
    """Run the command line and exit with the code that the contract names."""
    leave_on_signals()
    from cifar_cli.output.streams import open_closed_descriptors, own_streams

    open_closed_descriptors()
    with own_streams():
        try:
            from cifar_cli.cli.app import run
        except Exception as error:  # a library of the command line itself is missing or damaged
            from cifar_cli.cli.failures import explain, fail

            code = fail(*explain(error))
        else:
            code = run()
    raise SystemExit(code)


if __name__ == "__main__":
    import sys

    # `python -m` looks for modules in the working folder first, whatever lies there.
    if sys.path[0] != __file__.rpartition("/cifar_cli/")[0]:
        del sys.path[0]
    main()
