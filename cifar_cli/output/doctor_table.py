"""The table of `cifar-resnet doctor`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from cifar_cli.doctor.checks import Check
from cifar_cli.output.console import styled


def doctor_table(checks: Sequence[Check]) -> Table:
    """One row a check: a tick, a cross, or a dot where something is only still to be done."""
    table = Table(title="Doctor", header_style="bold", show_lines=True)
    table.add_column("")
    table.add_column("Check", no_wrap=True)
    table.add_column("Found", overflow="fold")
    table.add_column("What to do", overflow="fold")
    for check in checks:
        tick = styled("•", "yellow") if check.remedy else styled("✓", "green")
        table.add_row(
            tick if check.ok else styled("✗", "red"), check.name, check.detail, check.remedy
        )
    return table
