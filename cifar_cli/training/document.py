"""What a checkpoint may hold: one schema, which the whole document is checked against when read.

The file may come from anywhere. Nothing of it is used that has not passed here; what depends on
the network that is resumed (names and shapes) is checked where it is put into it.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from torch import Tensor

from cifar_cli.errors import CheckpointError
from cifar_cli.rundir import EpochRecord
from cifar_cli.rundir.records import LARGEST

FORMAT = "cifar-resnet checkpoint"
VERSION = 2
MAX_CLASSES, MAX_TEXT, MAX_DEPTH = 100_000, 10_000, 8
MAX_EPOCHS = 100_001
MAX_SETTINGS = 1000
"""Values in a configuration, which has about a hundred."""
MAX_TENSORS = 10_000
# What can be copied into any tensor. torch has dozens more, most of which can only be stored.
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_WHOLE = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


def _plain_tensor(tensor: Tensor) -> Tensor:
    """A tensor whose numbers are all in the file."""
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise ValueError(f"it is a tensor of layout {tensor.layout}")
    if tensor.device.type != "cpu":
        raise ValueError(f"it is a tensor on the device {tensor.device.type}")
    if tensor.dtype not in _FLOATS | _WHOLE:
        raise ValueError(f"it is a tensor of {tensor.dtype}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError("it is a tensor that repeats its numbers")
    return tensor.detach()


def _numbers(tensor: Tensor) -> Tensor:
    """As float32, which is what training computes with."""
    if tensor.dtype not in _FLOATS:
        raise ValueError(f"it is a tensor of {tensor.dtype}, not of floating-point numbers")
    return tensor.float()


def _one_dimensional(tensor: Tensor) -> Tensor:
    if tensor.ndim != 1:
        raise ValueError(f"it is a tensor of {tensor.ndim} dimensions")
    return tensor


def _rng_state(tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.uint8:
        raise ValueError(f"it is a tensor of {tensor.dtype}, not of uint8")
    return tensor


def _cpu_rng_state(tensor: Tensor) -> Tensor:
    try:
        torch.Generator().set_state(tensor)
    except RuntimeError:
        raise ValueError("it is not the state of a random number generator") from None
    return tensor


def _name(value: object) -> str:
    """A text; also of bytes that are not UTF-8, as the name of a class folder may be."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"input should be a valid string of at most {MAX_TEXT:,} characters")
    return value


def _plain_values(tree: dict[str, Any]) -> dict[str, Any]:
    """Settings as YAML could hold them; what each may be, the configuration's schema knows."""
    waiting: list[tuple[Any, int]] = [(tree, 0)]
    seen = 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if isinstance(value, dict | list):
            if seen + len(waiting) + len(value) > MAX_SETTINGS:
                raise ValueError(f"it holds more than {MAX_SETTINGS:,} values")
            inner = value.values() if isinstance(value, dict) else value
            waiting += [(key, MAX_DEPTH) for key in value if isinstance(value, dict)]
            waiting += [(item, depth + 1) for item in inner]
        elif isinstance(value, str):
            if len(value) > MAX_TEXT:
                raise ValueError(f"a text of {len(value):,} characters is not a setting")
        elif isinstance(value, int):
            if abs(value) > 2**63:
                raise ValueError("the number is too large")
        elif not isinstance(value, float | None):
            raise ValueError(f"{type(value).__name__} is not a setting")
    return tree


def _at_most(count: int) -> BeforeValidator:
    """Refuse a larger dictionary before each of its entries is."""

    def check(value: object) -> object:
        if isinstance(value, dict) and len(value) > count:
            raise ValueError(f"it has {len(value):,} entries")
        return value

    return BeforeValidator(check)


