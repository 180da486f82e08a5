"""Device, precision, threads, seeds and signals: how the same mathematics is run."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cifar_cli import __version__, kernels
from cifar_cli.config import Config
from cifar_cli.data.cache import home
from cifar_cli.data.loader import count_at
from cifar_cli.errors import ConfigError, OutOfMemoryError, is_out_of_memory
from cifar_cli.training.temporary import name_temporary_folder
from cifar_cli.training.threads import limit_threads

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
COMPILER_CACHE = "TORCHINDUCTOR_CACHE_DIR"
EVAL_BATCH = {"cpu": 500, "mps": 1000, "cuda": 2500}  # images of 32 x 32


def devices_here() -> list[str]:
    """Which of `cuda`, `mps` and `cpu` are present, the quickest first."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [*(name for name, is_there in there.items() if is_there), "cpu"]


def resolve_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `mps` means here.

    Raises:
        ConfigError: The device is not present.
    """
    # Where a GPU's driver is too old, torch says so, once a process, and that there is no GPU.
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        present = devices_here()
    reasons = [str(warning.message) for warning in said]
    if name == "auto":
        name = present[0]
        for reason in reasons:
            warnings.warn(reason, stacklevel=2)
    if name not in present:
        here = ", ".join(present)
        why = f" torch says: {' '.join(reasons)}" if name == "cuda" and reasons else ""
        raise ConfigError(f"--device {name}: not available here (present: {here}). Try auto.{why}")
    return torch.device(name)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


def prepare_runtime(config: Config, say: Callable[[str], None] = _warn) -> torch.device:
    """Set threads and precision, and return the device.

    Args:
        config: What was asked for.
        say: Called with a remark if a setting asks for more than there is.

    Raises:
        ConfigError: The device is not present, or torch.compile has no safe place for its code.
    """
    name_temporary_folder()
    if config.runtime.compile:
        _name_compiler_cache()
    wanted = config.runtime.threads
    threads = limit_threads(wanted)
    if wanted and threads < wanted:
        say(f"runtime.threads={wanted}: only {threads} can compute at once here; using {threads}.")
    device = resolve_device(config.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = config.runtime.precision != "fp32"
    if device.type == "cpu" and config.runtime.lean_memory:
        _return_freed_memory()
    return device


def _name_compiler_cache() -> None:
    """Have torch.compile keep its code in the user's own cache folder, unless it is set already.

    By default it loads code from a folder in the temporary folder, under a name that anybody could
    have taken first.

    Raises:
        ConfigError: Somebody else could write there too, or it cannot be made.
    """
    if os.environ.get(COMPILER_CACHE) or os.name != "posix":
        return
    from cifar_cli.kernels.trusted import UntrustedError, trusted_folder

    folder = home(None).absolute() / "torch-compile"
    try:
        with trusted_folder(folder):
            os.environ[COMPILER_CACHE] = str(folder)
    except (OSError, UntrustedError) as error:
        raise ConfigError(
            f"runtime.compile=true: code cannot be kept in {folder}: {error}.",
            f"Set {COMPILER_CACHE} to a folder of your own, or use --set runtime.compile=false.",
        ) from error


def eval_batch(device: torch.device, side: int) -> int:
    """How many images of that side, in pixels, are looked at in one go where none is learned from.

    Fewer of larger ones, for the memory, and as GPU kernels count a tensor's numbers in 32 bits.
    """
    return count_at(side, EVAL_BATCH[device.type])


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was told; clocks would else measure the telling."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _return_freed_memory() -> None:
    """Have glibc give large freed blocks back to the system at once, and keep the small ones.

    Left alone, it comes to keep blocks of up to 32 MiB, and scatters them until the peak of a long
    run is a gigabyte above that of its first steps; and it gives up small ones at the heap's end,
    only to ask for them again a moment later. Elsewhere than on glibc this does nothing.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 4 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 * 2**20)


def compiled_code_folder() -> Path:
    """Where code that is compiled on this machine is kept."""
    # Not in the configuration's own folder, which may have come with a checkpoint from elsewhere.
    return home(None) / "native"


