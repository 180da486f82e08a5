"""The model card beside an exported file: what it is, how it is used, and what was measured."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_cli import __version__
from cifar_cli.text import printable

if TYPE_CHECKING:
    from cifar_cli.analysis.export import Export

MAX_CLASSES = 1000
_USE = {
    "onnx": """\
import json
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession({file})
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
pixels = np.asarray(Image.open("photo.jpg").convert("RGB"))[None]
(logits,) = session.run(["logits"], {{"images": pixels}})
print(names[logits[0].argmax()])""",
    "torch-export": """\
import json
import numpy as np
import torch
from PIL import Image

texts = {{"metadata.json": ""}}
network = torch.export.load({file}, extra_files=texts).module()
names = json.loads(json.loads(texts["metadata.json"])["class_names"])
pixels = torch.from_numpy(np.array(Image.open("photo.jpg").convert("RGB")))[None]
print(names[network(pixels)[0].argmax()])""",
    "safetensors": """\
from cifar_cli import load_model

print(load_model(checkpoint={file}).predict("photo.jpg").class_name)""",
}


def model_card(export: Export) -> str:
    """Markdown."""
    plan, evaluation = export.plan, export.evaluation
    config, predictions = plan.checkpoint.config, evaluation.predictions
    low, high = evaluation.interval
    size = config.data.image_size
    mean, std = config.data.normalisation
    names = [_safe(name) for name in plan.checkpoint.class_names]
    listed = ", ".join(names[:MAX_CLASSES]) + (", …" if len(names) > MAX_CLASSES else "")
    parameters = sum(p.numel() for p in predictions.trained.network.parameters())
    takes = (
        "RGB pixels, uint8, N x height x width x 3, of any number and size up to 65,535 pixels a "
        f"side. The graph resizes them to {size} x {size} (bicubic, `{config.data.resize}`) and "
        "normalises them."
        if plan.format.has_graph
        else f"Weights alone: normalised images, float32, N x 3 x {size} x {size}."
    )
    rows = {
        "file": f"{_safe(plan.file.name)}, {plan.format.name}, {export.size_bytes:,} bytes",
        "network": f"`{config.model.name}`, {parameters:,} parameters",
        "input": takes,
        "output": f"logits, float32, N x {len(names)}",
        "normalisation": f"mean {_numbers(mean)}, standard deviation {_numbers(std)}, of 0..1",
        "classes": listed,
        "trained on": f"{_safe(Path(config.data.source).name)}, {config.train.epochs} epochs, seed "
        f"{config.seed}",
    }
    figures = {
        "accuracy": f"{evaluation.accuracy:.2%} (95% interval {low:.2%} to {high:.2%}), "
        f"{evaluation.correct:,} of {evaluation.num_images:,}",
        "loss": f"{evaluation.loss:.4f}",
        "images that the network gives another class": f"{export.num_different:,} of "
        f"{export.num_images:,}",
        "largest difference of a probability": f"{export.max_difference:.2g}",
    }
    return f"""\
# {_safe(plan.file.stem)}

Exported by cifar-resnet {__version__}.

| | |
|---|---|
{_rows(rows)}

## Measured

On the {evaluation.num_images:,} validation images of {_safe(predictions.data)}, in single view.
They were resized as those of training. Computed on a CPU ({platform.machine()}) with
{_versions(plan.format.packages)}.

| | |
|---|---|
{_rows(figures)}

## Use

```python
{_USE[plan.format.name].format(file=json.dumps(plan.file.name))}
```

The file knows nothing of EXIF orientation and transparency: turn pictures upright and make them
RGB first. Pictures of other kinds than the training images get one of the classes too.
"""


def _rows(entries: dict[str, str]) -> str:
    return "\n".join(f"| {name} | {text} |" for name, text in entries.items())


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _versions(packages: tuple[str, ...]) -> str:
    found = []
    for name in ("torch", *packages):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(name)
    return ", ".join(found)


def _safe(text: str) -> str:
    """Text from elsewhere that is text in Markdown too."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in printable(text))