PlainTensor = Annotated[Tensor, AfterValidator(_plain_tensor)]
Numbers = Annotated[PlainTensor, AfterValidator(_numbers)]
RngState = Annotated[PlainTensor, AfterValidator(_rng_state), AfterValidator(_one_dimensional)]
Name = Annotated[str, PlainValidator(_name)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Quantity = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    """Nothing is converted; entries of later versions of this program are left alone."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="ignore", arbitrary_types_allowed=True
    )


class Epoch(_Part):
    """An `EpochRecord`."""

    epoch: Count
    train_loss: Quantity
    train_accuracy: Fraction
    val_loss: Quantity
    val_accuracy: Fraction
    lr: Quantity
    seconds: Quantity
    train_seconds: Quantity

    @property
    def record(self) -> EpochRecord:
        return EpochRecord(**{f.name: getattr(self, f.name) for f in fields(EpochRecord)})


class Optimizer(_Part):
    """Of the optimiser's `state_dict`; its settings come from the configuration."""

    state: Annotated[
        dict[Count, Annotated[dict[Name, PlainTensor], _at_most(16)]], _at_most(MAX_TENSORS)
    ]
    """Averages by the parameter's number, in the order of the network's parameters."""

    @model_validator(mode="after")
    def _steps_are_counts(self) -> Optimizer:
        for number, values in self.state.items():
            step = values.get("step")
            if step is not None and not (step.numel() == 1 and 0 <= float(step) < 2**53):
                raise ValueError(f"the step of parameter {number} is not a count")
        return self


class Generators(_Part):
    """States of the random number generators."""

    cpu: Annotated[RngState, AfterValidator(_cpu_rng_state)]
    cuda: RngState | None = None

    @property
    def states(self) -> dict[str, Tensor]:
        """By device, as `runtime.restore_rng` takes them."""
        return {"cpu": self.cpu} | ({} if self.cuda is None else {"cuda": self.cuda})


class Training(_Part):
    """What only training needs."""

    optimizer: Optimizer
    epoch: Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
    """The epoch at hand, from 1."""
    step: Annotated[int, Field(ge=0, le=2**31)]
    """Steps done in it."""
    seconds: Quantity
    losses: Annotated[Numbers, AfterValidator(_one_dimensional)]
    correct: Count
    history: Annotated[list[Epoch], Field(max_length=MAX_EPOCHS, fail_fast=True)]
    rng: Generators
    new_head: bool = False
    """Whether the run started from a trained network's weights, all but the last layer's."""

    @model_validator(mode="after")
    def _fits_together(self) -> Training:
        if [record.epoch for record in self.history] != list(range(1, self.epoch)):
            raise ValueError(f"history does not hold the epochs before epoch {self.epoch}")
        if len(self.losses) != self.step:
            raise ValueError(f"losses has {len(self.losses)} numbers for {self.step} steps")
        return self


class Document(_Part):
    """The whole content of a checkpoint."""

    config: Annotated[dict[Name, Any], AfterValidator(_plain_values)]
    class_names: Annotated[list[Name], Field(min_length=1, max_length=MAX_CLASSES, fail_fast=True)]
    data: Name
    """Fingerprint of the images."""
    weights: Annotated[dict[Name, PlainTensor], Field(min_length=1), _at_most(MAX_TENSORS)]
    training: Training | None
    """None in a file of weights alone."""


def check_document(content: object, name: str) -> Document:
    """Check what `torch.load` gave for the file `name`.

    Raises:
        CheckpointError: It is of another program or of a newer version, or an entry is wrong, which
            is named.
    """
    if not isinstance(content, dict) or not _is(content.get("format"), FORMAT):
        raise CheckpointError(f"{name} is not a checkpoint of cifar-resnet.")
    version = content.get("version")
    if not _is(version, VERSION):
        found = version if isinstance(version, int) and abs(version) < 2**31 else "unknown"
        raise CheckpointError(
            f"{name} has version {found}; this program reads version {VERSION}.",
            "Use the version of cifar-resnet that wrote it, or the newest one.",
        )
    try:
        return Document.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        entry = ".".join(f"{part!s:.60}" for part in first["loc"]) or "the document"
        problem = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
        raise CheckpointError(
            f"{name} is not a sound checkpoint: {entry}: {problem[0].lower()}{problem[1:]}."
        ) from None


def _is(value: object, expected: str | int) -> bool:
    return type(value) is type(expected) and value == expected
