"""Code that is compiled on this machine: made, kept, checked, and done without."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
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


def test_damaged_code_is_compiled_anew(kept: Path) -> None:
    (file,) = compiled(kept)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    made = []

    def compile_(compiler: str, source: str, target: Path) -> None:
        made.append(target)
        original(compiler, source, target)

    original = native._compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_compile", compile_)
        assert is_usable(native._library(kept))
    assert len(made) == 1
    assert file.read_bytes() != content


def test_other_sources_and_other_machines_have_code_of_their_own(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def compile_(compiler: str, source: str, target: Path) -> None:
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


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners here")
def test_code_that_others_may_have_put_there_is_not_run(kept: Path) -> None:
    (file,) = compiled(kept)
    file.chmod(0o722)
    made = native._library(kept)  # what is compiled anew has the same name, and takes its place
    assert is_usable(made)
    assert not file.stat().st_mode & 0o022
    kept.chmod(0o777)
    assert native._library(kept) == f"others may write to {kept}"


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
