"""The run directory: its paths and its small files.

Knows nothing of torch, so that plots and listings stay light.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cifar_cli.errors import CheckpointError, ConfigError, nearest_hint
from cifar_cli.storage import remove_temporary, storage_errors, write_json, write_text

RUNS = Path("runs")
# What a file system without locks on folders answers.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL)
SCHEMA_VERSION = 1


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


@dataclass(frozen=True)
class RunDir:
    """Paths of one run, and its small files read and written."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def config(self) -> Path:
        """The fully resolved configuration."""
        return self.path / "config.yaml"

    @property
    def last(self) -> Path:
        """Checkpoint of the newest state."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """Checkpoint of the epoch with the highest validation accuracy."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def result(self) -> Path:
        """Figures of a finished run; there only then."""
        return self.path / "result.json"

    @property
    def started(self) -> bool:
        """Whether training has begun here; the first checkpoint may not be written yet."""
        return self.config.is_file()

    @property
    def begun(self) -> bool:
        """Whether there is anything of a run here: a configuration or a checkpoint."""
        return self.started or any(self.last.parent.glob("*.pt"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one process that trains here (POSIX; elsewhere nothing is locked).

        The system releases the lock however the process ends.

        Raises:
            ConfigError: Another process trains in this folder.
        """
        if os.name != "posix":
            yield
            return
        import fcntl

        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"Another process is training in {self.path}. Wait for it, or choose another "
                    "--name or --run-dir."
                ) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
            yield
        finally:
            os.close(descriptor)

    def clear_away(self) -> None:
        """Before training goes on: what a killed process left half-written, what is damaged, and
        the result of fewer epochs."""
        for folder in (self.path, self.last.parent):
            remove_temporary(folder)
        with storage_errors(self.result):
            self.result.unlink(missing_ok=True)

    @property
    def plots(self) -> Path:
        """Folder of the curves."""
        return self.path / "plots"

    def write_env(self, env: dict[str, Any]) -> None:
        """Write `env.json`: versions and hardware."""
        write_json(self.path / "env.json", env)

    def write_result(self, result: dict[str, Any]) -> None:
        """Write `result.json`: the figures of a finished run."""
        write_json(self.result, {"schema_version": SCHEMA_VERSION, **result})

    def write_status(self, state: str, **details: Any) -> None:
        """Write `status.json`; `state` is running, completed, interrupted or failed."""
        status = {"schema_version": SCHEMA_VERSION, "state": state, "updated": _now(), **details}
        write_json(self.path / "status.json", status)

    def log(self, event: str, **details: Any) -> None:
        """Append one line to `events.jsonl`."""
        line = json.dumps({"time": _now(), "event": event, **details})
        with storage_errors(self.path / "events.jsonl") as path, path.open("a") as file:
            file.write(line + "\n")

    def write_metrics(self, records: Sequence[EpochRecord]) -> None:
        """Write `metrics.csv` anew, each epoch once."""
        rows = [[f.name for f in fields(EpochRecord)]]
        rows += [[_number(value) for value in asdict(record).values()] for record in records]
        write_text(self.path / "metrics.csv", "".join(",".join(row) + "\n" for row in rows))

    def read_metrics(self) -> list[EpochRecord]:
        """Read `metrics.csv`; empty where no epoch has been finished."""
        rows = _read_rows(self.path / "metrics.csv", EpochRecord)
        return [EpochRecord(int(row[0]), *row[1:]) for row in rows]

    def append_steps(self, records: Sequence[StepRecord]) -> None:
        """Append to `steps.csv`; rows of the same steps from an earlier attempt are dropped."""
        if not records:
            return
        path = self.path / "steps.csv"
        kept = [r for r in self.read_steps() if r.step < records[0].step]
        known = len(kept)
        with storage_errors(path):
            exists = path.is_file()
            if exists and known == _count_rows(path):
                with path.open("a") as file:
                    file.writelines(_step_line(r) for r in records)
                return
        header = ",".join(f.name for f in fields(StepRecord)) + "\n"
        write_text(path, header + "".join(_step_line(r) for r in [*kept, *records]))

    def read_steps(self) -> list[StepRecord]:
        """Read `steps.csv`; empty where there is none."""
        rows = _read_rows(self.path / "steps.csv", StepRecord)
        return [StepRecord(int(row[0]), *row[1:]) for row in rows]

    def read_json(self, name: str) -> dict[str, Any]:
        """Read `status.json`, `result.json` or `env.json`; empty where there is none."""
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CheckpointError(f"Cannot read {self.path / name}: {error}.") from error
        return value if isinstance(value, dict) else {}


def create_run(path: Path) -> RunDir:
    """Make a new run directory; where the name is taken, `-2`, `-3` … is added.

    A folder without files does not count: a run that was killed at once leaves such a one.

    Raises:
        ConfigError: The path is the root of the file system.
        StorageError: The folder cannot be made.
    """
    if path.name in ("", ".."):
        path = path.resolve()
    if not path.name:
        raise ConfigError(f"--run-dir {path}: the root of the file system cannot be a run.")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        candidate, number = path, 1
        while True:
            try:
                candidate.mkdir()
            except FileExistsError:
                if candidate.is_dir() and not any(p.is_file() for p in candidate.rglob("*")):
                    break
                number += 1
                candidate = path.with_name(f"{path.name}-{number}")
                continue
            break
        (candidate / "checkpoints").mkdir(exist_ok=True)
    return RunDir(candidate)


def run_path(name: str) -> Path:
    """The folder of a run's name, `runs/<name>`.

    Raises:
        ConfigError: The name cannot be the name of a folder.
    """
    if not re.fullmatch(r"[\w.+=-]{1,100}", name) or name.strip(".") == "":
        raise ConfigError(f"--name {name!r}: use letters, digits, and . _ - + = only.")
    return RUNS / name


def known_runs() -> list[Path]:
    """The runs under `runs/`, the newest last."""
    return sorted(
        (p for p in (RUNS.iterdir() if RUNS.is_dir() else ()) if (p / "config.yaml").is_file()),
        key=lambda p: ((p / "config.yaml").stat().st_mtime_ns, p.name),
    )


def find_run(run: str | os.PathLike[str] | None = None) -> RunDir:
    """Find a run by directory or by its name under `runs/`; None finds the newest.

    Raises:
        CheckpointError: There is no such run.
    """
    known = known_runs()
    if run is None:
        if not known:
            raise CheckpointError(
                "No run under runs/ yet. Train one first: cifar-resnet train --recipe demo"
            )
        return RunDir(known[-1])
    for candidate in (Path(run), RUNS / run):
        if (candidate / "config.yaml").is_file():
            return RunDir(candidate)
    names = [p.name for p in known]
    listed = f" Runs here: {', '.join(names[-8:])}." if names else " There are no runs here."
    raise CheckpointError(
        f"No run {os.fspath(run)!r}{nearest_hint(os.fspath(run), names)}: neither a run directory "
        f"nor a name under runs/.{listed}"
    )


def _read_rows(path: Path, kind: type[EpochRecord] | type[StepRecord]) -> list[list[float]]:
    names = [f.name for f in fields(kind)]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [names]
        if header != names:
            raise ValueError(f"its columns are {header}")
        if kind is StepRecord and rows and not _is_numbers(rows[-1], len(names)):
            rows.pop()  # a killed process may leave half a line where lines are appended
        if cut := [row for row in rows if len(row) != len(names)]:
            raise ValueError(f"the line {','.join(cut[0])!r} has other than {len(names)} cells")
        return [[float(cell) for cell in row] for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise CheckpointError(f"Cannot read {path}: {error}.") from error


def _is_numbers(row: list[str], count: int) -> bool:
    with suppress(ValueError):
        return len([float(cell) for cell in row]) == count
    return False


def _count_rows(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file) - 1


def _step_line(record: StepRecord) -> str:
    return ",".join(_number(value) for value in asdict(record).values()) + "\n"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.9g}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
