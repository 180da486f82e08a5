"""One image file to RGB pixels, or the reason why it cannot be read."""

from __future__ import annotations

import importlib
import io
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from PIL import Image, UnidentifiedImageError

from cifar_cli.data.sources.pixels import (
    NoImageError,
    Picture,
    Rules,
    TooLargeError,
    UnknownFormatError,
    square,
)

# Each image is decoded before it is resized; a file that unpacks to more than this is refused.
MAX_PIXELS = 64_000_000
# Resizing takes memory by the longer side too; JPEG and GIF allow no longer one.
MAX_SIDE = 65_535
MAX_BYTES = 256 * 2**20
# Decoders of these formats hold an image's pixels four times, others twice.
_COPYING = {"WEBP", "AVIF", "HEIF"}
# Each scan of a JPEG file goes over all pixels; about ten are usual.
MAX_SCANS = 100
# 0xFF and the kind of a segment that has a length; coded pixels contain none.
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE = b"\xda", b"\xd9"
# Numbers in one tag of a TIFF file, such as the offsets of its strips.
MAX_NUMBERS = 500_000
_BYTES = (1, 2, 7)  # types of tags that stay bytes
# Pillow reads many headers byte by byte: so many calls take about a second.
MAX_CALLS = 300_000
_PLUGINS = {
    "PNG": ("Png", (".png",)),
    "JPEG": ("Jpeg", (".jpg", ".jpeg", ".jfif")),
    "BMP": ("Bmp", (".bmp",)),
    "GIF": ("Gif", (".gif",)),
    "TIFF": ("Tiff", (".tif", ".tiff")),
    "WEBP": ("WebP", (".webp",)),
    "PPM": ("Ppm", (".ppm",)),
    "AVIF": ("Avif", (".avif",)),
    "HEIF": (None, (".heic", ".heif")),  # by the package pillow-heif
}


def _known_formats() -> tuple[str, ...]:
    """Those of the supported formats that this version of Pillow can read."""
    for plugin, _ in _PLUGINS.values():
        with suppress(ImportError):  # an older Pillow has no AVIF
            if plugin:
                importlib.import_module(f"PIL.{plugin}ImagePlugin")
            else:
                importlib.import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in _PLUGINS if name in Image.OPEN)


# Pillow would try all of its formats, by content, and would run EPS files, which are programs, in
# Ghostscript.
FORMATS = _known_formats()
EXTENSIONS = tuple(ending for name in FORMATS for ending in _PLUGINS[name][1])
MISSING = tuple(e for name, (_, all_) in _PLUGINS.items() if name not in FORMATS for e in all_)
"""Endings of formats that could be read with a newer Pillow, or with pillow-heif."""


def decode_image(data: bytes, rules: Rules, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a file's content.

    The images that all threads decode at once have at most `MAX_PIXELS` together.

    Args:
        data: The content.
        rules: What becomes of its pixels.
        max_pixels: Larger images are refused; at most `MAX_PIXELS`.

    Raises:
        NoImageError: It is empty or damaged.
        UnknownFormatError: It is not an image in a format that is read.
        TooLargeError: It has too many pixels.
    """
    if not data:
        raise NoImageError("the file is empty")
    try:
        file = _BoundedReader(data)
        with _opened(file) as image:
            pixels = image.width * image.height
            copies = 2 if image.format in _COPYING else 1
            most = min(max_pixels, MAX_PIXELS // copies)
            if pixels > most:
                raise TooLargeError(f"it unpacks to more than {most:,} pixels")
            if max(image.size) > MAX_SIDE:
                raise TooLargeError(f"one of its sides is longer than {MAX_SIDE:,} pixels")
            if image.format in ("JPEG", "MPO"):
                _check_jpeg(data)
            file.allow(pixels)
            with _budget.taken(pixels * copies):
                return square(image, rules)
    except (MemoryError, NoImageError):
        raise
    except UnidentifiedImageError as error:
        reason = f"it is not an image in {', '.join(FORMATS)} format"
        raise UnknownFormatError(reason) from error
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"it unpacks to more than {max_pixels:,} pixels") from error
    except Exception as error:  # on damaged files, Pillow's decoders raise all kinds
        raise NoImageError(str(error) or type(error).__name__) from error


def image_sides(data: bytes) -> tuple[int, int]:
    """Width and height of an image in pixels, from the file's header.

    Raises:
        NoImageError: It is damaged, or not an image.
    """
    try:
        with warnings.catch_warnings(action="ignore"), _opened(_BoundedReader(data)) as image:
            return image.size
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise NoImageError(str(error) or type(error).__name__) from error


def _opened(file: _BoundedReader) -> Image.Image:
    _check_tiff(file.getvalue())
    return Image.open(file, formats=FORMATS)


class _BoundedReader(io.BytesIO):
    """A file's content, with limits on how many bytes and calls a decoder may take.

    Chained headers, or tags that share their values, can make a small file take minutes or
    gigabytes.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._size = len(data)
        self._calls, self._bytes = MAX_CALLS + self._size // 512, 4 * self._size + 2**20

    def allow(self, pixels: int) -> None:
        """Raise the limits by what so many pixels need."""
        self._calls += 4 * pixels  # Pillow itself unpacks BMP files, a run at a time
        self._bytes += 4 * self._size + 64 * pixels

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._calls -= 1
        self._bytes -= len(data)
        if self._calls < 0 or self._bytes < 0:
            raise NoImageError("it is made of too many small parts")
        return data


def _check_jpeg(data: bytes) -> None:
    """Count the scans up to the end of the image; each may be a few bytes long."""
    scans, position = 0, 2
    while marker := _MARKER.search(data, position):
        if marker[1] == _END_OF_IMAGE:
            break
        scans += marker[1] == _START_OF_SCAN
        if scans > MAX_SCANS:
            raise NoImageError(f"it has more than {MAX_SCANS} scans")
        length = int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        position = marker.end() + length


def _check_tiff(data: bytes) -> None:
    """Limit the numbers in each tag, since Pillow makes each one a Python object."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return
    is_big = struct.unpack(f"{order}H", data[2:4].ljust(2, b"\0"))[0] == 43
    entry = struct.Struct(f"{order}HHQQ" if is_big else f"{order}HHII")
    header, count = ("8sQ", "Q") if is_big else ("4sI", "H")
    try:
        _, start = struct.unpack_from(f"{order}{header}", data)
        (entries,) = struct.unpack_from(f"{order}{count}", data, start)
        start += struct.calcsize(f"={count}")
        for number in range(min(entries, MAX_NUMBERS)):
            _, kind, values, _ = entry.unpack_from(data, start + number * entry.size)
            if values > MAX_NUMBERS and kind not in _BYTES:
                raise NoImageError(f"a tag has {values:,} numbers")
    except struct.error:
        return  # it is cut short: Pillow refuses it


class _PixelBudget:
    """Limits the pixels that all threads together decode at once."""

    def __init__(self, pixels: int) -> None:
        self.free = pixels
        self.changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until so many pixels are free, and hold them."""
        with self.changed:
            self.changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()


_budget = _PixelBudget(MAX_PIXELS)
