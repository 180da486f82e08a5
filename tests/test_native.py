"""Code that is compiled on this machine: made, kept, checked, and done without."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from conftest import shared_native, tiny_config

from cifar_cli.models import build_model, native
from cifar_cli.models.convolution import Conv2d
from cifar_cli.training.runtime import place_model

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")


def compiled(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.fixture
def kept(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled code."""
    folder = shared_native(tmp_path_factory)
    assert native._library(folder)
    shutil.copytree(folder, tmp_path / "kept")
    return tmp_path / "kept"


def test_code_is_compiled_once_and_then_found(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = compiled(kept)
    monkeypatch.setattr(native, "_compile", pytest.fail)
    assert native._library(kept)
    assert compiled(kept) == before


def test_damaged_code_is_compiled_anew(kept: Path) -> None:
    (file,) = compiled(kept)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    made = []

    def compile_(source: str, target: Path) -> None:
        made.append(target)
        original(source, target)

    original = native._compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_compile", compile_)
        assert native._library(kept)
    assert len(made) == 1
    assert file.read_bytes() != content


def test_other_sources_and_other_machines_have_code_of_their_own(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def compile_(source: str, target: Path) -> None:
        made.append(target)
        raise OSError

    monkeypatch.setattr(native, "_compile", compile_)
    source = native.c_source()
    with monkeypatch.context() as patch:
        patch.setattr(native, "c_source", lambda: source + "/* newer */")
        assert native._library(kept) is None
    with monkeypatch.context() as patch:
        patch.setattr(native, "COMPILER", (*native.COMPILER, "-DANOTHER_MACHINE"))
        assert native._library(kept) is None
    assert len(made) == 2


@pytest.mark.parametrize(
    "compiler",
    [("no-such-compiler",), ("false",), ("cc", "--no-such-flag"), ("cc", "-Dlanes=(")],
    ids=str,
)
def test_without_a_compiler_that_works_there_is_none(
    compiler: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "COMPILER", compiler)
    assert native._library(tmp_path / "new") is None
    assert not [file for file in compiled(tmp_path) if file.is_file()]


def test_a_folder_that_cannot_be_written_to_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert native._library(tmp_path / "file") is None


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_layers_use_it_where_it_is_wanted_and_there(
    wanted: bool, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "load", lambda folder: there)
    config = tiny_config(runtime__native=wanted)
    model = place_model(build_model(config.model, 10, 32), config, torch.device("cpu"))
    assert {m.compiled for m in model.modules() if isinstance(m, Conv2d)} == {wanted and there}
