"""The rows of `metrics.csv` and `steps.csv`, written and read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from typing import Generic, TypeVar

MAX_TABLE = 64 * 2**20
"""Bytes of the largest table that is read: about two million steps."""
# No loss, rate or time is larger: that is float32's largest number.
LARGEST = 3.5e38


@dataclass(frozen=True)
class EpochRecord:
    """One row of `metrics.csv`. Losses are means per image, accuracies are fractions."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    """Learning rate of the epoch's last step."""
    seconds: float
    """Wall-clock time of the epoch, training and validation."""
    train_seconds: float
    """Wall-clock time of its training alone."""


@dataclass(frozen=True)
class StepRecord:
    """One row of `steps.csv`; `train_loss` is the mean over the step's images."""

    step: int
    lr: float
    train_loss: float


Record = TypeVar("Record", EpochRecord, StepRecord)


@dataclass(frozen=True)
class Table(Generic[Record]):
    """What a file of rows held."""

    rows: list[Record]
    damaged: list[str]
    """Lines that are not rows of it, the header included."""


def table_text(records: Iterable[Record], kind: type[Record]) -> str:
    """A header and a line for each record."""
    return header_of(kind) + "".join(map(line_of, records))


def header_of(kind: type[EpochRecord] | type[StepRecord]) -> str:
    """The first line: the names of the columns."""
    return ",".join(f.name for f in fields(kind)) + "\n"


def line_of(record: EpochRecord | StepRecord) -> str:
    """The line of a record; nine digits are enough for every float32."""
    values = asdict(record).values()
    return ",".join(str(v) if isinstance(v, int) else f"{v:.9g}" for v in values) + "\n"


def parse_table(data: bytes, kind: type[Record]) -> Table[Record]:
    """Read what `table_text` wrote and others may have damaged; an empty file has no rows."""
    if not data:
        return Table([], [])
    header, *lines = data.decode(errors="replace").split("\n")
    names: list[str] = header_of(kind).strip().split(",")
    # After the end of the last line there is nothing; half a line is left by a killed process if
    # lines are appended, as steps are.
    if lines and (kind is StepRecord or not lines[-1]):
        lines.pop()
    rows: list[Record] = []
    damaged = [] if header.rstrip("\r").split(",") == names else [header]
    readers: list[Callable[[str], float]] = [_count, *map(_reader, names[1:])]
    for line in lines:
        try:
            cells = zip(readers, line.rstrip("\r").split(","), strict=True)
            rows.append(kind(*(read(cell) for read, cell in cells)))  # type: ignore[arg-type]
        except ValueError:
            damaged.append(line)
    return Table(rows, damaged)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise ValueError
    return int(text)


def _reader(name: str) -> Callable[[str], float]:
    return _fraction if name.endswith("accuracy") else _number


def _number(text: str) -> float:
    if len(text) > 40 or not abs(value := float(text)) <= LARGEST:  # which NaN is not either
        raise ValueError
    return value


def _fraction(text: str) -> float:
    if not 0 <= (value := _number(text)) <= 1:
        raise ValueError
    return value
