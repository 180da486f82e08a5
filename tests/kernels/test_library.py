"""Code that is compiled on this machine: made, kept, checked, and done without."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import need_compiled_code, shared_native

from cifar_cli.kernels import library


def compiled(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


@pytest.fixture
def kept(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled code."""
    need_compiled_code(tmp_path_factory)
    folder = shared_native(tmp_path_factory)
    assert is_usable(library._library(folder))
    (tmp_path / "kept").mkdir(mode=0o700)
    for file in folder.glob("tiles-*.so"):
        shutil.copy2(file, tmp_path / "kept")
    return tmp_path / "kept"


def is_usable(found: ctypes.CDLL | str) -> bool:
    return not isinstance(found, str)


def test_code_is_compiled_once_and_then_found(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = compiled(kept)
    monkeypatch.setattr(library, "_compile", pytest.fail)
    assert is_usable(library._library(kept))
    assert compiled(kept) == before


@pytest.fixture
def quick_compiler(kept: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Compiling copies what was compiled before; what was compiled so far."""
    (file,) = compiled(kept)
    content, made = file.read_bytes(), list[Path]()

    def compile_(compiler: str, files: dict[str, str], target: Path, deadline: float) -> None:
        made.append(target)
        target.write_bytes(content)

    monkeypatch.setattr(library, "_compile", compile_)
    return made


def test_damaged_code_is_compiled_anew(kept: Path, quick_compiler: list[Path]) -> None:
    (file,) = compiled(kept)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert is_usable(library._library(kept))
    assert len(quick_compiler) == 1
    assert file.read_bytes() != content


def test_other_sources_and_other_machines_have_code_of_their_own(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def compile_(compiler: str, files: dict[str, str], target: Path, deadline: float) -> None:
        made.append(target)
        raise OSError("not now")

    monkeypatch.setattr(library, "_compile", compile_)
    newer = library.sources() | {"winograd.h": "/* newer */"}
    with monkeypatch.context() as patch:
        patch.setattr(library, "sources", lambda: newer)
        assert library._library(kept) == "not now"
    for flag in ("-DANOTHER_MACHINE", "-fanother-way-of-compiling"):
        with monkeypatch.context() as patch:
            patch.setattr(library, "FLAGS", (*library.FLAGS, flag))
            library._library(kept)
    assert len(made) == 2  # the last flag is refused before that


def test_a_folder_that_cannot_be_written_to_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert isinstance(library._library(tmp_path / "file"), str)


def replace_by_link(place: Path, elsewhere: Path) -> None:
    place.rename(elsewhere)
    place.symlink_to(elsewhere)


def give_away(place: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file to somebody else")
    os.chown(place, 65534, 65534, follow_symlinks=False)


@pytest.fixture
def home(kept: Path) -> Path:
    """A home with compiled code, as a user has it."""
    (kept.parent / "up" / "home").mkdir(parents=True)
    kept.rename(kept.parent / "up" / "home" / "native")
    return kept.parent / "up" / "home"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda home, other: (home / "native").chmod(0o777), "others may write to {home}/native"),
        (lambda home, other: (home / "native").chmod(0o1777), "others may write to {home}/native"),
        (lambda home, other: home.chmod(0o777), "others may write to {home}"),
        (lambda home, other: home.chmod(0o770), "others may write to {home}"),
        (lambda home, other: home.parent.chmod(0o777), "others may write to {up}"),
        (lambda home, other: give_away(home / "native"), "{home}/native belongs to somebody else"),
        (lambda home, other: give_away(home), "{home} belongs to somebody else"),
        (lambda home, other: give_away(home.parent), "{up} belongs to somebody else"),
        (lambda home, other: replace_by_link(home / "native", other), "{home}/native is a link"),
        (
            lambda home, other: (replace_by_link(home, other), give_away(home)),
            "{home} belongs to somebody else",
        ),
        (
            lambda home, other: (replace_by_link(home, other), other.chmod(0o777)),
            "others may write to {other}",
        ),
        (lambda home, other: (home.rename(other), home.symlink_to(home)), "too many links"),
        (lambda home, other: (home.rename(other), os.mkfifo(home)), "Not a directory"),
    ],
)
@pytest.mark.fault(59)
def test_code_in_a_place_that_others_could_replace_is_not_run(
    spoil: Callable[[Path, Path], object], why: str, home: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    spoil(home, other)
    found = library._library(home / "native")
    assert isinstance(found, str)
    assert why.format(home=home, up=home.parent, other=other) in found


@pytest.mark.fault(59)
def test_a_place_that_only_its_owner_can_change_is_used(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_compile", pytest.fail)
    home.parent.chmod(0o1777)  # sticky, as /tmp is
    assert is_usable(library._library(home / "native"))
    (tmp_path / "one").symlink_to("two")  # links of one's own, as to a larger disk
    (tmp_path / "two").symlink_to(home.parent)
    assert is_usable(library._library(tmp_path / "one" / "home" / "native"))
    monkeypatch.chdir(home)
    assert is_usable(library._library(Path("../home/native")))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file, other: file.chmod(0o722),
        lambda file, other: give_away(file),
        replace_by_link,
        lambda file, other: (file.unlink(), os.mkfifo(file)),
        lambda file, other: (file.unlink(), file.mkdir()),
        lambda file, other: os.truncate(file, 2**40),
        lambda file, other: os.truncate(file, 0),
    ],
)
@pytest.mark.fault(59)
def test_a_file_that_others_may_have_put_there_is_replaced(
    spoil: Callable[[Path, Path], object],
    kept: Path,
    tmp_path: Path,
    quick_compiler: list[Path],
) -> None:
    (file,) = compiled(kept)
    spoil(file, tmp_path / "other")
    found = library._library(kept)
    assert len(quick_compiler) == 1
    if file.is_dir():
        assert isinstance(found, str)
        return
    assert is_usable(found)
    about = file.lstat()
    assert stat.S_ISREG(about.st_mode)
    assert (about.st_uid, about.st_mode & 0o022) == (os.geteuid(), 0)


@pytest.mark.fault(59)
def test_a_library_of_something_else_is_passed_over(
    kept: Path, tmp_path: Path, quick_compiler: list[Path]
) -> None:
    (file,) = compiled(kept)
    file.unlink()
    key = file.name.split("-")[1]
    for number, source in enumerate(("int panel;", "int f(void);int panel(void){return f();}")):
        other = tmp_path / f"{number}.so"
        command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", other]
        subprocess.run(command, input=source.encode(), check=True)
        digest = library._digest(other.read_bytes())
        other.rename(kept / f"tiles-{key}-{digest}.so")
    (kept / f"tiles-{key}-{library._digest(b'')}.so").touch(0o600)
    found = library._library(kept)
    assert is_usable(found)
    assert len(quick_compiler) == 1
    assert file.is_file()


@pytest.mark.fault(59)
def test_what_was_checked_is_what_is_loaded(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = compiled(kept)
    original = library._digest

    def digest(content: bytes) -> str:  # somebody replaces the file just when it has been read
        file.rename(tmp_path / "moved")
        file.write_bytes(b"something else")
        return original(content)

    monkeypatch.setattr(library, "_digest", digest)
    assert is_usable(library._library(kept))


KILLED = """
import importlib.util, os, sys
from pathlib import Path
kernels = importlib.util.find_spec("cifar_cli.kernels")
sys.modules[kernels.name] = importlib.util.module_from_spec(kernels)  # without torch, for speed
from cifar_cli.kernels import library
library._compile = lambda *_: (print("compiling", flush=True), sys.stdin.read())
library._library(Path(sys.argv[1]))
"""


@pytest.mark.fault(60)
def test_only_one_process_compiles_and_what_a_killed_one_left_is_removed(
    kept: Path, quick_compiler: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = compiled(kept)
    file.unlink()
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, kept], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"compiling\n"
        (place,) = kept.iterdir()
        monkeypatch.setattr(library, "SECONDS", 2.0)
        assert library._library(kept) == "another process takes too long to compile it"
        assert place.is_dir()
        other.kill()
    assert is_usable(library._library(kept))
    assert list(kept.iterdir()) == [file]
    assert len(quick_compiler) == 1
