"""One run directory: its paths, its small files read and written, its lock."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from cifar_cli.config import Config
from cifar_cli.config.checking import build_complete
from cifar_cli.config.migration import no_longer
from cifar_cli.config.strict_yaml import MAX_BYTES, parse_yaml
from cifar_cli.errors import CheckpointError, ConfigError, StorageError
from cifar_cli.locking import exclusive
from cifar_cli.rundir.reading import append_text, read_json_object, reason_of
from cifar_cli.rundir.records import (
    MAX_TABLE,
    EpochRecord,
    StepRecord,
    line_of,
    parse_table,
    table_text,
)
from cifar_cli.storage import (
    check_writable,
    read_regular,
    remove_temporary,
    storage_errors,
    write_json,
    write_text,
)

LOCK_SECONDS = 0.5  # whoever asks who trains here holds the lock for a moment
SCHEMA_VERSION = 1
WRITTEN = (
    "config.yaml", "env.json", "metrics.csv", "result.json", "skipped_images.csv", "status.json",
    "steps.csv",
)  # fmt: skip
CHECKPOINTS = ("last.pt", "previous.pt", "best.pt")
STATES = ("running", "completed", "interrupted", "failed")
Row = TypeVar("Row", EpochRecord, StepRecord)


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
    def is_run(self) -> bool:
        """Whether a run has begun here, as its status or a checkpoint shows.

        A `config.yaml` alone may be anybody's. The status is the first file of a run.
        """
        checkpoints = (self.last, self.last.with_name("previous.pt"))
        return self.noted_state in STATES or any(map(os.path.lexists, checkpoints))

    @property
    def is_empty(self) -> bool:
        """Whether no file lies here but what a process leaves that is killed at the very start."""
        for name, folders, files in os.walk(self.path):
            folder = Path(name)
            if folder == self.path and "checkpoints" in folders:
                files = [f for f in files if not fnmatch(f, ".status.json.*.tmp")]
            if files or any((folder / inner).is_symlink() for inner in folders):
                return False
        return True

    @property
    def noted_state(self) -> str:
        """The state that `status.json` names; empty if it names none."""
        return str(self.peek_json("status.json").get("state", ""))

    @property
    def is_running(self) -> bool:
        """Whether a process trains here now, which the lock shows, whatever the status says."""
        try:
            with self._lock(0):
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one process that trains here (POSIX; elsewhere nothing is locked).

        Raises:
            ConfigError: Another process trains in this folder.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self._lock(LOCK_SECONDS))
            except BlockingIOError:
                raise ConfigError(
                    f"Another process is training in {self.path}.",
                    "Wait for it, or choose another --name or --run-dir.",
                ) from None
            yield

    @contextmanager
    def _lock(self, seconds: float) -> Iterator[None]:
        if os.name != "posix":
            yield
            return
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        with exclusive(descriptor, seconds):
            yield

    def check_place(self) -> None:
        """Find out before training whether checkpoints can be written.

        Raises:
            StorageError: They cannot, or their folder is a link.
        """
        self.subfolder("checkpoints")
        check_writable(self.last.parent)

    def clear_away(self) -> None:
        """Remove what a killed process left half-written."""
        remove_temporary(self.path, WRITTEN)
        if not self.last.parent.is_symlink():  # which may lead to a folder with other writers
            remove_temporary(self.last.parent, CHECKPOINTS)

    def remove_result(self) -> None:
        """Remove the result of fewer epochs."""
        with storage_errors(self.result):
            self.result.unlink(missing_ok=True)

    def subfolder(self, name: str) -> Path:
        """A folder inside the run, to be written to; it may not be there yet.

        Raises:
            StorageError: It is a link, which in a run from elsewhere may lead to anything.
        """
        folder = self.path / name
        if folder.is_symlink():
            raise StorageError(f"{folder} is a link; nothing is written through it.", "Remove it.")
        return folder

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
        append_text(self.path / "events.jsonl", line + "\n", MAX_TABLE)

    def write_metrics(self, records: Sequence[EpochRecord]) -> None:
        """Write `metrics.csv` anew, each epoch once."""
        write_text(self.path / "metrics.csv", table_text(records, EpochRecord))

    def read_metrics(self) -> list[EpochRecord]:
        """Read `metrics.csv`; empty if no epoch has been finished.

        Raises:
            CheckpointError: It cannot be read, or a line of it is damaged.
        """
        return self._read_table("metrics.csv", EpochRecord)

    def append_steps(self, records: Sequence[StepRecord]) -> None:
        """Append to `steps.csv`, which `trim_steps` has looked at before."""
        path = self.path / "steps.csv"
        if os.path.lexists(path):
            append_text(path, "".join(map(line_of, records)), MAX_TABLE)
        else:
            write_text(path, table_text(records, StepRecord))

    def trim_steps(self, first: int) -> bool:
        """Keep of `steps.csv` the rows of the steps before `first`, which are not done again.

        Returns:
            Whether the file was damaged, and is now `damaged-steps.csv`.
        """
        path = self.path / "steps.csv"
        rows, is_damaged = list[StepRecord](), True
        try:
            table = parse_table(read_regular(path, MAX_TABLE), StepRecord)
            rows, is_damaged = table.rows, bool(table.damaged)
        except FileNotFoundError:
            return False
        except OSError:
            pass
        kept = {row.step: row for row in rows if row.step < first}
        if is_damaged:
            with storage_errors(path):
                path.replace(path.with_name("damaged-steps.csv"))
        # Always anew: what is appended to is then a file that this process may write.
        write_text(path, table_text((kept[step] for step in sorted(kept)), StepRecord))
        return is_damaged

    def read_steps(self) -> list[StepRecord]:
        """Read `steps.csv`; empty if there is none.

        Raises:
            CheckpointError: It cannot be read, or a line of it is damaged.
        """
        return self._read_table("steps.csv", StepRecord)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read `status.json`, `result.json` or `env.json`; empty if there is none.

        Raises:
            CheckpointError: It cannot be read, or is not a JSON object.
        """
        try:
            return read_json_object(self.path / name)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise _unreadable(self.path / name, reason_of(error)) from error

    def peek_json(self, name: str) -> dict[str, Any]:
        """Read what is not needed: empty also if it is damaged."""
        with suppress(CheckpointError):
            return self.read_json(name)
        return {}

    def read_config(self) -> Config:
        """Read `config.yaml`.

        Raises:
            CheckpointError: It cannot be read, or does not hold settings.
        """
        try:
            text = read_regular(self.config, MAX_BYTES).decode()
            tree = parse_yaml(text, "it is damaged")
            if not isinstance(tree, dict):
                raise ValueError("it holds no settings")
            config, dropped = build_complete(tree)
            if dropped:
                raise ConfigError("; ".join(no_longer(dropped)))
            return config
        except (OSError, ValueError) as error:
            raise _unreadable(self.config, reason_of(error)) from error
        except ConfigError as error:
            raise _unreadable(self.config, str(error).rstrip(".")) from error

    def _read_table(self, name: str, kind: type[Row]) -> list[Row]:
        path = self.path / name
        try:
            table = parse_table(read_regular(path, MAX_TABLE), kind)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(path, reason_of(error)) from error
        if table.damaged:
            raise _unreadable(path, f"the line {table.damaged[0]!r:.60} is damaged")
        return table.rows


def _unreadable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"Cannot read {path}: {reason}.")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
