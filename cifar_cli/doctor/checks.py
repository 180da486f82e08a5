"""Check an installation: what would keep a command from working, and how to fix it.

Each check stands alone and ends in one `Check`, whatever goes wrong in it, and within a limit of
time. Heavy libraries are imported inside the checks, since one that cannot be imported is among
the faults to be found.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cifar_cli.config import Config
from cifar_cli.doctor.versions import check_versions
from cifar_cli.errors import (
    INSTALL_AGAIN,
    CifarError,
    ConfigError,
    DataError,
    OutOfMemoryError,
    StorageError,
    is_out_of_memory,
)
from cifar_cli.storage import atomic_file, check_place
from cifar_cli.training.temporary import SET_ONE, name_temporary_folder

# Where a run needs more than this, it is a matter of its images, not of the installation.
RUN_BYTES = 400 * 10**6
"""The baseline's last, previous and best checkpoint, and the one that is being written."""
DATA_BYTES = 600 * 10**6
"""The archive of CIFAR-10 and its decoded images, and the copy that is being written."""
LIMIT_SECONDS = 120.0
"""For one check. Most take a second; on a slow machine, importing torch takes half a minute."""
DATA_LIMIT_SECONDS = 900.0
"""For reading all images."""
MORE_MEMORY = "Close other programs, or allow more memory (ulimit -v, the container's limit)."
MORE_THREADS = "Allow more processes (ulimit -u), or more memory (ulimit -v)."


@dataclass(frozen=True)
class Check:
    """What one check found. `ok` with a remedy is a hint: nothing is wrong, but something to do."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    exit_code: int = 0
    hangs: bool = False
    """It did not end in time, and may still be running."""


Found = str | tuple[str, str]
"""What was found, or what was found and a hint."""


def examine(
    config: Config, runs: Path, on_check: Callable[[str, int, int | None], None]
) -> Iterator[Check]:
    """Yield one `Check` after another.

    Args:
        config: Data, folders and device as a command would take them.
        runs: The folder that is to hold runs.
        on_check: Called with a text, the checks done, and the checks in all.
    """
    name_temporary_folder()
    checks = _checks(config, runs)
    for done, (name, (look, remedy, code)) in enumerate(checks.items()):
        on_check("Checking", done, len(checks))
        limit = DATA_LIMIT_SECONDS if name == "data" else LIMIT_SECONDS
        check = _in_time(name, look, remedy, code, limit)
        yield check
        if name == "versions" and check.exit_code == OutOfMemoryError.exit_code:
            return  # what cannot be loaded once would only fail again, in other words


def _in_time(name: str, look: Callable[[], Found], remedy: str, code: int, limit: float) -> Check:
    """Carry out a check in a thread of its own, which is left alone if it takes too long."""
    ended: list[Check] = []
    thread = threading.Thread(
        target=lambda: ended.append(_carry_out(name, look, remedy, code)), daemon=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            thread.start()
            thread.join(limit)
        except KeyboardInterrupt:
            thread.join(1)  # so that most do not run while the program ends
            raise
        except RuntimeError as error:
            return Check(name, False, f"The check cannot be started: {error}.", MORE_THREADS, 6)
    if ended:
        return ended[0]
    return Check(name, False, f"This has not ended after {limit:g} s.", remedy, code, hangs=True)


def _checks(config: Config, runs: Path) -> dict[str, tuple[Callable[[], Found], str, int]]:
    """By name: what looks, how to mend it, and the exit code of a failure that has none."""
    from_data = "Choose other images with --data. The built-in --data shapes needs no files."
    return {
        "versions": (
            _versions,
            f"Please {INSTALL_AGAIN}",
            ConfigError.exit_code,
        ),
        "device": (lambda: _device(config), "Use --device auto, or cpu.", ConfigError.exit_code),
        "free space": (
            lambda: _space(config, runs),
            "Free some space, or name a folder elsewhere with --run-dir and --data-dir.",
            StorageError.exit_code,
        ),
        "write access": (
            lambda: _write_access(config, runs),
            "Name a folder that may be written to with --run-dir, --data-dir or CIFAR_RESNET_HOME.",
            StorageError.exit_code,
        ),
        "data": (lambda: _data(config), from_data, DataError.exit_code),
        "training step": (
            lambda: _training_step(config),
            "Do not trust results of this device: use --device cpu, or install torch anew.",
            5,
        ),
        "augmentation": (
            lambda: _augmentation(config),
            "Use --set augment.form=tensor, which needs neither Albumentations nor workers.",
            5,
        ),
    }


def _carry_out(name: str, look: Callable[[], Found], remedy: str, code: int) -> Check:
    try:
        found = look()
    except CifarError as error:
        return Check(name, False, error.what, error.remedy or remedy, error.exit_code)
    except Exception as error:  # whatever a broken installation raises is what is looked for
        if is_out_of_memory(error):
            what = "There is not enough memory for it."
            return Check(name, False, what, MORE_MEMORY, OutOfMemoryError.exit_code)
        return Check(name, False, f"{type(error).__name__}: {error}", remedy, code)
    detail, hint = (found, "") if isinstance(found, str) else found
    return Check(name, True, detail, hint)


def _versions() -> Found:
    found = check_versions()
    _albumentations()
    return found


def _device(config: Config) -> Found:
    import torch

    from cifar_cli.training.runtime import Runtime, devices_here, resolve_device
    from cifar_cli.training.threads import limit_threads

    threads = limit_threads()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        device = resolve_device(config.device)
    others = [name for name in devices_here() if name != device.type]
    precision = "bf16" if Runtime(device, config.runtime).uses_bf16 else "fp32"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    also = f"; also here: {', '.join(others)}" if others else ""
    hint = " ".join(str(warning.message) for warning in said)
    count = f"{threads} CPU thread{'s' * (threads != 1)}"
    return f"{device.type} ({name}), {precision}, {count}{also}", hint


def _space(config: Config, runs: Path) -> Found:
    found, short = [], []
    for path, needed in _places(config, runs).items():
        free = shutil.disk_usage(_existing(path)).free
        found.append(f"{_gigabytes(free)} free for {path}")
        if free < needed:
            short.append(f"{path} has {_gigabytes(free)} free, {_gigabytes(needed)} are needed")
    if short:
        raise StorageError("; ".join(short) + ".")
    return "; ".join(found)


def _write_access(config: Config, runs: Path) -> Found:
    """Write, sync, rename, read and delete a file where the commands would."""
    content = os.urandom(2**20)
    for path in _places(config, runs):
        check_place(path)
        probe = _existing(path) / f".cifar-resnet-doctor-{secrets.token_hex(8)}"
        try:
            with atomic_file(probe, len(content)) as file:
                file.write(content)
            if probe.read_bytes() != content:
                raise StorageError(f"{probe} reads back other bytes than were written.")
        finally:
            probe.unlink(missing_ok=True)
    found = "writing, syncing, renaming, reading and deleting a file works in each folder"
    try:
        tempfile.TemporaryFile().close()
    except OSError:
        return f"{found}; there is no folder for temporary files", SET_ONE
    return found


def _places(config: Config, runs: Path) -> dict[Path, int]:
    """The folders that commands write to, and the bytes that they need there."""
    from cifar_cli.data.cache import home

    return {runs: RUN_BYTES, home(config.data.dir): DATA_BYTES}


def _existing(path: Path) -> Path:
    """The folder itself or, where it has not been made yet, the one that it would be made in."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def _gigabytes(count: int) -> str:
    return f"{count / 10**9:,.1f} GB"


