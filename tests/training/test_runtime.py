"""Device, precision, signals and memory."""

from __future__ import annotations

import os
import signal
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import on_cpu, tiny_config

from cifar_cli import train
from cifar_cli.doctor.checks import _device
from cifar_cli.errors import ConfigError, OutOfMemoryError, StorageError
from cifar_cli.rng import kept_rng, restore_rng, rng_state
from cifar_cli.training.environment import describe_environment
from cifar_cli.training.memory import fewer_images, memory_errors, smaller_batch, smaller_network
from cifar_cli.training.runtime import (
    COMPILER_CACHE,
    Runtime,
    compile_errors,
    resolve_device,
)
from cifar_cli.training.stop_signal import StopSignal
from cifar_cli.training.temporary import temporary_folder

CPU = torch.device("cpu")
REMEDY = smaller_batch(tiny_config())


def test_auto_takes_the_best_device_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: there)
        assert resolve_device("auto").type == expected


def test_an_absent_device_is_refused_with_those_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"--device cuda: not available here \(present: .*cpu"):
        resolve_device("cuda")


def test_why_torch_finds_no_gpu_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_old() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old (found 11040).", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", too_old)
    with pytest.raises(ConfigError, match=r"cuda: not available here .* driver .* is too old"):
        resolve_device("cuda")
    with pytest.warns(UserWarning, match="is too old"):
        assert resolve_device("auto").type != "cuda"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as doctor does around each of its checks
        assert "is too old" in _device(tiny_config(device="auto"))[1]
        assert _device(tiny_config(device="cpu"))[1] == ""


def test_threads_are_set_where_asked_for() -> None:
    Runtime.start(tiny_config(runtime__threads=1))
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(("precision", "tf32"), [("auto", True), ("fp32", False)])
def test_fp32_on_a_gpu_is_fp32(precision: str, tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("benchmark", "allow_tf32"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    Runtime.start(tiny_config(device="cuda", runtime__precision=precision))
    assert torch.backends.cudnn.allow_tf32 is tf32


@pytest.mark.parametrize(("precision", "bf16"), [("auto", False), ("fp32", False), ("bf16", True)])
def test_cpu_computes_in_fp32_unless_asked_otherwise(precision: str, bf16: bool) -> None:
    runtime = on_cpu(tiny_config(runtime__precision=precision))
    assert runtime.uses_bf16 is bf16
    with runtime.autocast():
        out = torch.ones(2, 2) @ torch.ones(2, 2)
    assert (out.dtype == torch.bfloat16) is bf16


def test_generator_states_come_back() -> None:
    state = rng_state(CPU)
    first = torch.rand(3)
    restore_rng(state, CPU)
    with kept_rng():
        torch.rand(5)
    assert torch.equal(torch.rand(3), first)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ],
)
def test_every_kind_of_memory_failure_names_a_smaller_batch(error: Exception) -> None:
    with (
        pytest.raises(OutOfMemoryError, match="--batch-size 16"),
        memory_errors(*REMEDY),
    ):
        raise error


def test_the_advice_where_memory_runs_out_fits_the_network() -> None:
    assert REMEDY[1].endswith("--set model.width=2.")
    speed = tiny_config(model__name="speed_resnet", model__widths=[1, 9, 16])
    assert ". ".join(smaller_batch(speed)).endswith("--set 'model.widths=[1, 4, 8]'.")


def test_the_advice_fits_what_does_not_fit() -> None:
    one = tiny_config(train__batch_size=1)
    assert "--batch-size" not in ". ".join(smaller_batch(one))
    assert ". ".join(smaller_batch(one)).endswith(
        "one image. Try a narrower network: --set model.width=2."
    )
    large = tiny_config(train__batch_size=1, data__image_size=224)
    assert "Try --set data.image_size=112, or a narrower" in ". ".join(smaller_batch(large))
    assert "Try --set data.image_size=112, or a folder with fewer" in ". ".join(fewer_images(large))
    assert ". ".join(fewer_images(one)).startswith(
        "while loading the images of shapes. Try a folder with"
    )
    assert ". ".join(smaller_network(one)).startswith(
        "while building the network. Try a narrower one: --set"
    )


