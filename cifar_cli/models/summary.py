"""The layer table of a network, counted by torchinfo.

One row is counted as the course project's table counts it. Its network hands the classifier a
vector without a batch dimension, and torchinfo then multiplies the classifier's 5,120 weights by
the ten outputs once more: 51,200 and 379.31 M in all, where 5,120 and 379.27 M are performed.
Both totals are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from cifar_cli.rng import kept_rng


@dataclass(frozen=True)
class LayerRow:
    """One row; None where a layer has no such value."""

    name: str
    """Type, name and position, such as `ConvBlock (prep): 1-1`."""
    depth: int
    kernel: list[int] | None
    input: list[int] | None
    output: list[int] | None
    params: int | None
    mult_adds: int | None


@dataclass(frozen=True)
class ModelSummary:
    """All rows, and the totals. Sizes in bytes, for a batch of one in float32."""

    rows: tuple[LayerRow, ...]
    total_params: int
    trainable_params: int
    total_mult_adds: int
    """As the course project's table counts them."""
    performed_mult_adds: int
    """Multiplications with an addition that one image really takes."""
    input_bytes: int
    activation_bytes: int
    """Outputs of all layers, forward and backward."""
    param_bytes: int


def summarise(model: nn.Module, image_size: int, depth: int = 3) -> ModelSummary:
    """Count a network's layers at one image of `image_size` pixels.

    Rows deeper than `depth` are added to the row above them. The model and the RNG state do
    not change.
    """
    import torchinfo

    was_training = model.training
    with kept_rng():
        statistics = torchinfo.summary(
            model,
            input_size=(1, 3, image_size, image_size),
            depth=depth,
            row_settings=("depth", "var_names"),
            device="cpu",
            verbose=0,
        )
    model.train(was_training)
    rows = tuple(_row(layer, depth) for layer in statistics.summary_list if layer.depth <= depth)
    return ModelSummary(
        rows=rows,
        total_params=statistics.total_params,
        trainable_params=statistics.trainable_params,
        total_mult_adds=sum(_mult_adds(e) for e in statistics.summary_list if e.is_leaf_layer),
        performed_mult_adds=statistics.total_mult_adds,
        input_bytes=statistics.total_input,
        activation_bytes=statistics.total_output_bytes,
        param_bytes=statistics.total_param_bytes,
    )


def _row(layer: Any, depth: int) -> LayerRow:
    counted = layer.is_leaf_layer or layer.depth == depth
    kernel = layer.kernel_size
    name = layer.class_name
    if layer.depth:
        name += f" ({layer.var_name}): {layer.depth}-{layer.depth_index}"
    return LayerRow(
        name=name,
        depth=layer.depth,
        kernel=None if kernel is None else [kernel] if isinstance(kernel, int) else list(kernel),
        input=list(layer.input_size) or None,
        output=list(layer.output_size) or None,
        params=layer.num_params if counted and layer.num_params else None,
        mult_adds=_mult_adds(layer) if counted and _mult_adds(layer) else None,
    )


def _mult_adds(layer: Any) -> int:
    if not layer.is_leaf_layer:
        return sum(_mult_adds(child) for child in layer.children if child.is_leaf_layer)
    if layer.class_name == "Linear":
        return int(layer.macs) * int(layer.output_size[-1])
    return int(layer.macs)
