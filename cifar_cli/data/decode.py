"""One image file to RGB pixels, or the reason why it is none."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

# Each image is decoded before it is resized; a file that unpacks to more than this is refused.
MAX_PIXELS = 64_000_000


class NoImageError(Exception):
    """A file that cannot be read as an image; its text is the reason."""


def decode_image(data: bytes, size: int) -> tuple[npt.NDArray[np.uint8], bool]:
    """Decode a file's content, uint8 (size, size, 3), and tell whether it had to be resized.

    16-bit gray is scaled to 8 bits, transparency is dropped.

    Raises:
        NoImageError: It is empty, damaged, no image, or too large.
    """
    if not data:
        raise NoImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            rgb = _rgb(image)
        resized = rgb.size != (size, size)
        if resized:
            rgb = rgb.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(rgb, np.uint8), resized
    except (MemoryError, NoImageError):
        raise
    except UnidentifiedImageError as error:
        raise NoImageError("it is no image") from error
    except Image.DecompressionBombError as error:
        raise NoImageError(f"it unpacks to more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # on damaged files, Pillow's decoders raise all kinds
        raise NoImageError(str(error) or type(error).__name__) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # Pillow would clip 16-bit gray to white; of 16-bit colours it takes the high byte.
        high = np.asarray(image).astype(np.int32) >> 8
        return Image.fromarray(high.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise NoImageError("its pixels have 32 bits and no known white; save it with 8 or 16")
    return image.convert("RGB")
