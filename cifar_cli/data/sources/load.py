"""From `data.source` to images: find, verify, decode."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cifar_cli.config import DataConfig
from cifar_cli.data.cache import home
from cifar_cli.data.sources.cifar10 import (
    ARCHIVE,
    FOLDER,
    check_archive,
    is_batches_folder,
    load_archive,
    load_batches,
)
from cifar_cli.data.sources.download import download_archive
from cifar_cli.data.sources.folder import folder_classes, is_folder_dataset, load_folder
from cifar_cli.data.sources.shapes import load_shapes
from cifar_cli.data.types import Dataset, Progress
from cifar_cli.errors import DataError, OutOfMemoryError, nearest_hint

NAMES = ("cifar10", "shapes")


def load_dataset(
    config: DataConfig, progress: Progress | None = None, suggested: str | None = None
) -> Dataset:
    """Load all images that `config.source` names.

    Args:
        config: Source, folder of downloads and caches, and size.
        progress: Told of progress.
        suggested: Another folder where CIFAR-10 may lie already, such as a checkpoint names. It is
            only read, and passed over if it holds anything else.

    Raises:
        DataError: They cannot be found, downloaded, verified or decoded.
        OutOfMemoryError: They do not fit into memory.
    """
    with _image_memory(config):
        if config.source == "shapes":
            return load_shapes(size=config.image_size)
        cache = home(config.dir)
        if config.source == "cifar10":
            _need_32_pixels(config)
            return _load_cifar10(cache, progress, suggested)
        return _load_path(config, cache, progress)


def _load_cifar10(cache: Path, progress: Progress | None, suggested: str | None) -> Dataset:
    if is_batches_folder(cache):
        return load_batches(cache, cache)
    if suggested and not os.path.lexists(cache / ARCHIVE):
        elsewhere = home(suggested)
        with suppress(DataError, OSError):
            if is_batches_folder(elsewhere):
                return load_batches(elsewhere, cache)
            check_archive(elsewhere / ARCHIVE, progress)
            return load_archive(elsewhere / ARCHIVE, cache)
    return load_archive(download_archive(cache, progress), cache)


def _load_path(config: DataConfig, cache: Path, progress: Progress | None) -> Dataset:
    path = Path(config.source).expanduser()
    if path.is_file():
        _need_32_pixels(config)
        check_archive(path, progress)
        return load_archive(path, cache)
    if is_batches_folder(path):
        _need_32_pixels(config)
        return load_batches(path, cache)
    if is_folder_dataset(path):
        return load_folder(path, config.image_size, cache, progress, config.skip_bad_images)
    raise _no_images(config.source)


@contextmanager
def _image_memory(config: DataConfig) -> Iterator[None]:
    """Say of memory that runs out that images wanted it, and what helps."""
    try:
        yield
    except MemoryError as error:
        side = config.image_size
        raise OutOfMemoryError(
            f"Out of memory: the images of {config.source}, decoded to {side} x {side} pixels, do "
            "not fit.",
            "Use fewer of them, a smaller data.image_size, or a machine with more memory.",
        ) from error


def count_classes(config: DataConfig) -> int:
    """Number of classes of `config.source`, without decoding an image.

    Raises:
        DataError: There is no such source.
    """
    path = Path(config.source).expanduser()
    if config.source in NAMES or path.is_file() or is_batches_folder(path):
        return 10
    if not is_folder_dataset(path):
        raise _no_images(config.source)
    return len(folder_classes(path))


def _no_images(source: str) -> DataError:
    path = Path(source).expanduser()
    if path.exists() and not path.is_dir():
        return DataError(f"--data {source!r} is neither a folder nor a regular file.")
    if path.is_dir():
        return DataError(
            f"{source} holds neither train/<class>/ folders nor {FOLDER}/.",
            "See doc/data.md for the layouts that are read.",
        )
    return DataError(
        f"--data {source!r}{nearest_hint(source, NAMES)}: not one of {', '.join(NAMES)}, and no "
        "file or folder of that name exists."
    )


def _need_32_pixels(config: DataConfig) -> None:
    if config.image_size != 32:
        raise DataError(f"data.image_size {config.image_size}: CIFAR-10 images are 32 pixels wide.")
