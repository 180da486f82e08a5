"""Names of result files, and what happens to files that are there already."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from cifar_cli.errors import ConfigError
from cifar_cli.storage import read_regular
from cifar_cli.text import MAKER

_MOST_BYTES = 64 * 2**20
_BUILT_IN = ("cifar10", "shapes")
_COLUMNS = frozenset({"index", "file", "true", "predicted", "confidence", "loss", "lr"})


def result_stem(
    *,
    split: str,
    checkpoint: str,
    tta: str = "none",
    data: str | None = None,
    own_data: str = "",
    limit: int | None = None,
) -> str:
    """What results are of, for the names of their files: `val_last`, `test_best_n500_flip`.

    Results of other images, fewer images or another checkpoint get another name.
    """
    parts = [split, checkpoint if checkpoint in ("last", "best") else _path_name(checkpoint, "pt")]
    if data is not None and data != own_data:
        parts.append(data if data in _BUILT_IN else _path_name(data))
    if limit is not None:
        parts.append(f"n{limit}")
    if tta != "none":
        parts.append(tta)
    return "_".join(parts)


def replacement_note(files: Sequence[Path], command: str, *, in_run: bool = False) -> list[str]:
    """Say which files of an earlier run of the command will be replaced.

    Args:
        files: What will be written.
        command: The command that writes them.
        in_run: Whether the folder belongs to a run, where all files are this program's.

    Raises:
        ConfigError: One is there that this program has not written.
    """
    there = [file for file in files if os.path.lexists(file)]
    for file in there:
        if not in_run and not is_own(file):
            raise ConfigError(
                f"{file} exists already, and cifar-resnet has not written it.",
                "Give another folder with --out, or remove the file.",
            )
    if not there:
        return []
    names = ", ".join(file.name for file in there)
    return [f"Replacing results of an earlier {command} in {there[0].parent}: {names}"]


def is_own(file: Path) -> bool:
    """Whether this program has written a figure, a report, a JSON document or a table."""
    try:
        data = read_regular(file, _MOST_BYTES)
    except OSError:
        return False
    if file.suffix == ".json":
        return b'"schema_version"' in data
    if file.suffix == ".csv":
        columns = set(data.partition(b"\n")[0].decode(errors="replace").strip().split(","))
        return len(columns & _COLUMNS) >= 2
    if file.suffix == ".html":
        return f'<meta name="generator" content="{MAKER} '.encode() in data
    return MAKER.encode() in data


def folder_name(text: str) -> str:
    """A text as the name of a folder."""
    return re.sub(r"[^\w.+=@-]+", "-", text).strip(".")[:60] or "run"


def _path_name(path: str, ending: str = "") -> str:
    """The last part of a path, and a few digits that differ for other paths of that name."""
    name = Path(path).name.removesuffix(f".{ending}")
    digits = sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:6]  # noqa: PTH100
    short = re.sub(r"[^\w.-]+", "-", name)[:30]
    return f"{short}-{digits}"
