"""Entry point of ``cifar-resnet`` and ``python -m cifar_cli``."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with the code that the contract names."""
    from cifar_cli.cli.app import run

    raise SystemExit(run())


if __name__ == "__main__":
    main()
