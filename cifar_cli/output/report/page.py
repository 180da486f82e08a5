"""A report as one HTML file: no request to anywhere, and the same bytes for the same report."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cifar_cli.analysis.metrics import ClassFigures, wilson_interval, worst_and_best
from cifar_cli.analysis.report import Report
from cifar_cli.output.report import charts, pictures, sentences
from cifar_cli.text import MAKER, printable

NUMBERS_UP_TO = 20
"""With more classes, the confusion matrix is a picture without numbers."""
MATRIX_UP_TO = 300
LEVELS = 9
EPOCHS_UP_TO = 200
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class ClassRow:
    """One row of the table of classes."""

    figures: ClassFigures
    recall: tuple[float, float]
    """95% interval, as is the next."""
    precision: tuple[float, float]


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix."""

    count: int
    level: int
    """How dark it is, of 9."""
    is_correct: bool


def report_page(report: Report) -> str:
    """HTML. Text from outside stands in it as text, with escapes for what cannot be seen."""
    environment = Environment(
        loader=FileSystemLoader(_HERE, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters |= {"percent": _percent, "range": _range}
    style, script = (_own_file(environment, name) for name in ("report.css", "report.js"))
    evaluation = report.evaluation
    worst, best = worst_and_best(evaluation.per_class)
    names = evaluation.class_names
    return environment.get_template("report.html.j2").render(
        report=report,
        evaluation=evaluation,
        names=names,
        say=sentences,
        maker=MAKER,
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src "
        f"{_hash(script)}; base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        charts=charts,
        training=charts.training_charts(report.run.epochs, report.run.steps) if report.run else [],
        epochs=_thinned(report.run.epochs) if report.run else [],
        reliability=charts.reliability_chart(report.calibration),
        worst=[_class_row(one) for one in worst],
        best=[_class_row(one) for one in best],
        lowest=min((_class_row(one).recall[0] for one in (*worst, *best)), default=0.0),
        cells=_cells(evaluation.confusion) if len(names) <= NUMBERS_UP_TO else None,
        matrix=pictures.matrix_url(evaluation.confusion)
        if NUMBERS_UP_TO < len(names) <= MATRIX_UP_TO
        else None,
        image_url=pictures.image_url,
        map_url=pictures.map_url,
        filters={
            "true": _choices([shown.mistake.true for shown in report.mistakes]),
            "predicted": _choices([shown.mistake.predicted for shown in report.mistakes]),
        },
        commands=[shlex.join(words) for words in report.commands],
    )


def _own_file(environment: Environment, name: str) -> Markup:
    """The text of a file of this package, whose hash the page's policy names."""
    assert environment.loader
    return Markup(environment.loader.get_source(environment, name)[0])


def _visible(value: object) -> object:
    """What any expression of the template gives: text with nothing hidden in it."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f}%"


def _range(interval: tuple[float, float], digits: int = 0) -> str:
    low, high = (f"{100 * end:.{digits}f}" for end in interval)
    return f"{low}–{high}"


def _class_row(figures: ClassFigures) -> ClassRow:
    return ClassRow(
        figures,
        wilson_interval(figures.correct, figures.num_images),
        wilson_interval(figures.correct, figures.num_predicted),
    )


def _cells(confusion: Sequence[Sequence[int]]) -> list[list[Cell]]:
    """Cells of the matrix; correct ones and errors are shaded each by a scale of their own."""
    errors = [
        count / max(sum(row), 1)
        for true, row in enumerate(confusion)
        for predicted, count in enumerate(row)
        if true != predicted
    ]
    largest = max(errors, default=0.0)

    def level(count: int, share: float, top: float) -> int:
        return max(1, round(LEVELS * share / top)) if count else 0

    return [
        [
            Cell(
                count,
                level(count, count / max(sum(row), 1), 1.0 if true == predicted else largest),
                true == predicted,
            )
            for predicted, count in enumerate(row)
        ]
        for true, row in enumerate(confusion)
    ]


def _choices(classes: Sequence[int]) -> list[tuple[int, int]]:
    """Classes by number, and how many images have each."""
    return [(number, classes.count(number)) for number in sorted(set(classes))]


def _thinned(epochs: Sequence[Any]) -> list[Any]:
    step = -(-len(epochs) // EPOCHS_UP_TO) or 1
    return [one for place, one in enumerate(epochs) if not (len(epochs) - 1 - place) % step]
