"""Formats of exported networks: `FORMATS` has a row for each, with its writer and its reader."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cifar_cli import __version__
from cifar_cli.analysis.pixel_network import PixelNetwork
from cifar_cli.config.checking import complete_tree
from cifar_cli.errors import check_extra
from cifar_cli.storage import read_regular
from cifar_cli.training.checkpoint import Checkpoint, checkpoint_of
from cifar_cli.training.document import FORMAT, VERSION
from cifar_cli.training.exported import (
    MAX_BYTES,
    SAFETENSORS,
    SUFFIX,
    exported_errors,
    read_safetensors,
)

MAX_SIDE = 65_535
"""Longest side, in pixels, of an image that an exported graph takes."""
INPUT, OUTPUT = "images", "logits"
_METADATA = "metadata.json"
Metadata = Mapping[str, str]


@dataclass(frozen=True)
class ExportedFile(Checkpoint):
    """An exported file that has its own graph; `weights` are not read from it."""

    graph: nn.Module = field(default_factory=nn.Identity)
    """From pixels, uint8 (N, H, W, 3), to logits, float32 (N, C)."""


class ExportFormat(NamedTuple):
    """One format."""

    name: str
    suffix: str
    write: Callable[[PixelNetwork, Metadata], bytes]
    """Makes the file's content, from a network and texts about it."""
    read: Callable[[Path], Checkpoint]
    packages: tuple[str, ...] = ()
    """Modules that it needs beside torch."""
    extra: str = ""
    """Extra of this package that installs them."""
    has_graph: bool = True
    """Whether the file computes by itself, from pixels to logits."""

    def check_packages(self) -> None:
        """Find out whether its packages are installed.

        Raises:
            ConfigError: One is missing; the message names the extra.
        """
        check_extra(self.extra, self.packages, f"The format {self.name}")


def format_of(path: Path) -> ExportFormat | None:
    """The format whose suffix a file has; None: it is no exported file."""
    return next((row for row in FORMATS.values() if path.suffix.lower() == row.suffix), None)


def read_exported(path: Path) -> Checkpoint:
    """Read an exported file: an `ExportedFile` if it has a graph of its own.

    Raises:
        CheckpointError: It cannot be read, or is not of this program.
        ConfigError: The packages of its format are not installed.
    """
    row = format_of(path)
    assert row
    row.check_packages()
    with exported_errors(path, row.name), _quiet():
        return row.read(path)


def metadata_of(checkpoint: Checkpoint) -> dict[str, str]:
    """What an exported file says of itself, each as a text: plain, or JSON."""
    data = checkpoint.config.data
    mean, std = data.normalisation
    document = {
        "format": FORMAT,
        "version": VERSION,
        "config": complete_tree(checkpoint.config),
        "eval_size": checkpoint.eval_size,
        "class_names": list(checkpoint.class_names),
        "data": checkpoint.data,
        "training": None,
    }
    return {
        "producer": f"cifar-resnet {__version__}",
        "class_names": json.dumps(checkpoint.class_names),
        "image_size": str(data.image_size),
        "resize": data.resize,
        "mean": json.dumps(mean),
        "std": json.dumps(std),
        "cifar_resnet": json.dumps(document),
    }


def _export(network: PixelNetwork) -> torch.export.ExportedProgram:
    """The graph of a network, for any number and size of images."""
    sides = (torch.export.Dim(name, min=1, max=MAX_SIDE) for name in ("height", "width"))
    shapes = {0: torch.export.Dim("batch", min=1), **dict(enumerate(sides, start=1))}
    example = torch.zeros(2, 40, 48, 3, dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        return torch.export.export(network.eval(), (example,), dynamic_shapes=(shapes,))


def _write_torch(network: PixelNetwork, metadata: Metadata) -> bytes:
    buffer, texts = io.BytesIO(), json.dumps(dict(metadata))
    program = _export(network)
    with _quiet():
        torch.export.save(program, buffer, extra_files={_METADATA: texts})
    return buffer.getvalue()


def _read_torch(path: Path) -> Checkpoint:
    texts = {_METADATA: ""}
    program = torch.export.load(io.BytesIO(read_regular(path, MAX_BYTES)), extra_files=texts)
    return _with_graph(path, json.loads(texts[_METADATA]), program.module())


def _write_onnx(network: PixelNetwork, metadata: Metadata) -> bytes:
    program = _export(network)
    with _quiet():
        exported = torch.onnx.export(
            program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False
        )
        assert exported is not None
        exported.model.producer_name = "cifar-resnet"
        exported.model.metadata_props.update(metadata)
        content: bytes = exported.model_proto.SerializeToString()
    return content


def _read_onnx(path: Path) -> Checkpoint:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    content = read_regular(path, MAX_BYTES)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return _with_graph(path, session.get_modelmeta().custom_metadata_map, _OnnxGraph(session))


class _OnnxGraph(nn.Module):
    """A session of ONNX Runtime as a module."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session

    def forward(self, images: Tensor) -> Tensor:
        """Pixels, uint8 (N, H, W, 3), to logits, float32 (N, C)."""
        (logits,) = self.session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(logits)


def _write_safetensors(network: PixelNetwork, metadata: Metadata) -> bytes:
    from safetensors.torch import save

    weights = {name: t.contiguous() for name, t in network.network.state_dict().items()}
    content: bytes = save(weights, dict(metadata))
    return content


def _with_graph(path: Path, metadata: Metadata, graph: nn.Module) -> Checkpoint:
    # The schema wants weights, which are in the graph.
    document = json.loads(metadata["cifar_resnet"]) | {"weights": {"graph": torch.zeros(1)}}
    found = checkpoint_of(path, document, has_graph=True)
    return ExportedFile(
        path, found.config, found.class_names, {}, found.data, None, found.dropped, graph
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters print, log and warn of."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


_ROWS = (
    ExportFormat(
        "onnx", ".onnx", _write_onnx, _read_onnx, ("onnx", "onnxscript", "onnxruntime"), "onnx"
    ),
    ExportFormat("torch-export", ".pt2", _write_torch, _read_torch),
    ExportFormat(
        SAFETENSORS, SUFFIX, _write_safetensors, read_safetensors, (SAFETENSORS,), SAFETENSORS,
        has_graph=False,
    ),
)  # fmt: skip
FORMATS = {row.name: row for row in _ROWS}
"""By name. A new format is one row."""
