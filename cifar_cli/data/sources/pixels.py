"""From an image that Pillow has opened to the square RGB pixels that a network sees."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from cifar_cli.config import DataConfig

# Longer images lose, or are distorted by, so much that the start counts them.
LONG = 1.5
# The highest value of 12 bits, which cameras and scanners store in files of 16.
TWELVE_BITS = 4095
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of the EXIF orientation."""


class Rules(NamedTuple):
    """What decoding depends on, apart from the file."""

    size: int
    """Side of the square in pixels."""
    resize: str = "crop"
    """`crop`, `pad` or `squash`."""
    colour: tuple[int, ...] = (125, 123, 114)
    """RGB in 0..255, behind transparent pixels and beside padded images."""
    as_stored: bool = False
    """Leave orientation, transparency and 12-bit data as they are stored."""

    @classmethod
    def of(cls, data: DataConfig) -> Rules:
        """Those of a configuration."""
        return cls(data.image_size, data.resize, data.mean_colour, data.as_stored)

    @property
    def key(self) -> str:
        """A part of a file's name that tells these rules from others, but for the colour."""
        return f"{self.size}px-{self.resize}{'-stored' * self.as_stored}"


class Picture(NamedTuple):
    """Pixels, and what was done to get them."""

    pixels: npt.NDArray[np.uint8]
    """uint8 (size, size, 3), RGB."""
    is_resized: bool
    is_long: bool = False
    """Whether one side is more than 1.5 times the other."""
    is_turned: bool = False
    """Whether the orientation in its EXIF data was applied."""
    is_transparent: bool = False
    """Whether `Rules.colour` shows through transparent pixels."""
    is_padded: bool = False
    """Whether `Rules.colour` fills the sides."""
    has_12_bits: bool = False
    """Whether its 16-bit pixels held 12-bit data."""


class NoImageError(Exception):
    """A file that cannot be read as an image; its text is the reason."""


class TooLargeError(NoImageError):
    """It has more pixels than are decoded."""


class UnknownFormatError(NoImageError):
    """It is not in a format that is read."""


def square(image: Image.Image, rules: Rules) -> Picture:
    """Convert an open image to RGB of the right size.

    Raises:
        NoImageError: Its pixels have no known maximum.
    """
    image.load()
    turn = None if rules.as_stored else _TURNS.get(_orientation(image))
    has_alpha = not rules.as_stored and _is_transparent(image)
    colours, has_12_bits = _colours(image, has_alpha, rules.as_stored)
    width, height = colours.size
    is_resized = colours.size != (rules.size, rules.size)
    if is_resized:
        colours = _resized(colours, rules)
    if has_alpha:
        ground = Image.new("RGBA", colours.size, (*rules.colour, 255))
        colours = Image.alpha_composite(ground, colours).convert("RGB")
    if turn is not None:  # last, as the resized image is small
        colours = colours.transpose(turn)
    return Picture(
        np.asarray(colours, np.uint8),
        is_resized,
        is_long=max(width, height) > LONG * min(width, height),
        is_turned=turn is not None,
        is_transparent=has_alpha,
        is_padded=rules.resize == "pad" and width != height,
        has_12_bits=has_12_bits,
    )


def _resized(image: Image.Image, rules: Rules) -> Image.Image:
    """Resize to the square; Pillow weighs the colours of transparent pixels by their alpha."""
    size, (width, height) = rules.size, image.size
    side, bicubic = min(width, height), Image.Resampling.BICUBIC
    if rules.resize == "pad":
        scale = size / max(width, height)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        small = image.resize(inner, bicubic)
        ground = (*rules.colour, 255)[: len(image.getbands())]
        padded = Image.new(image.mode, (size, size), ground)
        padded.paste(small, ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return padded
    box: tuple[float, float, float, float] = (0, 0, width, height)
    if rules.resize == "crop":
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    return image.resize((size, size), bicubic, box)


def _orientation(image: Image.Image) -> int:
    """The orientation in its EXIF data; 1 (upright) if there is none that can be read."""
    if "exif" in image.info or "xmp" in image.info or "XML:com.adobe.xmp" in image.info:
        with suppress(Exception):  # of damaged metadata, which spoils no pixels
            return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _is_transparent(image: Image.Image) -> bool:
    """Whether any pixel is not opaque."""
    if not image.has_transparency_data or image.mode.startswith("I"):
        return False
    if image.mode in ("RGBA", "LA"):
        lowest, _ = image.getchannel("A").getextrema()
        return int(lowest) < 255  # type: ignore[arg-type]
    return True  # a colour of the palette, or a single colour, is transparent


def _colours(image: Image.Image, has_alpha: bool, as_stored: bool) -> tuple[Image.Image, bool]:
    """As RGB, or RGBA; and whether 16-bit pixels held 12-bit data."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # Pillow would clip 16-bit gray to white; of 16-bit colours it takes the high byte.
        gray = np.asarray(image)
        has_12_bits = not as_stored and 0 < int(gray.max()) <= TWELVE_BITS
        high = gray >> (4 if has_12_bits else 8)
        return Image.fromarray(high.astype(np.uint8)).convert("RGB"), has_12_bits
    if image.mode in ("I", "F"):
        raise NoImageError("it has 32-bit pixels with no known maximum; save it with 8 or 16 bits")
    mode = "RGBA" if has_alpha else "RGB"
    return (image if image.mode == mode else image.convert(mode)), False


def picture_notes(pictures: Sequence[Picture], rules: Rules) -> tuple[str, ...]:
    """What was done to the images, a sentence each."""
    size, ways = rules.size, {
        "crop": "only their centre is used (data.resize pad keeps all of them)",
        "pad": "their sides are filled with the mean colour",
        "squash": "they are distorted (data.resize crop keeps their shape)",
    }  # fmt: skip
    counts = {
        f"Resized {{}} images to {size} x {size} pixels.": "is_resized",
        f"{{}} images are longer than {LONG} to 1: {ways[rules.resize]}.": "is_long",
        "Turned {} images upright, as their EXIF data say.": "is_turned",
        "{} images have transparent pixels, which are filled with the mean colour.":
        "is_transparent",
        "{} images hold 12-bit data in 16 bits, and were scaled by 4,095.": "has_12_bits",
    }  # fmt: skip
    notes = []
    for sentence, flag in counts.items():
        if count := sum(getattr(picture, flag) for picture in pictures):
            notes.append(sentence.format(f"{count:,} of {len(pictures):,}"))
    return tuple(notes)
