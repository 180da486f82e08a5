"""CIFAR-10 in its original form: the archive, or the folder that it unpacks to.

Every batch is checked against its published MD5 before anything is unpickled, and the unpickler
knows only what the original batches hold. Source: https://www.cs.toronto.edu/~kriz/cifar.html;
the batches' checksums are those that torchvision publishes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifar_cli.data.cache import Expected, cached
from cifar_cli.data.sources.format import Format, Request
from cifar_cli.data.types import Dataset, ImageSet, Progress
from cifar_cli.errors import DataError
from cifar_cli.storage import open_regular, read_regular

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
ARCHIVE_BYTES = 170_498_071
# A larger file is not the archive, and is not read to its end to find that out.
MAX_ARCHIVE_BYTES = 2**30
MAX_BATCH_BYTES = 64 * 2**20  # the published ones have 31 MB
TRAIN_BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
TEST_BATCHES = {"test_batch": "40351d587109b95175f43aff81a1287e"}
ALL_BATCHES = (*TRAIN_BATCHES, *TEST_BATCHES)
CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
EXPECTED = Expected(CLASS_NAMES, 32, {"train": 50_000, "test": 10_000}, exactly=False)


def load_archive(path: Path, cache: Path) -> Dataset:
    """Read `cifar-10-python.tar.gz` without unpacking it to disk; its checksum was checked before.

    Raises:
        DataError: It cannot be read, or has changed since it was checked.
    """

    def read() -> dict[str, bytes]:
        batches = {}
        try:
            with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:gz") as archive:
                for name in ALL_BATCHES:
                    member = archive.getmember(f"{FOLDER}/{name}")
                    if member.size > MAX_BATCH_BYTES:
                        raise DataError(f"{path}: {name} has {member.size:,} bytes.")
                    content = archive.extractfile(member)
                    batches[name] = content.read() if content else b""
        except OSError as error:
            raise DataError(f"Cannot read {path}: {error.strerror or error}.") from error
        except (tarfile.TarError, EOFError, LookupError, ValueError, zlib.error) as error:
            raise DataError(f"{path} cannot be read as an archive: {error}.") from error
        for name, data in batches.items():
            _check(data, name, f"{path}: {name}")
        return batches

    return cached(cache, "cifar10", EXPECTED, lambda: _decode(read()))


def load_batches(folder: Path, cache: Path) -> Dataset:
    """Read the folder `cifar-10-batches-py`, or one that holds it.

    Raises:
        DataError: A batch is missing or is not the published one.
    """
    folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    batches: dict[str, bytes] = {}
    for name in ALL_BATCHES:
        try:
            batches[name] = read_regular(folder / name, MAX_BATCH_BYTES)
        except OSError as error:
            raise DataError(f"Cannot read {folder / name}: {error.strerror}.") from error
    for name, data in batches.items():
        _check(data, name, f"{folder / name}")
    return cached(cache, "cifar10", EXPECTED, lambda: _decode(batches))


def is_batches_folder(path: Path) -> bool:
    """Whether `path` is, or holds, the folder of the original batches."""
    return (path / FOLDER).is_dir() or (path / "data_batch_1").is_file()


def is_archive(path: Path) -> bool:
    """Whether a file is meant to be CIFAR-10's archive: by its name, size, or first member."""
    if not path.is_file():
        return False
    if path.name == ARCHIVE or path.stat().st_size == ARCHIVE_BYTES:
        return True
    with (
        suppress(OSError, EOFError, ValueError, zlib.error),
        open_regular(path) as file,
        gzip.GzipFile(fileobj=file) as unpacked,
    ):
        return unpacked.read(100).startswith(FOLDER.encode())
    return False


def check_archive(path: Path, progress: Progress | None = None) -> None:
    """Refuse an archive whose MD5 is not that of the published one; the file is not changed.

    Raises:
        DataError: It differs, or cannot be read.
    """
    if difference := difference_from(ARCHIVE_MD5, path, progress):
        raise DataError(
            f"{path} is not the published file of CIFAR-10: {difference}.",
            f"It stays as it is. Get {ARCHIVE} again, or name another source with --data.",
        )


def difference_from(md5: str, path: Path, progress: Progress | None = None) -> str:
    """How an archive differs from the one with this MD5; empty if it does not.

    Raises:
        DataError: It cannot be read.
    """
    digest, done = hashlib.md5(usedforsecurity=False), 0
    try:
        with open_regular(path) as file:
            total = os.fstat(file.fileno()).st_size
            if total > MAX_ARCHIVE_BYTES:
                return f"it has {total:,} bytes, expected {ARCHIVE_BYTES:,}"
            while block := file.read(2**20):
                digest.update(block)
                done += len(block)
                if progress:
                    progress(f"Checking {path.name}", done, total)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    if (actual := digest.hexdigest()) == md5:
        return ""
    return f"its MD5 is {actual}, expected {md5} ({total:,} bytes)"


class _PlainUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain values; refuses every other class."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "numpy" and name in ("dtype", "ndarray"):
            return getattr(np, name)
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return _reconstruct()
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR-10 batch")


def _reconstruct() -> Callable[..., Any]:
    """NumPy's own array builder, whose module depends on the version of NumPy."""
    function: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]
    return function


def _check(data: bytes, name: str, origin: str) -> None:
    expected = {**TRAIN_BATCHES, **TEST_BATCHES}[name]
    actual = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if actual != expected:
        raise DataError(
            f"{origin} is not the published CIFAR-10 batch: its MD5 is {actual}, expected "
            f"{expected}.",
            f"Get {ARCHIVE} again; images in class folders are read without checksums.",
        )


def _decode(batches: dict[str, bytes]) -> Dataset:
    splits = []
    for names in (TRAIN_BATCHES, TEST_BATCHES):
        images, labels = [], []
        for name in names:
            batch = _PlainUnpickler(io.BytesIO(batches[name]), encoding="bytes").load()
            images.append(batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            labels.extend(batch[b"labels"])
        pixels = torch.from_numpy(np.ascontiguousarray(np.concatenate(images)))
        splits.append(ImageSet(pixels, torch.tensor(labels), torch.arange(len(labels))))
    return Dataset("cifar10", CLASS_NAMES, splits[0], splits[1])


def _load_archive_file(request: Request) -> Dataset:
    check_archive(request.path, request.progress)
    return load_archive(request.path, request.cache)


CIFAR10_ARCHIVE = Format(
    "CIFAR-10",
    load=_load_archive_file,
    count_classes=lambda request: len(CLASS_NAMES),
    recognises=is_archive,
    image_size=32,
)
CIFAR10_BATCHES = Format(
    "CIFAR-10",
    load=lambda request: load_batches(request.path, request.cache),
    count_classes=lambda request: len(CLASS_NAMES),
    recognises=is_batches_folder,
    image_size=32,
)
