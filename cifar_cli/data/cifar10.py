"""CIFAR-10 in its original form: the archive, or the folder that it unpacks to.

Every batch is checked against its published MD5 before anything is unpickled, and the unpickler
knows only what the original batches hold. Source: https://www.cs.toronto.edu/~kriz/cifar.html;
the batches' checksums are those that torchvision publishes.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifar_cli.data.cache import cached
from cifar_cli.data.types import Dataset, ImageSet, Progress
from cifar_cli.errors import DataError

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
ARCHIVE_BYTES = 170_498_071
TRAIN_BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
TEST_BATCHES = {"test_batch": "40351d587109b95175f43aff81a1287e"}
CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def load_archive(path: Path, cache: Path) -> Dataset:
    """Read `cifar-10-python.tar.gz`, whose checksum was checked, without unpacking it to disk."""

    def read() -> dict[str, bytes]:
        with tarfile.open(path, "r:gz") as archive:
            batches = {}
            for name, md5 in {**TRAIN_BATCHES, **TEST_BATCHES}.items():
                member = archive.extractfile(f"{FOLDER}/{name}")
                assert member is not None, name
                batches[name] = member.read()
                _check(batches[name], md5, f"{path}: {name}")
            return batches

    return cached(cache, "cifar10", lambda: _decode(read()))


def load_batches(folder: Path, cache: Path) -> Dataset:
    """Read the folder `cifar-10-batches-py`, or one that holds it.

    Raises:
        DataError: A batch is missing or is not the published one.
    """
    folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    batches: dict[str, bytes] = {}
    for name in (*TRAIN_BATCHES, *TEST_BATCHES):
        try:
            batches[name] = (folder / name).read_bytes()
        except OSError as error:
            raise DataError(f"Cannot read {folder / name}: {error.strerror}.") from error
    for name, md5 in {**TRAIN_BATCHES, **TEST_BATCHES}.items():
        _check(batches[name], md5, f"{folder / name}")
    return cached(cache, "cifar10", lambda: _decode(batches))


def is_batches_folder(path: Path) -> bool:
    """Whether `path` is, or holds, the folder of the original batches."""
    return (path / FOLDER).is_dir() or (path / "data_batch_1").is_file()


def check_archive(path: Path, progress: Progress | None = None) -> None:
    """Compare an archive's MD5 with the published one; see `check_md5`."""
    check_md5(path, ARCHIVE_MD5, progress)


def check_md5(path: Path, expected: str, progress: Progress | None = None) -> None:
    """Compare a file's MD5 with `expected`.

    Raises:
        DataError: They differ, or the file cannot be read.
    """
    digest, done = hashlib.md5(usedforsecurity=False), 0
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
                done += len(block)
                if progress:
                    progress(f"Checking {path.name}", done, total)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    if digest.hexdigest() != expected:
        raise DataError(
            f"{path} is not the published file: its MD5 is {digest.hexdigest()}, expected "
            f"{expected} ({total:,} bytes). Remove it and get it again."
        )


class _PlainUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain values; refuses every other class."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "numpy" and name in ("dtype", "ndarray"):
            return getattr(np, name)
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return _reconstruct()
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR-10 batch")


def _reconstruct() -> Callable[..., Any]:
    """NumPy's own array builder, wherever this version of NumPy keeps it."""
    function: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]
    return function


def _check(data: bytes, expected: str, origin: str) -> None:
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DataError(
            f"{origin} is not the published CIFAR-10 batch: its MD5 is {found}, expected "
            f"{expected}. "
            f"Get {ARCHIVE} again; images in class folders are read without checksums."
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
