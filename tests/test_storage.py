"""Files that are whole or not there."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_cli.errors import StorageError
from cifar_cli.storage import (
    atomic_file,
    check_place,
    remove_temporary,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail_halfway() -> None:
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Cannot write .*below.txt \(1 bytes\)"):
        write_text(tmp_path / "file" / "below.txt", "x")
    with pytest.raises(StorageError, match="is not a folder"):
        check_place(tmp_path / "file" / "run" / "deep")
    check_place(tmp_path / "not" / "yet" / "there")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_is_replaced_is_kept_also_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, keep = tmp_path / "a", tmp_path / "before"
    write_bytes(path, b"1", keep)
    write_bytes(path, b"2", keep)
    assert (path.read_bytes(), keep.read_bytes()) == (b"2", b"1")

    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    write_bytes(path, b"3", keep)
    assert (path.read_bytes(), keep.read_bytes()) == (b"3", b"2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "before"]


def test_only_temporary_files_are_cleared_away(tmp_path: Path) -> None:
    for name in (".last.pt.77.tmp", "last.pt", ".hidden", "notes.tmp"):
        (tmp_path / name).write_text("")
    remove_temporary(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "last.pt", "notes.tmp"]


@given(st.lists(st.tuples(st.text(), st.integers()), max_size=5))
def test_csv_carries_any_text(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    rows = [(text.encode("utf-8", "ignore").decode(), n) for text, n in rows]
    write_csv(path, ["name", "n"], [{"name": text, "n": n, "more": 1} for text, n in rows])
    with path.open(newline="", encoding="utf-8") as file:
        back = [(row["name"], int(row["n"])) for row in csv.DictReader(file)]
    assert back == rows
