"""One look for all figures: sizes, and colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from cifar_cli.output.figures.lettering import DPI, FAMILY, families, fitted
from cifar_cli.storage import atomic_file
from cifar_cli.text import MAKER

# Okabe and Ito, "Color Universal Design" (https://jfly.uni-koeln.de/color/).
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000",
)  # fmt: skip
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
LINES = ("-", "--", "-.", ":")
GREY = "#5A5A5A"

STYLE: Any = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.family": FAMILY,
    "font.size": 10,
    "text.parse_math": False,  # a class may be called US$
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "svg.hashsalt": "cifar-resnet",  # the same figure is the same file
}
TITLE_SIZE, FOOTER_SIZE = 11.0, 7.0
MADE_BY: dict[str, dict[str, Any]] = {
    "png": {"Software": MAKER},
    "svg": {"Creator": MAKER, "Date": None},
    "pdf": {"Creator": MAKER, "Producer": MAKER, "CreationDate": None},
}
"""By format; without times, so that the same figure is the same file."""


@contextmanager
def new_figure(
    path: Path, width: float, height: float, title: str = "", footer: str = ""
) -> Iterator[Figure]:
    """Yield a figure of `width` x `height` inches, and write it to `path` afterwards.

    The ending of `path` names the format: .png, .svg or .pdf.

    Args:
        path: The file.
        width, height: Inches, with one line of title; more lines and the footer add to the height.
        title: A line over everything, wrapped if it is wider than the figure.
        footer: A small line below everything, such as `about_line` makes; wrapped too.
    """
    form = path.suffix.removeprefix(".")
    with mpl.rc_context():
        mpl.rcdefaults()  # not what a user has set
        mpl.rcParams.update(STYLE)
        room = 72 * (width - 0.25)
        title = fitted(title, room, TITLE_SIZE, lines=5, bold=True)
        footer = fitted(footer, room, FOOTER_SIZE, lines=4)
        below = (_height(footer, FOOTER_SIZE) + 7) / 72 if footer else 0.0
        height += below + _height(title, TITLE_SIZE) / 72 - _height("", TITLE_SIZE) / 72
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        share = below / height
        figure.set_layout_engine("constrained", rect=(0, share, 1, 1 - share))
        if title:
            figure.suptitle(title, fontsize=TITLE_SIZE, fontweight="bold")
        if footer:
            x, y = 0.1 / width, 5 / 72 / height
            figure.text(x, y, footer, fontsize=FOOTER_SIZE, color=GREY, va="bottom")
        yield figure
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            text.set_fontfamily(families(text.get_text()))
        with atomic_file(path) as file:
            figure.savefig(file, format=form, metadata=MADE_BY[form])


def legend_below(figure: Figure, *entries: Any, **options: Any) -> None:
    """A legend below the axes and above the footer."""
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    _, below, _, height = rect = engine.get()["rect"]
    options |= {"bbox_to_anchor": rect, "bbox_transform": figure.transFigure}
    legend = figure.legend(*entries, loc="lower center", **options)
    taken = legend.get_window_extent().height / figure.bbox.height
    engine.set(rect=(0, below + taken, 1, height - taken))


def about_line(run: str, data: str, split: str, images: int) -> str:
    """What a figure shows: `run a · data shapes · split val · n = 1,000`; empty parts left out."""
    parts = {"run ": run, "data ": data, "split ": split, "n = ": f"{images:,}"}
    return " · ".join(name + text for name, text in parts.items() if text)


def _height(text: str, size: float) -> float:
    """Of the lines of a text, in points."""
    return size * 1.25 * (text.count("\n") + 1)
