"""One image file to RGB pixels, or the reason why it is none."""

from __future__ import annotations

import importlib
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

# Each image is decoded before it is resized; a file that unpacks to more than this is refused.
MAX_PIXELS = 64_000_000
# Resizing takes memory by the side too; JPEG and GIF have no longer ones.
MAX_SIDE = 65_535
MAX_BYTES = 256 * 2**20
_PLUGINS = {
    "PNG": ("Png", (".png",)),
    "JPEG": ("Jpeg", (".jpg", ".jpeg")),
    "BMP": ("Bmp", (".bmp",)),
    "GIF": ("Gif", (".gif",)),
    "TIFF": ("Tiff", (".tif", ".tiff")),
    "WEBP": ("WebP", (".webp",)),
    "PPM": ("Ppm", (".ppm",)),
    "AVIF": ("Avif", (".avif",)),
}


def _known_formats() -> tuple[str, ...]:
    """The formats that are meant, of those that this Pillow can read."""
    for plugin, _ in _PLUGINS.values():
        with suppress(ImportError):  # an older Pillow has no AVIF
            importlib.import_module(f"PIL.{plugin}ImagePlugin")
    return tuple(name for name in _PLUGINS if name in Image.OPEN)


# Pillow would try all that it has, by content and not by name, and hands EPS to Ghostscript, whose
# PostScript is a program.
FORMATS = _known_formats()
EXTENSIONS = tuple(ending for name in FORMATS for ending in _PLUGINS[name][1])


class NoImageError(Exception):
    """A file that cannot be read as an image; its text is the reason."""


def decode_image(data: bytes, size: int) -> tuple[npt.NDArray[np.uint8], bool]:
    """Decode a file's content, uint8 (size, size, 3), and tell whether it had to be resized.

    16-bit gray is scaled to 8 bits, transparency is dropped. However many threads decode at once,
    their images have no more than `MAX_PIXELS` together.

    Raises:
        NoImageError: It is empty, damaged, not an image, or too large.
    """
    if not data:
        raise NoImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise Image.DecompressionBombError
            if max(image.size) > MAX_SIDE:
                raise NoImageError(f"one of its sides is longer than {MAX_SIDE:,} pixels")
            with _room.taken(pixels):
                return _resized(_rgb(image), size)
    except (MemoryError, NoImageError):
        raise
    except UnidentifiedImageError as error:
        raise NoImageError(f"it is not an image in {', '.join(FORMATS)} format") from error
    except Image.DecompressionBombError as error:
        raise NoImageError(f"it unpacks to more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # on damaged files, Pillow's decoders raise all kinds
        raise NoImageError(str(error) or type(error).__name__) from error


class _Room:
    """How many pixels all threads together may have at once."""

    def __init__(self, pixels: int) -> None:
        self.free = pixels
        self.changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait for room for so many pixels, no more than there are in all, and hold it."""
        with self.changed:
            self.changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self.changed:
                self.free += pixels
                self.changed.notify_all()


_room = _Room(MAX_PIXELS)


def _resized(rgb: Image.Image, size: int) -> tuple[npt.NDArray[np.uint8], bool]:
    is_other = rgb.size != (size, size)
    if is_other:
        rgb = rgb.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(rgb, np.uint8), is_other


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # Pillow would clip 16-bit gray to white; of 16-bit colours it takes the high byte.
        high = np.asarray(image) >> 8
        return Image.fromarray(high.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise NoImageError("it has 32-bit pixels with no known maximum; save it with 8 or 16 bits")
    return image if image.mode == "RGB" else image.convert("RGB")
