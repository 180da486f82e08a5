"""Text in figures: measured, wrapped or shortened, in fonts that have its characters.

If no font here has a character, as with Chinese names where no such font is installed, its code
point stands in its place: `‹732B›`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, cast

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties, fontManager, get_font

from cifar_cli.text import printable

FAMILY = "DejaVu Sans"  # comes with Matplotlib
_WIDE = ("CJK", "Han Sans", "WenQuanYi", "YaHei", "PingFang", "Hiragino", "Gothic", "Unicode")
"""Parts of the names of families that have many characters; these are looked at first."""
_NO_LETTERS = ("Last Resort", "cmsy", "cmex", "cmmi", "STIXSize", "STIXNonUnicode")
"""Families that stand for a character, or draw another one in its place."""
_MOST_FONTS = 400
DPI = 150
_BREAKS_AFTER = " -_/.,;"


def fitted(text: str, room: float, size: float, *, lines: int = 1, bold: bool = False) -> str:
    """A text in at most `lines` lines of at most `room` points; shortened in the middle with `…`.

    Args:
        text: From anywhere; what comes back can be drawn.
        room: Width in points (1/72 inch).
        size: Of the letters, in points.
        lines: How many lines it may take.
        bold: Whether it is drawn bold.
    """

    def fits(part: str) -> bool:
        return text_width(part, size, bold=bold) <= room

    rest, done = drawable(text), list[str]()
    while len(done) < lines - 1 and not fits(rest):
        most = _longest(rest, _start, room, size, bold)
        breaks = [n for n in range(1, most + 1) if rest[n - 1] in _BREAKS_AFTER or rest[n] == " "]
        at = breaks[-1] if breaks and breaks[-1] > most / 3 else most
        done.append(rest[:at].rstrip())
        rest = rest[at:].lstrip()
    if not fits(rest):
        rest = _ends(rest, _longest(rest, _ends, room, size, bold))
    return "\n".join([*done, rest])


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Width of one line in points."""
    weight = "bold" if bold else "normal"
    font = FontProperties(family=families(text), weight=weight, size=size)
    renderer: Any = _renderer()  # its methods have no types
    width, _, _ = renderer.get_text_width_height_descent(text, font, False)
    return float(width) * 72 / DPI


def drawable(text: str) -> str:
    """One line of characters that there is a font for; code points for those without one."""
    text = printable(text)
    if not (lacking := _lacking(text)):
        return text
    lacking -= {character for character in lacking if _font_of(character)}
    return "".join(_spelled(text, lacking))


def families(text: str) -> list[str]:
    """The families that draw a text, the usual one first."""
    found = {_font_of(character) for character in sorted(_lacking(text))}
    return [FAMILY, *sorted(family for family in found if family)]


def _ends(text: str, count: int) -> str:
    head = (count + 1) // 2
    return f"{text[:head]}…{text[len(text) - (count - head) :]}"


def _start(text: str, count: int) -> str:
    return text[:count]


def _longest(
    text: str, part: Callable[[str, int], str], room: float, size: float, bold: bool
) -> int:
    """How many characters of a text there may be in the part of it that fits; at least 1."""
    counts = range(1, len(text))
    number = bisect_right(counts, room, key=lambda n: text_width(part(text, n), size, bold=bold))
    return max(number, 1)


def _spelled(text: str, lacking: set[str]) -> Iterator[str]:
    for number, character in enumerate(text):
        if character not in lacking:
            yield character
            continue
        is_first = number == 0 or text[number - 1] not in lacking
        is_last = text[number + 1 : number + 2] not in lacking
        yield f"{'‹' if is_first else ' '}{ord(character):04X}{'›' if is_last else ''}"


@cache
def _renderer() -> RendererAgg:
    made: RendererAgg = cast("Any", RendererAgg)(1, 1, DPI)
    return made


@cache
def _usual() -> frozenset[str]:
    path = fontManager.findfont(FontProperties(family=[FAMILY]))
    return frozenset(map(chr, get_font(path).get_charmap()))


def _lacking(text: Iterable[str]) -> set[str]:
    return set(text) - _usual() - {"\n"}


@cache
def _font_of(character: str) -> str | None:
    """A family that has a character."""
    return next((name for name, has in _other_fonts() if character in has), None)


@cache
def _other_fonts() -> tuple[tuple[str, frozenset[str]], ...]:
    """Families other than the usual one, and their characters; read once, if one is needed."""
    paths = {
        font.name: font.fname
        for font in fontManager.ttflist
        if font.style == "normal" and not font.name.startswith(_NO_LETTERS)
    }
    names = sorted(paths, key=lambda name: (not any(part in name for part in _WIDE), name))
    found = []
    for name in names[:_MOST_FONTS]:
        try:
            found.append((name, frozenset(map(chr, get_font(paths[name]).get_charmap()))))
        except (OSError, RuntimeError, ValueError):  # removed or damaged
            continue
    return tuple(found)