def place_model(model: nn.Module, config: Config, device: torch.device) -> nn.Module:
    """Move a model to the device, into the configured memory layout, with kernels on a CPU."""
    runtime = config.runtime
    if device.type == "cpu":
        fits = runtime.precision != "bf16" and runtime.channels_last
        wanted = fits and runtime.winograd and runtime.native
        cache = compiled_code_folder() if wanted else None
        kernels.accelerate(model, convolutions=runtime.winograd, cache=cache)
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    # torch's stubs know no memory_format for Module.to.
    placed: nn.Module = model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    return placed


def autocast(config: Config, device: torch.device) -> torch.autocast:
    """The precision context: bf16 where asked for or, with auto, where a GPU has it."""
    wanted = config.runtime.precision
    # Older GPUs emulate it, slowly.
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = wanted == "bf16" or (wanted == "auto" and has_bf16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """State of the generators that initialisation and dropout draw from, uint8 tensors."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_rng(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put back what `rng_state` returned; a state of an absent device is left out."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


def describe_environment(device: torch.device, model: nn.Module) -> dict[str, Any]:
    """Versions and hardware, and what of it the placed model uses; plain values, for `env.json`."""
    packages = ("torch", "torchvision", "albumentations", "numpy", "pydantic")
    return {
        "cifar_resnet": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "compiled_code": kernels.uses_compiled_code(model),
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
    }


def _processor() -> str:
    """The processor's model where the system tells (Linux), else as Python knows it."""
    with suppress(OSError):
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if model := re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE):
            return model[1]
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def smaller_batch(config: Config) -> tuple[str, str]:
    """When memory ran out, and what to do, if a training step does not fit into it."""
    size, narrower = config.train.batch_size, _narrower(config)
    if size == 1:
        smaller = f"--set data.image_size={config.data.image_size // 2}, or " * _can_shrink(config)
        return "in a training step of one image", f"Try {smaller}a narrower network: {narrower}."
    return f"at batch size {size}", (
        f"Try --batch-size {max(1, size // 2)} (and divide --max-lr alike), or a narrower network: "
        f"{narrower}."
    )


def fewer_images(config: Config) -> tuple[str, str]:
    """The same if the images do not fit into memory, all of which are held there."""
    smaller = f"--set data.image_size={config.data.image_size // 2}, or " * _can_shrink(config)
    return (
        f"while loading the images of {config.data.source}",
        f"Try {smaller}a folder with fewer images (--data), or allow more memory.",
    )


def smaller_network(config: Config) -> tuple[str, str]:
    """The same if the network itself does not fit into memory."""
    return "while building the network", f"Try a narrower one: {_narrower(config)}."


def _can_shrink(config: Config) -> bool:
    return config.data.image_size >= 2 * 32 and config.eval_size == config.data.image_size


def _narrower(config: Config) -> str:
    model = config.model
    if model.name == "speed_resnet":
        return f"--set 'model.widths={[max(1, width // 2) for width in model.widths]}'"
    return f"--set model.width={max(1, model.width // 2)}"


@contextmanager
def memory_errors(when: str, remedy: str = "") -> Iterator[None]:
    """Turn an out-of-memory failure of torch or Python into one with a remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"Out of memory {when}.", remedy) from error


@contextmanager
def compile_errors(config: Config) -> Iterator[None]:
    """Turn a failure of torch.compile, if `runtime.compile` asks for it, into one with a remedy.

    Raises:
        ConfigError: It cannot compile here, as without a C++ compiler.
    """
    try:
        yield
    except Exception as error:
        # Its errors have many classes, which are slow to import.
        is_its = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
        if not (config.runtime.compile and is_its):
            raise
        why = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise ConfigError(
            f"runtime.compile=true: torch.compile fails here ({type(error).__name__}: {why:.200}).",
            "Install a C++ compiler (g++), or use --set runtime.compile=false.",
        ) from error
