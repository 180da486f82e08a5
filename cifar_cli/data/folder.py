"""Images in class folders: `train/<class>/*` and `test/<class>/*` (or `val/`)."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from cifar_cli.data.cache import cached
from cifar_cli.data.types import Dataset, ImageSet, Progress
from cifar_cli.errors import DataError
from cifar_cli.rundir import write_text

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"}
# Each image is decoded before it is resized; a file that unpacks to more than this is refused.
MAX_PIXELS = 64_000_000

Entry = tuple[str, str, Path, os.stat_result]  # split, class, file, its stat


def load_folder(root: Path, size: int, cache: Path, progress: Progress | None = None) -> Dataset:
    """Read class folders, resizing each image to `size` x `size` once.

    The cache is keyed by what the files hold. Because reading every file only to find that out
    would cost seconds, a list of names, sizes and change times stands for the content as long
    as it stays the same.

    Raises:
        DataError: A split is missing or empty, classes differ, or a file is no image.
    """
    entries, splits = _entries(root)
    class_names = _class_names(entries, splits)
    listing = hashlib.sha256()
    for split, label, path, stat in entries:
        listing.update(
            f"{split}/{label}/{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0"
            f"{stat.st_ctime_ns}\0{stat.st_ino}\n".encode()
        )
    known = cache / "decoded" / "listings" / f"{listing.hexdigest()[:32]}.json"
    known_key = _known_key(known)
    contents: dict[Path, bytes] = {}
    key = known_key or _content_key(entries, contents, progress)

    def decode() -> Dataset:
        sets = [
            _decode([e for e in entries if e[0] == split], class_names, size, contents, progress)
            for split in splits
        ]
        return Dataset(root.resolve().name, class_names, sets[0], sets[1])

    dataset = cached(cache, f"folder-{key}-{size}px", decode)
    if known_key is None:
        write_text(known, json.dumps({"content": key}))
    return dataset


def is_folder_dataset(root: Path) -> bool:
    """Whether `root` looks like class folders."""
    return (root / "train").is_dir()


def folder_classes(root: Path) -> tuple[str, ...]:
    """Names of the classes, sorted.

    Raises:
        DataError: A split is missing or empty, or classes differ.
    """
    return _class_names(*_entries(root))


def _entries(root: Path) -> tuple[list[Entry], dict[str, Path]]:
    splits = {"train": root / "train", "test": _test_folder(root)}
    return [entry for split, folder in splits.items() for entry in _scan(split, folder)], splits


def _test_folder(root: Path) -> Path:
    for name in ("test", "val"):
        if (root / name).is_dir():
            return root / name
    raise DataError(
        f"{root} has a train/ folder but neither test/ nor val/. Put the images that are to be "
        "validated on into test/<class>/."
    )


def _scan(split: str, folder: Path) -> Iterator[Entry]:
    try:
        for label in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if not label.is_dir() or label.name.startswith("."):
                continue
            with os.scandir(label.path) as files:
                for file in sorted(files, key=lambda f: f.name):
                    if Path(file.name).suffix.lower() in EXTENSIONS and file.is_file():
                        yield split, label.name, Path(file.path), file.stat()
    except OSError as error:
        raise DataError(f"Cannot read {error.filename}: {error.strerror}.") from error


def _class_names(entries: list[Entry], splits: dict[str, Path]) -> tuple[str, ...]:
    found = {split: {e[1] for e in entries if e[0] == split} for split in splits}
    for split, folder in splits.items():
        if not found[split]:
            raise DataError(
                f"{folder} holds no images: expected {folder.name}/<class>/<image>.png "
                f"(or {', '.join(sorted(EXTENSIONS - {'.png'}))})."
            )
    if unknown := sorted(found["test"] - found["train"]):
        raise DataError(
            f"{splits['test']} has the class {unknown[0]!r}, which {splits['train']} does not. "
            "Every class needs training images."
        )
    if len(found["train"]) < 2:
        raise DataError(f"{splits['train']} has one class only; two are the least.")
    return tuple(sorted(found["train"]))


def _known_key(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["content"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _content_key(
    entries: list[Entry], contents: dict[Path, bytes], progress: Progress | None
) -> str:
    """Hash of all names and bytes; the bytes of small collections are kept for decoding."""
    digest = hashlib.sha256()
    keep = sum(stat.st_size for *_, stat in entries) < 512 * 2**20
    for number, (split, label, path, _) in enumerate(entries):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"Cannot read {path}: {error.strerror}.") from error
        digest.update(f"{split}/{label}/{path.name}\0{len(data)}\0".encode())
        digest.update(data)
        if keep:
            contents[path] = data
        if progress and number % 500 == 0:
            progress("Reading images", number, len(entries))
    return digest.hexdigest()[:32]


def _decode(
    entries: list[Entry],
    class_names: tuple[str, ...],
    size: int,
    contents: dict[Path, bytes],
    progress: Progress | None,
) -> ImageSet:
    images = np.empty((len(entries), size, size, 3), np.uint8)
    number_of = {name: number for number, name in enumerate(class_names)}

    def one(row: int) -> None:
        path = entries[row][2]
        images[row] = _open(path, contents.get(path), size)

    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(one, range(len(entries)), chunksize=64)):
            if progress and done % 500 == 0:
                progress(f"Decoding {entries[0][0]} images", done, len(entries))
    labels = torch.tensor([number_of[e[1]] for e in entries])
    return ImageSet(torch.from_numpy(images), labels, torch.arange(len(entries)))


def _open(path: Path, data: bytes | None, size: int) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data) if data is not None else path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            rgb = image.convert("RGB")
        if rgb.size != (size, size):
            rgb = rgb.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(rgb, np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be read as an image: {error}. Remove or replace it."
        ) from error
