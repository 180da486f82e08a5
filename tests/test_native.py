"""Code that is compiled on this machine: made, kept, checked, and done without."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import need_compiled_code, shared_native, tiny_config
from torch import Tensor

from cifar_cli.models import build_model, compiled_winograd, native
from cifar_cli.models.compiled_winograd import CLayer, CompiledWinograd
from cifar_cli.models.convolution import Conv2d, convolve
from cifar_cli.models.tiles import Layer
from cifar_cli.training.runtime import describe_environment, place_model

CPU = torch.device("cpu")


def compiled(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


@pytest.fixture
def kept(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled code."""
    need_compiled_code(tmp_path_factory)
    folder = shared_native(tmp_path_factory)
    assert is_usable(native._library(folder))
    (tmp_path / "kept").mkdir(mode=0o700)
    for file in folder.glob("tiles-*.so"):
        shutil.copy2(file, tmp_path / "kept")
    return tmp_path / "kept"


def is_usable(found: ctypes.CDLL | str) -> bool:
    return not isinstance(found, str)


def test_code_is_compiled_once_and_then_found(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = compiled(kept)
    monkeypatch.setattr(native, "_compile", pytest.fail)
    assert is_usable(native._library(kept))
    assert compiled(kept) == before


@pytest.fixture
def quick_compiler(kept: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Compiling copies what was compiled before; what was compiled so far."""
    (file,) = compiled(kept)
    content, made = file.read_bytes(), list[Path]()

    def compile_(compiler: str, source: str, target: Path, deadline: float) -> None:
        made.append(target)
        target.write_bytes(content)

    monkeypatch.setattr(native, "_compile", compile_)
    return made


def test_damaged_code_is_compiled_anew(kept: Path, quick_compiler: list[Path]) -> None:
    (file,) = compiled(kept)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert is_usable(native._library(kept))
    assert len(quick_compiler) == 1
    assert file.read_bytes() != content


def test_other_sources_and_other_machines_have_code_of_their_own(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def compile_(compiler: str, source: str, target: Path, deadline: float) -> None:
        made.append(target)
        raise OSError("not now")

    monkeypatch.setattr(native, "_compile", compile_)
    source = native.c_source()
    with monkeypatch.context() as patch:
        patch.setattr(native, "c_source", lambda: source + "/* newer */")
        assert native._library(kept) == "not now"
    for flag in ("-DANOTHER_MACHINE", "-fanother-way-of-compiling"):
        with monkeypatch.context() as patch:
            patch.setattr(native, "FLAGS", (*native.FLAGS, flag))
            native._library(kept)
    assert len(made) == 2  # the last flag is refused before that


@pytest.mark.parametrize(
    ("compilers", "flags", "told"),
    [
        (("no-such-compiler",), (), "there is no C compiler"),
        (("false",), (), "false failed: "),
        (native.COMPILERS, ("--no-such-flag",), "--no-such-flag"),
        (native.COMPILERS, ("-Dlanes=(",), "failed: "),
    ],
    ids=str,
)
def test_without_a_compiler_that_works_it_is_told_why(
    compilers: tuple[str, ...],
    flags: tuple[str, ...],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "COMPILERS", compilers)
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, *flags))
    problem = native._library(tmp_path / "new")
    assert isinstance(problem, str)
    assert told in problem
    assert compiled(tmp_path) == []


def test_a_folder_that_cannot_be_written_to_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert isinstance(native._library(tmp_path / "file"), str)


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
    found = native._library(home / "native")
    assert isinstance(found, str)
    assert why.format(home=home, up=home.parent, other=other) in found


@pytest.mark.fault(59)
def test_a_place_that_only_its_owner_can_change_is_used(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_compile", pytest.fail)
    home.parent.chmod(0o1777)  # sticky, as /tmp is
    assert is_usable(native._library(home / "native"))
    (tmp_path / "one").symlink_to("two")  # links of one's own, as to a larger disk
    (tmp_path / "two").symlink_to(home.parent)
    assert is_usable(native._library(tmp_path / "one" / "home" / "native"))
    monkeypatch.chdir(home)
    assert is_usable(native._library(Path("../home/native")))


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
    found = native._library(kept)
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
        library = tmp_path / f"{number}.so"
        command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", library]
        subprocess.run(command, input=source.encode(), check=True)
        digest = native._digest(library.read_bytes())
        library.rename(kept / f"tiles-{key}-{digest}.so")
    (kept / f"tiles-{key}-{native._digest(b'')}.so").touch(0o600)
    found = native._library(kept)
    assert is_usable(found)
    assert len(quick_compiler) == 1
    assert file.is_file()


@pytest.mark.fault(59)
def test_what_was_checked_is_what_is_loaded(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = compiled(kept)
    original = native._digest

    def digest(content: bytes) -> str:  # somebody replaces the file just when it has been read
        file.rename(tmp_path / "moved")
        file.write_bytes(b"something else")
        return original(content)

    monkeypatch.setattr(native, "_digest", digest)
    assert is_usable(native._library(kept))


KILLED = """
import os, sys
from pathlib import Path
from cifar_cli.models import native
native._compile = lambda *_: (print("compiling", flush=True), sys.stdin.read())
native._library(Path(sys.argv[1]))
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
        monkeypatch.setattr(native, "SECONDS", 2.0)
        assert native._library(kept) == "another process takes too long to compile it"
        assert place.is_dir()
        other.kill()
    assert is_usable(native._library(kept))
    assert list(kept.iterdir()) == [file]
    assert len(quick_compiler) == 1


SLOW = "#!/bin/sh\nif [ $1 != -O3 ]; then exit 1; fi\ncase $* in *-dM*) exit;; esac\n"
SLOW += 'sleep 100 &\necho $! > "$0.child"\nwait\n'


@pytest.mark.parametrize("stop", ["time", "ctrl-c"])
@pytest.mark.fault(60)
def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(
    stop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "slow"
    compiler.write_text(SLOW)
    compiler.chmod(0o700)
    monkeypatch.setattr(native, "COMPILERS", (str(compiler),))
    child = tmp_path / "slow.child"
    if stop == "time":
        monkeypatch.setattr(native, "SECONDS", 1.5)
        told = native._library(tmp_path / "native")
        assert isinstance(told, str)
        assert "slow took longer than" in told
    else:
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 1.5)
        with pytest.raises(KeyboardInterrupt):
            native._library(tmp_path / "native")
        signal.signal(signal.SIGALRM, before)
    stat_ = Path("/proc") / child.read_text().strip() / "stat"
    deadline = time.monotonic() + 5
    while stat_.exists() and stat_.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list((tmp_path / "native").iterdir()) == []


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_layers_use_it_where_it_is_wanted_and_there(
    wanted: bool, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "load", lambda folder: there)
    config = tiny_config(runtime__native=wanted)
    model = place_model(build_model(config.model, 10, 32), config, CPU)
    assert {m.compiled for m in model.modules() if isinstance(m, Conv2d)} == {wanted and there}
    assert describe_environment(CPU, model)["compiled_code"] == (wanted and there)


def test_no_code_is_made_where_no_layer_could_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "load", pytest.fail)
    for setting in ({"runtime__precision": "bf16"}, {"runtime__channels_last": False}):
        config = tiny_config(**setting)
        place_model(build_model(config.model, 10, 32), config, CPU)


def test_a_placed_network_is_run_by_it(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_compiled_code(tmp_path_factory)
    config = tiny_config(model__name="speed_resnet", model__widths=[32, 64, 64])
    model = place_model(build_model(config.model, 10, 32), config, CPU)
    called: list[str] = []
    call = CompiledWinograd._call

    def note(way: CompiledWinograd, name: str, *rest: Any) -> None:
        called.append(name)
        call(way, name, *rest)

    monkeypatch.setattr(CompiledWinograd, "_call", note)
    model(torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)).sum().backward()
    assert called == ["forward"] * 6 + ["backward"] * 6


def test_both_languages_have_the_same_layer(tmp_path_factory: pytest.TempPathFactory) -> None:
    need_compiled_code(tmp_path_factory)
    assert ctypes.c_long.in_dll(native.library(), "size_of_layer").value == ctypes.sizeof(CLayer)


def test_threads_share_the_work_as_far_as_there_is_memory_for_each(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_compiled_code(tmp_path_factory)
    x = torch.randn(40, 8, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(8, 8, 3, 3, requires_grad=True)

    def gradient() -> Tensor:
        return torch.autograd.grad(convolve(x, weight, 4, compiled=True).sum(), weight)[0]

    def blocks(most: int) -> tuple[int, int]:
        way = CompiledWinograd(Layer(40, 6, 6, 8, 8, 4, False, False), weight)
        sizes = way._sizes(most, 32)
        return sizes.threads, sizes.blocks

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert blocks(3) == (3, 6)
        assert blocks(2) == (2, 2)  # the third has no memory, so it must not get a block
        expected = gradient()
        monkeypatch.setattr(compiled_winograd, "MOST_SUMS", 2 * 36 * 8 * 32)
        torch.testing.assert_close(gradient(), expected, rtol=1e-5, atol=1e-3)
        monkeypatch.setattr(compiled_winograd, "MOST_SUMS", 1)
        torch.testing.assert_close(gradient(), expected, rtol=1e-5, atol=1e-3)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("flags", [(), ("-mno-avx512f",), ("-mno-avx",)], ids=str)
def test_vectors_of_all_lengths_compute_the_same(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if platform.machine() != "x86_64" or sys.platform != "linux" or not shutil.which("gcc"):
        pytest.skip("the flags are gcc's on x86")
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, *flags))
    code = native._library(tmp_path / "new")
    assert not isinstance(code, str), code
    monkeypatch.setattr(native, "_loaded", code)
    x = torch.randn(5, 37, 9, 9).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(70, 37, 3, 3, requires_grad=True)
    out = convolve(x, weight, 4, compiled=True)
    expected = convolve(x, weight, 4)
    gradient = torch.randn_like(out)
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)
    for found, wanted in zip(
        torch.autograd.grad(out, [x, weight], gradient),
        torch.autograd.grad(expected, [x, weight], gradient),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
