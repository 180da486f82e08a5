"""Pictures as people have them, to the pixels that training would take: the same code path."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from cifar_cli.data.sources.decode import decode_image
from cifar_cli.data.sources.folder import read_file
from cifar_cli.data.sources.pixels import NoImageError, Rules, square
from cifar_cli.errors import DataError
from cifar_cli.text import printable

Pixels = npt.NDArray[np.uint8]
One = str | os.PathLike[str] | Image.Image | npt.NDArray[np.generic] | Tensor
"""A path, an image of Pillow's, or an array or tensor with the pixels of one image."""
Inputs = One | Iterable[One]
"""One or several; an array or tensor with four dimensions is a batch."""
_CHANNELS = (1, 3, 4)


def is_one(images: Inputs) -> bool:
    """Whether that is one image, not several."""
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim < 4
    return isinstance(images, str | os.PathLike | Image.Image)


def each_input(images: Inputs) -> Iterator[One]:
    """The images one by one."""
    if not isinstance(images, Iterable) and not is_one(images):
        raise DataError(
            f"{type(images).__name__} is no image.", "Give a path, an image, an array or a tensor."
        )
    if is_one(images):
        yield images  # type: ignore[misc]
    else:
        yield from images  # type: ignore[misc]


def to_pixels(image: One, rules: Rules) -> Pixels:
    """The pixels of one image as a network sees them, uint8 (S, S, 3).

    Raises:
        DataError: It cannot be read, or is no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about images that it reads anyway
            if isinstance(image, str | os.PathLike):
                return file_pixels(Path(image), rules)
            return square(
                image if isinstance(image, Image.Image) else _picture(image), rules
            ).pixels
    except NoImageError as error:
        name = printable(os.fspath(image)) if isinstance(image, str | os.PathLike) else "An image"
        raise DataError(f"{name} cannot be read as an image: {error}.") from error


def file_pixels(path: Path, rules: Rules) -> Pixels:
    """The pixels of an image file.

    Raises:
        NoImageError: It is not an image, damaged, or too large.
        DataError: The file cannot be read.
    """
    return decode_image(read_file(path), rules).pixels


def _picture(values: npt.NDArray[np.generic] | Tensor) -> Image.Image:
    """An array or tensor as an image: (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels."""
    if isinstance(values, Tensor):  # numpy has no bfloat16
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    array = np.asarray(values)
    shape = array.shape
    if array.ndim == 3 and shape[2] not in _CHANNELS and shape[0] in _CHANNELS:
        array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _CHANNELS):
        raise NoImageError(
            f"its shape is {' x '.join(map(str, shape))}, not height x width x channels with 1, 3 "
            "or 4 channels"
        )
    if 0 in shape:
        raise NoImageError("it has no pixels")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(_bytes(array)))


def _bytes(array: npt.NDArray[np.generic]) -> Pixels:
    """As uint8; floats are fractions of white, as torchvision's `ToTensor` gives them."""
    if array.dtype == np.uint8:
        return array  # type: ignore[return-value]
    if array.dtype.kind != "f":
        raise NoImageError(f"its pixels are {array.dtype}; give uint8 in 0..255 or floats in 0..1")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # NaN too
        raise NoImageError(
            f"its pixels are floats from {low:.3g} to {high:.3g}; give floats in 0..1, or uint8. "
            "Normalised images are for the network itself"
        )
    return (np.asarray(array, np.float64) * 255).round().astype(np.uint8)


def stacked(pixels: list[Pixels], size: int) -> Tensor:
    """As one batch, uint8 (N, size, size, 3)."""
    if not pixels:
        return torch.empty(0, size, size, 3, dtype=torch.uint8)
    return torch.from_numpy(np.stack(pixels))
