"""Results and messages on the terminal: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import shlex
import sys
import textwrap
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from cifar_cli.text import printable

WIDE = 120
"""Width in columns if neither a terminal nor the variable COLUMNS gives one."""


class Screen(Console):
    """A console on which each text stands as it is: no markup, no emoji codes, no control codes.

    Every plain text that is printed, in a table or by itself, passes here; styled ones are made by
    `styled`.
    """

    def __init__(self, file: TextIO, width: int | None = None) -> None:
        if width is None and not file.isatty() and "COLUMNS" not in os.environ:
            width = WIDE
        super().__init__(file=file, width=width, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a plain text into a line that is safe to print."""
        return super().render_str(printable(text), **options)

    def say(self, text: str | Text) -> None:
        """Print a sentence: on a terminal broken between words, elsewhere on one line.

        A word that is wider than the terminal, such as a path, is never broken here.
        """
        if isinstance(text, str) and self.is_terminal:
            text = printable(text)
            indent = " " * (len(text) - len(text.lstrip()))
            lines = textwrap.wrap(
                text,
                self.width,
                subsequent_indent=2 * indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
            text = Text("\n".join(lines))
        self.print(text, soft_wrap=True)


def results() -> Screen:
    """The console of results."""
    return Screen(sys.stdout)


def remarks() -> Screen:
    """The console of progress and warnings."""
    return Screen(sys.stderr)


def styled(text: str, style: str = "bold") -> Text:
    """A text in a style, safe to print."""
    return Text(printable(text), style=style)


def command_line(title: str, words: Iterable[str]) -> Text:
    """A command to copy; on a terminal in as many lines as it needs, as a shell reads them."""
    console = results()
    lines = [f"{title}:"]
    for word in map(shlex.quote, words):
        if console.is_terminal and len(lines[-1]) + len(word) + 3 > console.width:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {word}"
    return Text("\n".join(map(printable, lines)))


def show(document: dict[str, Any], as_json: bool, *parts: RenderableType) -> None:
    """Print a result on stdout: its document, or tables and sentences, then the files it names."""
    if as_json:
        print_json(document)
        return
    console = results()
    for part in parts:
        if isinstance(part, str | Text):
            console.say(part)
        else:
            console.print(part)
    for file in document.get("files", ()):
        print_line(file)


def print_line(text: str) -> None:
    """Print one result as it is, on one line however long."""
    print(printable(text))


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on stdout, in ASCII."""
    text = json.dumps(document, indent=2, allow_nan=False)
    print(text.replace("\x7f", "\\u007f"))  # the one control character that JSON leaves as it is


class JsonStream:
    """Prints one JSON document on stdout, of which one list grows, an entry a line."""

    def __init__(self, start: dict[str, Any], key: str) -> None:
        print(_json(start)[:-1] + f', "{key}": [', end="")
        self.separator = "\n"

    def add(self, entry: dict[str, Any]) -> None:
        """Print the next entry of the list."""
        print(self.separator + _json(entry), end="")
        self.separator = ",\n"

    def end(self, rest: dict[str, Any]) -> None:
        """Print what comes after the list, which is not empty."""
        print("\n], " + _json(rest)[1:])


def _json(value: dict[str, Any]) -> str:
    # DEL is the one control character that JSON leaves as it is.
    return json.dumps(value, allow_nan=False).replace("\x7f", "\\u007f")


def duration(seconds: float) -> str:
    """Seconds as people say them: `42.0 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def counted(number: int, what: str) -> str:
    """`1 epoch`, `24 epochs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
