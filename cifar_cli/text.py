"""Text from elsewhere, such as the name of a file, made safe to print."""

from __future__ import annotations

import codecs
import unicodedata

MAKER = "cifar-resnet"
"""Stands in each figure, by which files of this program are recognised."""
# Control characters, invisible formats (reversed writing among them), halves of surrogate pairs,
# and the ends of a line and of a paragraph.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_UNDECODED = 0xDC00  # Python reads a byte that is not UTF-8 as the character 0xDC00 + byte


def printable(text: str) -> str:
    """The text with a visible escape, such as `\\x1b`, for each character that is not one to see.

    What comes back is one line, moves no cursor, and can be encoded as UTF-8.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE:
        return character
    byte = ord(character) - _UNDECODED
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else repr(character)[1:-1]


NEAREST = "nearest-ascii"
"""Name of the error handler that writes the nearest ASCII for what an encoding lacks."""

_SPELLED = {
    "✓": "v", "✗": "x", "•": "*", "·": ".", "×": "x", "…": "...", "–": "-", "—": "-", "−": "-",
    "±": "+-", "→": "->", "←": "<-", "↑": "^", "↓": "v", "≤": "<=", "≥": ">=", "≈": "~", "⚠": "!",
    "‘": "'", "’": "'", "“": '"', "”": '"', "ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O",
}  # fmt: skip
_LINES = {"-": "─━┄┅┈┉╌╍═╴╶╸╺╼╾", "|": "│┃┆┇┊┋╎╏║╵╷╹╻╽╿"}
_SPELLED |= {line: plain for plain, lines in _LINES.items() for line in lines}
_SPELLED |= dict(zip("▁▂▃▄▅▆▇█", "_.-=+*%#", strict=True))


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_ascii(character) for character in lacking), error.end


def _ascii(character: str) -> str:
    if character in _SPELLED:
        return _SPELLED[character]
    if 0x2500 <= ord(character) <= 0x257F:  # the corners and crossings of boxes
        return "+"
    base = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return base or _visible(character).encode("ascii", "backslashreplace").decode()


codecs.register_error(NEAREST, _nearest)
