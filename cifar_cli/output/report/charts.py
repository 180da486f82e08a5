"""Where the lines, ticks and bars of a page's charts lie; the template draws them as SVG."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from matplotlib.ticker import MaxNLocator

from cifar_cli.analysis.calibration import Calibration
from cifar_cli.output.figures.curves import DWARFING
from cifar_cli.rundir import EpochRecord, StepRecord

WIDTH, HEIGHT = 368, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 350, 12, 182
MOST_POINTS = 300


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: its position in the picture, and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A curve: `x,y` pairs as SVG takes them."""

    label: str
    kind: str
    """`main` or `other`, for its colour."""
    points: str
    last: tuple[float, float]


@dataclass(frozen=True)
class Bar:
    """A bar of the reliability diagram."""

    x: float
    y: float
    width: float
    height: float
    kind: str


@dataclass(frozen=True)
class Chart:
    """One picture."""

    title: str
    description: str
    """What it shows, for those who do not see it."""
    x_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class _Series:
    label: str
    kind: str
    values: Sequence[float]


def training_charts(epochs: Sequence[EpochRecord], steps: Sequence[StepRecord]) -> list[Chart]:
    """Loss and accuracy by epoch, and the learning rate by step, or by epoch without steps."""
    charts = []
    if epochs:
        last, xs = epochs[-1], [record.epoch for record in epochs]
        charts = [
            _chart(
                "Loss",
                f"Epoch {last.epoch}: training {last.train_loss:.4f}, validation "
                f"{last.val_loss:.4f}.",
                "epoch",
                xs,
                [
                    _Series("training, augmented", "other", [r.train_loss for r in epochs]),
                    _Series("validation", "main", [r.val_loss for r in epochs]),
                ],
            ),
            _chart(
                "Accuracy",
                f"Epoch {last.epoch}: training {last.train_accuracy:.2%}, validation "
                f"{last.val_accuracy:.2%}.",
                "epoch",
                xs,
                [
                    _Series("training, augmented", "other", [r.train_accuracy for r in epochs]),
                    _Series("validation", "main", [r.val_accuracy for r in epochs]),
                ],
                text=lambda value: f"{100 * value:g}%",
                limits=(0.0, 1.0),
            ),
        ]
    rates = [(s.step, s.lr) for s in steps] or [(r.epoch, r.lr) for r in epochs]
    if rates:
        numbers, values = zip(*rates, strict=True)
        charts.append(
            _chart(
                "Learning rate",
                f"Highest {max(values):.3g}, last {values[-1]:.3g}.",
                "step" if steps else "epoch",
                numbers,
                [_Series("learning rate", "main", values)],
                limits=(0.0, max(values)),
            )
        )
    return charts


def reliability_chart(calibration: Calibration) -> Chart:
    """Accuracy of each bin as a bar; what it differs from confidence by, on top or missing."""
    bars = []
    for one in calibration.bins:
        if one.accuracy is None or one.confidence is None:
            continue
        x, right = _across(one.low, 0, 1) + 1, _across(one.high, 0, 1) - 1
        low, high = sorted((one.accuracy, one.confidence))
        bars.append(_bar(x, right, 0, one.accuracy, "main"))
        bars.append(_bar(x, right, low, high, "gap"))
    diagonal = f"{LEFT},{BOTTOM} {RIGHT},{TOP}"
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    return Chart(
        title="Reliability diagram",
        description=f"Accuracy against confidence in {len(calibration.bins)} bins. Mean confidence "
        f"{calibration.confidence:.1%}, accuracy {calibration.accuracy:.1%}.",
        x_label="confidence",
        x_ticks=tuple(Tick(_across(v, 0, 1), f"{v:.0%}") for v in ticks),
        y_ticks=tuple(Tick(_up(v, 0, 1), f"{v:.0%}") for v in ticks),
        lines=(Line("as confident as accurate", "other", diagonal, (RIGHT, TOP)),),
        bars=tuple(bars),
    )


def _chart(
    title: str,
    description: str,
    x_label: str,
    xs: Sequence[int],
    series: Sequence[_Series],
    text: Callable[[float], str] = "{:g}".format,
    limits: tuple[float, float] | None = None,
) -> Chart:
    scaled, low, high, marks = _scale([v for one in series for v in one.values], text, limits)
    first, last = min(xs), max(xs)
    whole = MaxNLocator(5, integer=True, min_n_ticks=1).tick_values(first, max(last, first + 1))
    thin = max(1, ceil(len(xs) / MOST_POINTS))
    kept = sorted({*range(0, len(xs), thin), len(xs) - 1})
    lines = []
    for one in series:
        points = [
            (_across(xs[i], first, last), _up(scaled(one.values[i]), low, high)) for i in kept
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        lines.append(Line(one.label, one.kind, path, points[-1]))
    return Chart(
        title=title if scaled is float else f"{title} (log scale)",
        description=description,
        x_label=x_label,
        x_ticks=tuple(
            Tick(_across(v, first, last), f"{v:,.0f}") for v in whole if first <= v <= last
        ),
        y_ticks=tuple(Tick(_up(v, low, high), name) for v, name in marks),
        lines=tuple(lines),
    )


def _scale(
    values: Sequence[float], text: Callable[[float], str], limits: tuple[float, float] | None
) -> tuple[Callable[[float], float], float, float, list[tuple[float, str]]]:
    """A vertical axis: the scale, its ends and its marks, the last three as the scale gives them.

    Without limits it starts at 0, and is logarithmic if one value dwarfs the others.
    """
    smallest = min((value for value in values if value > 0), default=None)
    dwarfs = max(values) > DWARFING * max(statistics.median(values), 1.0)
    if limits is None and dwarfs and smallest is not None:
        first = floor(log10(smallest))
        last = max(ceil(log10(max(values))), first + 1)
        powers = range(first, last + 1, ceil((last - first) / 6))
        marks = [(float(power), f"{10.0**power:g}") for power in powers]
        least = smallest
        return lambda value: log10(max(value, least)), first, last, marks
    bottom, top = limits or (0.0, max(values))
    found = MaxNLocator(5).tick_values(bottom, top if top > bottom else bottom + 1)
    ticks = [float(tick) for tick in found]
    return float, ticks[0], ticks[-1], [(tick, text(float(f"{tick:.6g}"))) for tick in ticks]


def _bar(left: float, right: float, low: float, high: float, kind: str) -> Bar:
    y = _up(high, 0, 1)
    return Bar(left, y, right - left, _up(low, 0, 1) - y, kind)


def _across(value: float, first: float, last: float) -> float:
    share = (value - first) / (last - first) if last > first else 0.5
    return LEFT + share * (RIGHT - LEFT)


def _up(value: float, low: float, high: float) -> float:
    return BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP)
