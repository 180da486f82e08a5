"""Where and how a network computes: device, precision, memory layout, kernels."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar_cli import kernels
from cifar_cli.config import Config, RuntimeConfig
from cifar_cli.data.cache import home
from cifar_cli.data.loader import count_at
from cifar_cli.errors import ConfigError
from cifar_cli.training.temporary import name_temporary_folder
from cifar_cli.training.threads import limit_threads

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
COMPILER_CACHE = "TORCHINDUCTOR_CACHE_DIR"
EVAL_BATCH = {"cpu": 500, "mps": 1000, "cuda": 2500}  # images of 32 x 32


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


@dataclass(frozen=True)
class Runtime:
    """A device, and the settings by which networks compute on it."""

    device: torch.device
    settings: RuntimeConfig

    @classmethod
    def start(cls, config: Config, say: Callable[[str], None] = _warn) -> Runtime:
        """Choose the device, and prepare the whole process. All process-wide effects are here:

        the folder of temporary files, the cache of torch.compile (environment variable), the number
        of threads, cuDNN's search for algorithms and TF32, and how glibc returns memory.

        Args:
            config: What was asked for.
            say: Called with a remark if a setting asks for more than there is.

        Raises:
            ConfigError: The device is not present, or torch.compile has no safe place for its code.
        """
        name_temporary_folder()
        settings = config.runtime
        if settings.compile:
            _name_compiler_cache()
        threads = limit_threads(settings.threads)
        if settings.threads and threads < settings.threads:
            say(
                f"runtime.threads={settings.threads}: only {threads} can compute at once here; "
                f"using {threads}."
            )
        device = resolve_device(config.device)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.backends.cudnn.allow_tf32 = settings.precision != "fp32"
        if device.type == "cpu" and settings.lean_memory:
            _return_freed_memory()
        return cls(device, settings)

    @property
    def uses_bf16(self) -> bool:
        """Whether it computes in bfloat16: as set or, with `auto`, on a GPU that has it."""
        if self.settings.precision != "auto":
            return self.settings.precision == "bf16"
        # Older GPUs emulate it, slowly.
        is_cuda = self.device.type == "cuda"
        return is_cuda and torch.cuda.is_bf16_supported(including_emulation=False)

    @property
    def channels_last(self) -> bool:
        """Whether images and filters have the memory layout channels_last."""
        return self.settings.channels_last

    def autocast(self) -> torch.autocast:
        """A context in which forward passes have the configured precision."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.uses_bf16)

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, in the configured memory layout, with kernels on a CPU."""
        settings = self.settings
        if self.device.type == "cpu":
            fits = settings.precision != "bf16" and settings.channels_last
            is_wanted = fits and settings.winograd and settings.native
            cache = compiled_code_folder() if is_wanted else None
            kernels.accelerate(model, convolutions=settings.winograd, cache=cache)
        layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        # torch's stubs know no memory_format for Module.to.
        placed: nn.Module = model.to(device=self.device, memory_format=layout)  # type: ignore[call-overload]
        return placed

    def forward_of(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """How to call a placed model in training: by torch.compile if that is set."""
        return torch.compile(model) if self.settings.compile else model

    def synchronize(self) -> None:
        """Wait until a GPU has done its work, which else only its queue would be measured of."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def eval_batch(self, side: int) -> int:
        """Number of images of `side` pixels that are evaluated at once.

        Fewer of larger ones, for the memory, and as GPU kernels index a tensor in 32 bits.
        """
        return count_at(side, EVAL_BATCH[self.device.type])


def devices_here() -> list[str]:
    """Which of `cuda`, `mps` and `cpu` are present, the fastest first."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [*(name for name, is_present in present.items() if is_present), "cpu"]


def resolve_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `mps` means here.

    Raises:
        ConfigError: The device is not present.
    """
    # Where a GPU's driver is too old, torch says so, once a process, and that there is no GPU.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        present = devices_here()
    reasons = [str(warning.message) for warning in caught]
    if name == "auto":
        name = present[0]
        for reason in reasons:
            warnings.warn(reason, stacklevel=2)
    if name not in present:
        here = ", ".join(present)
        why = f" torch says: {' '.join(reasons)}" if name == "cuda" and reasons else ""
        raise ConfigError(f"--device {name}: not available here (present: {here}). Try auto.{why}")
    return torch.device(name)


def compiled_code_folder() -> Path:
    """Where code that is compiled on this machine is kept."""
    # Not in the configuration's own folder, which may have come with a checkpoint from elsewhere.
    return home(None) / "native"


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
