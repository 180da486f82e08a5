"""The C code: what compilers and sanitizers say of it, and that all vector lengths agree."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import need_compiled_code
from torch import Tensor
from torch.nn import functional as F
from write_transforms import HEADER, written

from cifar_cli.kernels import compiled, library
from cifar_cli.kernels.compiled import CompiledWinograd
from cifar_cli.kernels.convolution import convolve
from cifar_cli.kernels.layer import Layer

STRICT = ("-Wall", "-Wextra", "-Werror", "-std=gnu11", "-fopenmp")
FILES = sorted(HEADER.parent.glob("*.[ch]"))
TEMPLATES = {"tiles.h", "convolution.h"}
DRIVER = Path(__file__).parent / "driver.c"

need_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")


def gcc(*arguments: object) -> None:
    done = subprocess.run(["gcc", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@need_gcc
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_compiler_opens_each_file_by_itself_without_a_warning(path: Path) -> None:
    if path.name in TEMPLATES:  # with the size that `winograd.c` defines, and its includes
        size = ["-DM=4", "-DTILE=6", "-DTILE_AREA=36", "-DF(f)=f##_4", "-Wno-unused-function"]
        before = ["gemm.h", "transforms.h", "winograd.h"]
        includes = [part for name in before for part in ("-include", HEADER.with_name(name))]
        own = [*size, "-Domp_get_thread_num()=0", *includes]
    else:
        own = []
    gcc("-fsyntax-only", *STRICT, *own, "-x", "c", path)


def test_the_transforms_are_those_that_python_writes() -> None:
    assert HEADER.read_text(encoding="utf-8") == written()


def test_a_plan_has_the_fields_of_the_header_and_no_others() -> None:
    names = [field[0] for field in library.Plan._fields_]
    assert names[:3] == ["m", "images", "height"]
    assert "scratch" in names
    values = dict.fromkeys(names, 1)
    assert library.Plan(**values).scratch == 1
    for wrong in ({**values, "other": 1}, {"m": 1}):
        with pytest.raises(AssertionError):
            library.Plan(**wrong)


def test_a_size_of_tiles_that_there_is_not_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    need_compiled_code(tmp_path_factory)
    plan = library.Plan(**dict.fromkeys([field[0] for field in library.Plan._fields_], 7))
    assert library.loaded().winograd_forward(plan, *[None] * 5) == 0
    assert library.loaded().winograd_backward(plan, *[None] * 7) == 0


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that runs one plan, with the C code, under sanitizers."""
    need_compiled_code(tmp_path_factory)
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("the sanitizers are gcc's on Linux")
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True)
    if not Path(found.stdout.strip()).is_absolute():
        pytest.skip("gcc has no libasan")
    program = tmp_path_factory.mktemp("driver") / "driver"
    folder = HEADER.parent
    sanitizers = "-fsanitize=address,undefined", "-fno-sanitize-recover=all"
    flags = "-O0", "-g", "-march=native", *sanitizers, *STRICT
    gcc(*flags, "-I", folder, DRIVER, folder / library.MAIN, "-o", program)
    return program


def run_driver(driver: Path, layer: Layer, missing: int) -> subprocess.CompletedProcess[str]:
    weight = torch.zeros(layer.outputs, layer.inputs, 3, 3)
    plan = CompiledWinograd(layer, weight).plan(2, 32)
    fields = [getattr(plan, field[0]) for field in library.Plan._fields_]
    return subprocess.run(
        [driver, *map(str, [int(layer.pool), missing, *fields])],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "layer",
    [
        Layer(3, 5, 7, 3, 5, 2, False, True),
        Layer(2, 4, 4, 8, 40, 3, True, False),
        Layer(5, 9, 9, 17, 70, 4, True, True),
        Layer(2, 2, 11, 9, 33, 5, False, False),
        Layer(3, 13, 6, 40, 8, 6, False, True),
    ],
    ids=lambda layer: f"m={layer.m}",
)
def test_sanitizers_find_nothing(layer: Layer, driver: Path) -> None:
    done = run_driver(driver, layer, missing=0)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_sanitizers_do_find_memory_that_is_too_small(driver: Path) -> None:
    done = run_driver(driver, Layer(1, 8, 8, 8, 32, 4, False, False), missing=1 + 5 * 32 * 36)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


def test_threads_share_the_work_as_far_as_there_is_memory_for_each(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_compiled_code(tmp_path_factory)
    x = torch.randn(40, 8, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(8, 8, 3, 3, requires_grad=True)

    def gradient() -> Tensor:
        return torch.autograd.grad(convolve(x, weight, 4, compiled=True).sum(), weight)[0]

    def blocks(most: int) -> tuple[int, int]:
        plan = CompiledWinograd(Layer(40, 6, 6, 8, 8, 4, False, False), weight).plan(most, 32)
        return plan.threads, plan.blocks

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert blocks(3) == (3, 6)
        assert blocks(2) == (2, 2)  # the third has no memory, so it must not get a block
        expected = gradient()
        monkeypatch.setattr(compiled, "MAX_GRADIENTS", 2 * 36 * 8 * 32)
        torch.testing.assert_close(gradient(), expected, rtol=1e-5, atol=1e-3)
        monkeypatch.setattr(compiled, "MAX_GRADIENTS", 1)
        torch.testing.assert_close(gradient(), expected, rtol=1e-5, atol=1e-3)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("flag", ["-mno-avx512f", "-mno-avx"])
def test_vectors_of_all_lengths_compute_the_same(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of this machine are tested everywhere else."""
    if platform.machine() != "x86_64" or sys.platform != "linux" or not shutil.which("gcc"):
        pytest.skip("the flags are gcc's on x86")
    monkeypatch.setattr(library, "FLAGS", (*library.FLAGS, "-O1", *STRICT, flag))
    code = library._library(tmp_path / "new")
    assert not isinstance(code, str), code
    monkeypatch.setattr(library, "_loaded", code)
    x = torch.randn(5, 37, 9, 9).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(70, 37, 3, 3, requires_grad=True)
    out = convolve(x, weight, 4, compiled=True)
    expected = F.conv2d(x, weight, padding=1)
    gradient = torch.randn_like(out)
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)
    for own, direct in zip(
        torch.autograd.grad(out, [x, weight], gradient),
        torch.autograd.grad(expected, [x, weight], gradient),
        strict=True,
    ):
        torch.testing.assert_close(own, direct, rtol=1e-3, atol=1e-3)