def _data(config: Config) -> Found:
    from cifar_cli.data.cache import home
    from cifar_cli.data.sources.load import load_dataset, needs_download
    from cifar_cli.data.types import IN_WORDS

    source = config.data.source
    if needs_download(config.data):
        return (
            f"{source} is not in {home(config.data.dir)} yet",
            "The first command that needs it downloads it (170 MB, checked). Without a "
            "network: --data PATH of the archive, or --data shapes.",
        )
    dataset = load_dataset(config.data)
    counts = " and ".join(f"{len(s):,} {IN_WORDS[n]}" for n, s in dataset.splits.items())
    return f"{source}: {counts} images of {len(dataset.class_names)} classes, all readable"


def _training_step(config: Config) -> Found:
    from cifar_cli.doctor.selftest import compare_step
    from cifar_cli.kernels import status
    from cifar_cli.training.runtime import resolve_device

    found = compare_step(config)
    if resolve_device(config.device).type != "cpu":
        return found
    compiled = status()
    if compiled.is_loaded:
        return f"{found}; convolutions use code that was compiled here"
    hint = "With gcc (on Linux), convolutions would take about half the time."
    return f"{found}; convolutions use no compiled code: {compiled.problem}", hint


def _augmentation(config: Config) -> Found:
    from cifar_cli.doctor.selftest import compare_augmentation

    _albumentations()
    return compare_augmentation()


def _albumentations() -> None:
    """Fail where the wrong package answers to the name, or the right one does not load."""
    from cifar_cli.data.loader import make_augment

    make_augment(Config())
