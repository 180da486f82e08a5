"""Archives and tables that are damaged, or made to do harm."""

from __future__ import annotations

import io
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_FLAGS, Answer, tree
from PIL import Image

from cifar_cli.config import DataConfig
from cifar_cli.data.sources import archive as archives
from cifar_cli.data.sources.load import load_dataset
from cifar_cli.errors import DataError

Cli = Callable[..., Answer]


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


GOOD = {f"{label}/{n}.png": picture(10 * k + n) for k, label in enumerate("ab") for n in range(5)}


def write_zip(path: Path, **more: tuple[bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in GOOD.items():
            archive.writestr(name, data)
        for name, (data, mode) in more.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return path


def write_tar(path: Path, *more: tuple[str, bytes, str]) -> Path:
    """Members of `more`: name, type, and content or, for a link, its target."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in GOOD.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, kind, content in more:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
            member.linkname = content
            archive.addfile(member, io.BytesIO(content.encode()))
    return path


def load(path: Path) -> list[str]:
    dataset = load_dataset(DataConfig(source=str(path)))
    assert dataset.class_names == ("a", "b")
    assert dataset.files["train"] == tuple(GOOD)
    return list(dataset.notes)


OUTSIDE = ("../a/x.png", "/a/x.png", "a/../../x.png", "C:/a/x.png", "C:\\a\\x.png")


@pytest.mark.fault(99)
def test_links_devices_and_ways_out_are_ignored_and_counted(in_tmp: Path) -> None:
    names = dict.fromkeys(OUTSIDE, (b"!", 0o100644))
    write_zip(Path("x.zip"), **names, **{"a/link.png": (b"/etc/passwd", 0o120777)})
    assert load(Path("x.zip"))[1] == "Skipped 6 files that are not images: link.png, x.png."
    members = [(name, tarfile.REGTYPE, "!") for name in OUTSIDE[:4]]
    kinds = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE,
             "device": tarfile.CHRTYPE}  # fmt: skip
    members += [(f"a/{name}.png", kind, "/etc/passwd") for name, kind in kinds.items()]
    write_tar(Path("x.tgz"), *members)
    assert load(Path("x.tgz"))[1] == (
        "Skipped 8 files that are not images: device.png, fifo.png, hard.png, link.png, x.png."
    )
    assert tree(in_tmp) == ["x.tgz", "x.zip"]


def bomb(path: Path) -> Path:
    """Half a gigabyte of zeros in half a megabyte."""
    zeros = bytes(2**26)
    if path.suffix == ".zip":
        return write_zip(path, **{f"a/{n}.bmp": (zeros, 0o100644) for n in range(8)})
    with tarfile.open(path, "w:xz", preset=0) as archive:
        for n in range(8):
            member = tarfile.TarInfo(f"a/{n}.bmp" if n else "a/notes.txt")
            member.size = len(zeros)
            archive.addfile(member, io.BytesIO(zeros))
    return path


def long_header(path: Path) -> Path:
    """A tar whose extended header says that it has gigabytes."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**32
    path.write_bytes(header.tobuf() + bytes(2**16))
    return path


def many_headers(path: Path) -> Path:
    """A tar of long names alone, each for the next."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 5
    path.write_bytes((header.tobuf() + b"abcde".ljust(512, b"\0")) * 20_000)
    return path


@pytest.mark.fault(99)
@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (bomb, "bomb.zip", "unpack to more than 268,435,456 bytes"),
        (bomb, "bomb.tar.xz", "unpacks to more than 268,435,456 bytes"),
        (long_header, "header.tar", "a part of its list of files has 4,294,967,296 bytes"),
        (many_headers, "headers.tar", "headers.tar cannot be read as a .tar archive"),
    ],
)
def test_bombs_are_refused_within_seconds(
    cli: Cli, in_tmp: Path, make: Callable[[Path], Path], name: str, words: str
) -> None:
    make(in_tmp / name)
    started = time.monotonic()
    answer = cli("summary", *TINY_FLAGS, "--data", name)
    assert answer.code == 3
    assert words in answer.err
    assert answer.err.count("\n") == 1
    assert time.monotonic() - started < 20
    assert tree(in_tmp) == [name]


@pytest.mark.fault(99)
def test_more_files_than_may_be_are_refused(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_FILES", 9)
    for path in (write_zip(Path("x.zip")), write_tar(Path("x.tgz"))):
        with pytest.raises(DataError, match="it lists more than 9 files"):
            load(path)


@pytest.mark.fault(99)
@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz", "x.tar.bz2"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\3\4" + bytes(500)])
def test_what_is_no_archive_says_what_was_expected(
    cli: Cli, in_tmp: Path, name: str, content: bytes
) -> None:
    Path(name).write_bytes(content)
    answer = cli("summary", *TINY_FLAGS, "--data", name)
    assert answer.code == 3
    assert name in answer.err
    assert "train/<class>/ folders, with or without val/ and test/" in answer.err
    assert "CIFAR" not in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.fault(99)
@pytest.mark.parametrize("ending", ["zip", "tgz"])
def test_an_archive_that_is_cut_short_or_changed_is_refused(in_tmp: Path, ending: str) -> None:
    path = (write_zip if ending == "zip" else write_tar)(Path(f"x.{ending}"))
    data = path.read_bytes()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 0xFF
    for bad in (data[: len(data) // 2], bytes(changed)):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=r"cannot be read|no images in class folders"):
            load(path)


def test_other_files_and_pictures_without_classes_name_the_nearest_layout(
    cli: Cli, in_tmp: Path
) -> None:
    Path("photos.rar").write_bytes(b"Rar!")
    (in_tmp / "loose").mkdir()
    (in_tmp / "loose" / "1.png").write_bytes(picture(1))
    for name, words in {
        "photos.rar": "a file of no known kind: expected an archive of class folders (.zip, .tar,",
        "loose": "holds 1 images but no class folders. Make one folder per class",
    }.items():
        answer = cli("train", *TINY_FLAGS, "--data", name)
        assert answer.code == 3
        assert words in answer.err
        assert "damaged" not in answer.err


ROWS = [f"{name},{name[0]}" for name in GOOD]


@pytest.mark.fault(100)
@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("../x.png,a", "line 11: ../x.png leads out of the folder of the CSV file"),
        ("/etc/passwd,a", "line 11: /etc/passwd leads out of the folder"),
        ("a/none.png,a", "line 11: a/none.png: No such file or directory"),
        ("a/0.png,b", "line 11: a/0.png is named twice"),
        ("a,b", "line 11: a is not a file"),
        ("a/0.png", "line 11: 1 columns, or an empty one"),
        ("a/0.png,", "line 11: 2 columns, or an empty one"),
        ("a/0.png,a,dev", "line 11: split 'dev' is not train, val or test"),
        ("a/\0.png,a", "line 11: "),
        ('"a/0.png,a', "is not a CSV file: unexpected end of data"),
        ("\udcff,a", "is not a CSV file: 'utf-8' codec can't decode"),
    ],
)
def test_wrong_rows_of_a_table_are_named_by_their_line(
    cli: Cli, in_tmp: Path, row: str, words: str
) -> None:
    for name, data in GOOD.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(data)
    table = "\n".join([*ROWS, row]) + "\n"
    Path("x.csv").write_bytes(table.encode("utf-8", "surrogateescape"))
    answer = cli("summary", *TINY_FLAGS, "--data", "x.csv")
    assert answer.code == 3
    assert words in answer.err
    assert "Expected rows of path,label" in answer.err
    assert answer.err.count("\n") == 1
    Path("x.csv").write_text("\n".join(ROWS), encoding="utf-8")
    load(Path("x.csv"))


@pytest.mark.fault(100)
def test_a_table_without_end_is_refused(cli: Cli, in_tmp: Path) -> None:
    with Path("x.csv").open("wb") as file:
        file.truncate(10**12)
    answer = cli("summary", *TINY_FLAGS, "--data", "x.csv")
    assert answer.code == 3
    assert "it has 1,000,000,000,000 bytes" in answer.err
