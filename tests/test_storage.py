"""Files that are whole or not there."""

from __future__ import annotations

import csv
import errno
import multiprocessing
import os
import secrets
import signal
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_cli.errors import StorageError
from cifar_cli.storage import (
    atomic_file,
    check_place,
    is_replaceable,
    open_own,
    read_regular,
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
        with atomic_file(path) as file:
            file.write(b"half")
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

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", no_links)
        write_bytes(path, b"3", keep)
    assert (path.read_bytes(), keep.read_bytes()) == (b"3", b"2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "before"]


@pytest.mark.fault(98)
def test_only_temporary_files_are_cleared_away(tmp_path: Path) -> None:
    token = "0a" * 8
    ours = (f".last.pt.{token}.tmp", f".x-v2.npz.{token}.tmp")
    others = (
        ".hidden", ".vimrc.tmp", ".notes.txt.draft.tmp", "last.pt", "notes.tmp", "..tmp",
        ".thesis.2024.tmp", ".last.pt.77.tmp", f".last.pt.{token}", f".{token}.tmp",
        f".thesis.{token}.tmp", f".my last.pt.{token}.tmp", f".last.pt.{token.upper()}.tmp",
    )  # fmt: skip
    for name in (*ours, *others):
        (tmp_path / name).write_text("")
    folder, link = (tmp_path / f".last.pt.{digit * 16}.tmp" for digit in "12")
    folder.mkdir()
    link.symlink_to(tmp_path / "notes.tmp")
    patterns = ["last.pt", "*-v*.npz"]
    remove_temporary(tmp_path, patterns, older_than=3600)
    assert all((tmp_path / name).exists() for name in ours)
    remove_temporary(tmp_path, patterns)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, folder.name, link.name])


def test_what_a_killed_writer_leaves_is_found(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    name = "a name that takes nearly all of the bytes there are, ".ljust(240, "x")
    for path in (tmp_path / "last.pt", tmp_path / name):
        process = context.Process(target=_killed_while_writing, args=(str(path),))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert len(list(tmp_path.glob(f".{path.name[:50]}*.tmp"))) == 1
    remove_temporary(tmp_path, ["last.pt", name])
    assert list(tmp_path.iterdir()) == []


def _killed_while_writing(path: str) -> None:
    with atomic_file(Path(path)) as file:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.fault(61)
def test_a_planted_link_is_never_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "shared"
    folder.mkdir()
    # The name of a process, as it once was, and the very name, as if it could be foreseen.
    monkeypatch.setattr(secrets, "token_hex", lambda count: "00" * count)
    token = "00" * 8
    for name in ("a", "link", "fifo"):
        (folder / f".{name}.{os.getpid()}.tmp").symlink_to(victim)
    write_text(folder / "a", "new")
    assert (folder / "a").read_text() == "new"
    for kind in ("link", "fifo", "dangling"):
        planted = folder / f".{kind}.{token}.tmp"
        if kind == "fifo":
            os.mkfifo(planted)
        else:
            planted.symlink_to(victim if kind == "link" else tmp_path / "nowhere")
        with pytest.raises(StorageError, match="File exists"):
            write_text(folder / kind, "new")
        assert planted.is_symlink() or planted.is_fifo()  # not ours to remove
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()
    # A file that is a link is replaced itself.
    (folder / "b").symlink_to(victim)
    write_text(folder / "b", "new")
    assert not (folder / "b").is_symlink()
    assert victim.read_text() == "precious"


def test_a_file_has_the_permissions_that_open_would_give(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        for mask in (0o022, 0o077, 0o002):
            os.umask(mask)
            write_text(tmp_path / "ours", "")
            (tmp_path / "plain").unlink(missing_ok=True)
            (tmp_path / "plain").write_text("")
            modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain")]
            assert modes[0] == modes[1] == 0o666 & ~mask
    finally:
        os.umask(before)


@pytest.mark.fault(90)
def test_a_file_system_that_cannot_sync_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    for number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        write_text(tmp_path / "a", str(number))
        assert (tmp_path / "a").read_text() == str(number)
    number = errno.EIO
    with pytest.raises(StorageError, match="Input/output error"):
        write_text(tmp_path / "a", "lost")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.fault(66)
def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    """None of these may wait, or read more than the bound."""
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular(tmp_path / "file", 7) == read_regular(tmp_path / "link", 7) == b"content"
    with pytest.raises(OSError, match="it has 7 bytes, at most 6 are read"):
        read_regular(tmp_path / "file", 6)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "terminal").symlink_to("/dev/tty")
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(2**40)
    for name in ("fifo", "device", "terminal", "holes", "missing", "."):
        with pytest.raises(OSError):  # noqa: PT011 - each has its own
            read_regular(tmp_path / name, 10**6)
    if Path("/proc/kmsg").exists():  # a regular file that one waits at
        with suppress(PermissionError):
            assert read_regular(Path("/proc/kmsg"), 10**6) == b""


@pytest.mark.fault(61)
def test_a_file_of_our_own_is_never_opened_through_another_name(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "hard").hardlink_to(victim)
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "hard", "fifo", "."):
        for append in (False, True):
            with pytest.raises(OSError):  # noqa: PT011 - each has its own
                open_own(tmp_path / name, append=append)
        assert not is_replaceable(tmp_path / name) or name == "hard"
    assert victim.read_text() == "precious"
    for text, append in (("one", False), ("two", True), ("3", False)):
        with open_own(tmp_path / "part", append=append) as file:
            file.write(text.encode())
        expected = {"one": "one", "two": "onetwo", "3": "3"}[text]
        assert (tmp_path / "part").read_text() == expected
    assert is_replaceable(tmp_path / "part")
    assert is_replaceable(tmp_path / "free")


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
