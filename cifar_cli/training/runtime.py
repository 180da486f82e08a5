"""Device, precision, threads, seeds and signals: how the same mathematics is run."""

from __future__ import annotations

import ctypes
import platform
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cifar_cli import __version__
from cifar_cli.config import Config
from cifar_cli.data.cache import home
from cifar_cli.data.loader import count_at
from cifar_cli.errors import ConfigError, OutOfMemoryError, is_out_of_memory
from cifar_cli.models import native
from cifar_cli.models.convolution import Conv2d
from cifar_cli.training.temporary import name_temporary_folder
from cifar_cli.training.threads import limit_threads

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
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
        ConfigError: The device is not present.
    """
    name_temporary_folder()
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


def load_compiled_code() -> bool:
    """Have convolutions' compiled code at hand; False where there can be none."""
    # Not in the configuration's own folder, which may have come with a checkpoint from elsewhere.
    return native.load(home(None) / "native")


def place_model(model: nn.Module, config: Config, device: torch.device) -> nn.Module:
    """Move a model to the device, into the memory layout and onto the way that is configured."""
    runtime = config.runtime
    is_used = device.type == "cpu" and runtime.precision != "bf16" and runtime.channels_last
    compiled = is_used and runtime.winograd and runtime.native and load_compiled_code()
    for layer in model.modules():
        if isinstance(layer, Conv2d):
            layer.winograd, layer.compiled = runtime.winograd, compiled
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
        "compiled_code": any(m.compiled for m in model.modules() if isinstance(m, Conv2d)),
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


def smaller_batch(config: Config) -> str:
    """What to do if a training step does not fit into memory."""
    size, narrower = config.train.batch_size, _narrower(config)
    if size == 1:
        smaller = f"--set data.image_size={config.data.image_size // 2}, or " * _can_shrink(config)
        return f"in a training step of one image. Try {smaller}a narrower network: {narrower}."
    return (
        f"at batch size {size}. Try --batch-size {max(1, size // 2)} (and divide --max-lr alike), "
        f"or a narrower network: {narrower}."
    )


def fewer_images(config: Config) -> str:
    """What to do if the images do not fit into memory, all of which are held there."""
    smaller = f"--set data.image_size={config.data.image_size // 2}, or " * _can_shrink(config)
    return (
        f"while loading the images of {config.data.source}. Try {smaller}a folder with fewer "
        "images (--data), or allow more memory."
    )


def smaller_network(config: Config) -> str:
    """What to do if the network itself does not fit into memory."""
    return f"while building the network. Try a narrower one: {_narrower(config)}."


def _can_shrink(config: Config) -> bool:
    return config.data.image_size >= 2 * 32 and config.eval_size == config.data.image_size


def _narrower(config: Config) -> str:
    model = config.model
    if model.name == "speed_resnet":
        return f"--set 'model.widths={[max(1, width // 2) for width in model.widths]}'"
    return f"--set model.width={max(1, model.width // 2)}"


@contextmanager
def memory_errors(remedy: str) -> Iterator[None]:
    """Turn an out-of-memory failure of torch or Python into one with a remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"Out of memory {remedy}") from error


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
            f"runtime.compile=true: torch.compile fails here ({type(error).__name__}: {why:.200}). "
            "Install a C++ compiler (g++), or use --set runtime.compile=false."
        ) from error


class StopSignal:
    """Notes SIGINT, SIGTERM and SIGHUP, so that the loop can end after the step at hand.

    A second SIGINT interrupts at once.
    """

    def __init__(self, notify: Callable[[], None] = lambda: None) -> None:
        self.number: int | None = None
        self.notify = notify

    def __call__(self) -> bool:
        return self.number is not None

    @contextmanager
    def listening(self) -> Iterator[StopSignal]:
        """Install the handlers for the duration of a block (main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        # One that the process was started to ignore, as SIGHUP is by nohup, stays ignored.
        names = ("SIGINT", "SIGTERM", "SIGHUP")
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in heard}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: Any) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        self.notify()
