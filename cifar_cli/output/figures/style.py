"""One look for all figures: sizes, and colours that colour-blind readers can tell apart."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cifar_cli.storage import atomic_file
from cifar_cli.text import printable

# Okabe and Ito, "Color Universal Design" (https://jfly.uni-koeln.de/color/).
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000",
)  # fmt: skip
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
LINES = ("-", "--", "-.", ":")
GREY = "#5A5A5A"

STYLE: Any = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
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
}


@contextmanager
def new_figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of `width` x `height` inches, and write it to `path` as PNG afterwards."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # not what a user has set
        mpl.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        yield figure
        with atomic_file(path) as file:
            figure.savefig(file, format="png", metadata={"Software": None})


def label(text: str, limit: int = 40) -> str:
    """A name from elsewhere as one short line that every font can draw."""
    text = printable(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
