"""The layer table of a network, with the rows and columns of torchinfo's."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import HEAVY_HEAD, SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from cifar_cli.models.summary import LayerRow, ModelSummary
from cifar_cli.output.console import styled

COLUMNS = (
    "Layer (type:depth-idx)", "Kernel Shape", "Input Shape", "Output Shape", "Param #", "Mult-Adds",
)  # fmt: skip
COMPACT_COLUMNS = ("Layer (type:depth-idx)", "Kernel", "Input", "Output", "Param #", "Mult-Adds")
COMPACT_BELOW = 117


def layer_table(summary: ModelSummary, width: int) -> Table:
    """One row per layer, indented by depth; on less than 117 columns in a shorter notation.

    The shorter one leaves out the batch dimension, which is 1, and writes shapes as 64×32×32.
    """
    compact = width < COMPACT_BELOW
    table = Table(
        title=summary.rows[0].name,
        header_style="bold",
        box=SIMPLE_HEAD if compact else HEAVY_HEAD,
        padding=0 if compact else (0, 1),
        pad_edge=not compact,
        show_edge=not compact,
    )
    for number, column in enumerate(COMPACT_COLUMNS if compact else COLUMNS):
        table.add_column(column, justify="right" if number >= 4 else "left", no_wrap=True)
    for row in summary.rows:
        shapes = (row.kernel, (row.input or [])[compact:], (row.output or [])[compact:])
        table.add_row(
            _indent(row, "  " if compact else "│  ", "" if compact else "├─ "),
            *(_times(s) if compact else _shape(s) for s in shapes),
            _count(row.params),
            _count(row.mult_adds),
        )
    return table


def layer_totals(summary: ModelSummary) -> Text:
    """The lines under the table: counts, and sizes for a batch of one."""
    frozen = summary.total_params - summary.trainable_params
    total = summary.input_bytes + summary.activation_bytes + summary.param_bytes
    return Text.assemble(
        "Total params: ",
        styled(f"{summary.total_params:,}"),
        f"\nTrainable params: {summary.trainable_params:,}\n"
        f"Non-trainable params: {frozen:,}\n"
        "Total mult-adds (M): ",
        styled(f"{summary.total_mult_adds / 1e6:.2f}"),
        f"\nPerformed mult-adds (M): {summary.performed_mult_adds / 1e6:.2f} "
        "(the last layer counted once)\n"
        f"Input size (MB): {summary.input_bytes / 1e6:.2f}\n"
        f"Forward/backward pass size (MB): {summary.activation_bytes / 1e6:.2f}\n"
        f"Params size (MB): {summary.param_bytes / 1e6:.2f}\n"
        f"Estimated Total Size (MB): {total / 1e6:.2f}",
    )


def _indent(row: LayerRow, step: str, branch: str) -> str:
    return row.name if row.depth == 0 else step * (row.depth - 1) + branch + row.name


def _shape(values: Sequence[int] | None) -> str:
    if not values:
        return "--"
    return str(values[0]) if len(values) == 1 else str(list(values))


def _times(values: Sequence[int] | None) -> str:
    return "×".join(map(str, values)) if values else "--"


def _count(value: int | None) -> str:
    return "--" if value is None else f"{value:,}"
