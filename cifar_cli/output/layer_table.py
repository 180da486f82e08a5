"""The layer table of a network, with the rows and columns of torchinfo's."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from cifar_cli.models.summary import LayerRow, ModelSummary

COLUMNS = (
    "Layer (type:depth-idx)", "Kernel Shape", "Input Shape", "Output Shape", "Param #", "Mult-Adds",
)  # fmt: skip


def layer_table(summary: ModelSummary) -> Table:
    """One row a layer, indented by depth."""
    table = Table(header_style="bold", title=summary.rows[0].name)
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if number >= 4 else "left", no_wrap=True)
    for row in summary.rows:
        table.add_row(
            _indent(row),
            _shape(row.kernel),
            _shape(row.input),
            _shape(row.output),
            _count(row.params),
            _count(row.mult_adds),
        )
    return table


def layer_totals(summary: ModelSummary) -> str:
    """The lines under the table: counts, and sizes for a batch of one."""
    frozen = summary.total_params - summary.trainable_params
    total = summary.input_bytes + summary.activation_bytes + summary.param_bytes
    return "\n".join(
        [
            f"Total params: [bold]{summary.total_params:,}[/bold]",
            f"Trainable params: {summary.trainable_params:,}",
            f"Non-trainable params: {frozen:,}",
            f"Total mult-adds (M): [bold]{summary.total_mult_adds / 1e6:.2f}[/bold]"
            f"  (performed: {summary.performed_mult_adds / 1e6:.2f}; "
            "see doc/architecture.md, Counting)",
            f"Input size (MB): {summary.input_bytes / 1e6:.2f}",
            f"Forward/backward pass size (MB): {summary.activation_bytes / 1e6:.2f}",
            f"Params size (MB): {summary.param_bytes / 1e6:.2f}",
            f"Estimated Total Size (MB): {total / 1e6:.2f}",
        ]
    )


def _indent(row: LayerRow) -> str:
    return row.name if row.depth == 0 else "│  " * (row.depth - 1) + "├─ " + row.name


def _shape(values: Sequence[int] | None) -> str:
    if values is None:
        return "--"
    return str(values[0]) if len(values) == 1 else str(list(values)).replace("[", "\\[")


def _count(value: int | None) -> str:
    return "--" if value is None else f"{value:,}"