def test_training_says_whether_images_network_or_batch_do_not_fit(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    for name, told in (
        ("run.open_images", "while loading the images"),
        ("run.TrainLoader", "while loading the images"),
        ("state.build_model", "while building the network"),
        ("runtime.Runtime.place", "while building the network"),
        ("run.train_epochs", "at batch size 32"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"cifar_cli.training.{name}", no_memory)
            with pytest.raises(OutOfMemoryError, match=f"Out of memory {told}"):
                train(tiny_config(), in_tmp / name)


def test_torch_compile_that_cannot_compile_is_told_with_a_remedy(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor.exc import InductorError, InvalidCxxCompiler

    def compile_(model: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        # What the first step gets without a compiler; looking for one for real takes long.
        def forward(images: torch.Tensor) -> torch.Tensor:
            raise InductorError(InvalidCxxCompiler(), None)

        return forward

    monkeypatch.setattr(torch, "compile", compile_)
    config = tiny_config(runtime__compile=True)
    with pytest.raises(ConfigError, match=r"InvalidCxxCompiler.* Install a C\+\+ compiler"):
        train(config, in_tmp / "compiled")
    with pytest.raises(ValueError, match="of the program"), compile_errors(config):
        raise ValueError("of the program")


@pytest.mark.skipif(os.name != "posix", reason="owners of folders")
@pytest.mark.fault(97)
def test_torch_compile_keeps_its_code_where_nobody_else_can_write(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    config = tiny_config(runtime__compile=True)
    Runtime.start(tiny_config())
    assert COMPILER_CACHE not in os.environ
    Runtime.start(config)
    folder = Path(os.environ["CIFAR_RESNET_HOME"]) / "torch-compile"
    assert Path(cache_dir()) == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    # What the user has set stays.
    monkeypatch.setenv(COMPILER_CACHE, str(in_tmp / "mine"))
    Runtime.start(config)
    assert os.environ[COMPILER_CACHE] == str(in_tmp / "mine")
    # Somebody else's folder, or a place where it could be replaced.
    monkeypatch.delenv(COMPILER_CACHE)
    (in_tmp / "theirs").mkdir()
    for spoil in (lambda: folder.chmod(0o777), lambda: _link(folder, in_tmp / "theirs")):
        spoil()
        with pytest.raises(ConfigError, match=f"runtime.compile=true: .*Set {COMPILER_CACHE} to"):
            Runtime.start(config)
        assert COMPILER_CACHE not in os.environ


def _link(path: Path, target: Path) -> None:
    path.rmdir()
    path.symlink_to(target)


def test_without_a_folder_for_temporary_files_training_needs_none(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "_get_default_tempdir", refuse)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(in_tmp / "none"))
    assert train(tiny_config(train__epochs=1), in_tmp / "run").epochs_completed == 1
    with pytest.raises(StorageError, match=r"Cannot make a temporary folder: .* Set TMPDIR"):
        temporary_folder().__enter__()


def test_a_real_allocation_that_cannot_be_met_is_recognised() -> None:
    with pytest.raises(OutOfMemoryError), memory_errors(*REMEDY):
        torch.empty(2**60)


def test_other_errors_pass_unchanged() -> None:
    with (
        pytest.raises(RuntimeError, match="something else"),
        memory_errors(*REMEDY),
    ):
        raise RuntimeError("something else")


def test_a_first_signal_asks_and_a_second_interrupts() -> None:
    notes: list[str] = []
    stop = StopSignal(lambda: notes.append("asked"))
    with stop.listening():
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        assert stop.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert notes == ["asked"]


def test_the_environment_names_versions_and_hardware() -> None:
    found = describe_environment(on_cpu(tiny_config()), torch.nn.Linear(1, 1))
    assert torch.__version__.startswith(found["packages"]["torch"].split("+")[0])
    assert found["device"] == "cpu"
    assert found["threads"] >= 1


@pytest.mark.parametrize("lean", [True, False])
def test_freed_memory_is_given_back_where_that_is_wanted(
    lean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(
        "cifar_cli.training.runtime._return_freed_memory", lambda: calls.append(True)
    )
    Runtime.start(tiny_config(device="cpu", runtime__lean_memory=lean))
    assert calls == [True] * lean
