"""Everything that a report says of a trained network, in figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from cifar_cli import __version__
from cifar_cli.analysis.activation_map import activation_maps
from cifar_cli.analysis.calibration import Calibration, calibrate
from cifar_cli.analysis.evaluate import FEWER_IMAGES, Evaluation, Split
from cifar_cli.analysis.label_errors import suspected_rows
from cifar_cli.analysis.mistakes import Mistake, find_mistakes
from cifar_cli.config.loading import config_yaml
from cifar_cli.data.types import Progress
from cifar_cli.errors import CheckpointError, ConfigError
from cifar_cli.rundir import EpochRecord, RunDir, StepRecord
from cifar_cli.rundir.listing import facts_of
from cifar_cli.rundir.reading import read_events
from cifar_cli.rundir.records import MAX_TABLE
from cifar_cli.training.memory import memory_errors

MOST_SUSPECTS = 30
_MAPS_AT_ONCE = 64
Row = TypeVar("Row", EpochRecord, StepRecord)


class RunWarning(NamedTuple):
    """What a run warned of."""

    what: str
    remedy: str


@dataclass(frozen=True)
class RunFigures:
    """What the files of a run say, beside its checkpoint."""

    name: str
    state: str
    """running, completed, interrupted or failed; empty: unknown."""
    epochs: tuple[EpochRecord, ...]
    steps: tuple[StepRecord, ...]
    damaged: tuple[str, ...]
    """Files that cannot be read, a sentence each."""
    warnings: tuple[RunWarning, ...]
    environment: Mapping[str, Any]
    """What `env.json` holds; empty if it cannot be read."""


@dataclass(frozen=True)
class ShownImage:
    """One misclassified image."""

    mistake: Mistake
    file: str
    """Relative to the data; empty: the image has no file."""
    image: Tensor = field(repr=False, compare=False)
    """uint8 (S, S, 3)."""
    activation: Tensor | None = field(repr=False, compare=False)
    """float32 (S, S) in 0..1: what speaks for the predicted class; None: unknown."""


@dataclass(frozen=True)
class Report:
    """A network on a split. Accuracies are fractions, losses means per image."""

    evaluation: Evaluation
    split: Split
    checkpoint: str
    """`last`, `best`, or the path of a file."""
    is_own_data: bool
    """Whether the images are those of the run."""
    limit: int | None
    run: RunFigures | None
    """None for a file outside of a run."""
    calibration: Calibration
    mistakes: tuple[ShownImage, ...]
    """The highest loss first; not all of them."""
    no_maps: str
    """Why there are no activation maps; empty if there are."""
    suspects: tuple[ShownImage, ...]
    """Images whose label is probably wrong, the least probable label first; not all of them."""
    num_suspects: int | None
    """None: the labels were not examined."""
    not_examined: str
    """Why they were not; empty if they were."""
    configuration: str
    """YAML."""
    commands: tuple[tuple[str, ...], ...]
    """How to repeat it, word by word."""
    version: str = __version__

    @property
    def name(self) -> str:
        """Of the run, or of the file."""
        return self.run.name if self.run else self.evaluation.predictions.trained.path.name


def make_report(
    evaluation: Evaluation,
    *,
    split: Split = "val",
    checkpoint: str = "last",
    data: str | None = None,
    limit: int | None = None,
    n: int = 60,
    commands: Sequence[Sequence[str]] = (),
    progress: Progress | None = None,
) -> Report:
    """All figures of a report.

    Activation maps and suspected labels are left out if their packages are not installed, and the
    report says why.

    Args:
        evaluation: Of the network on the split.
        split, checkpoint, data, limit: As `evaluate` took them.
        n: Maximum number of misclassified images.
        commands: How to repeat it.
        progress: Receives progress.
    """
    predictions = evaluation.predictions
    logits, labels = predictions.logits, predictions.images.labels
    config = predictions.trained.config
    every = find_mistakes(logits, labels, predictions.images.indices)
    rows: list[int] = []
    not_examined = ""
    if progress:
        progress("Examining labels", 0, None)
    try:
        rows = suspected_rows(logits, labels)
    except ConfigError as error:
        not_examined = str(error)
    by_row = {mistake.row: mistake for mistake in every}
    suspected = [by_row[row] for row in rows if row in by_row]
    drawn = {m.row: m for m in (*every[:n], *suspected[:MOST_SUSPECTS])}
    no_maps = ""
    maps: list[Tensor | None] = [None] * len(drawn)
    try:
        maps = _maps(evaluation, list(drawn.values()), progress)
    except ConfigError as error:
        no_maps = str(error)
    images = {
        row: ShownImage(
            mistake,
            predictions.files[row] if predictions.files else "",
            predictions.images.images[row],
            activation,
        )
        for (row, mistake), activation in zip(drawn.items(), maps, strict=True)
    }
    return Report(
        evaluation=evaluation,
        split=split,
        checkpoint=checkpoint,
        is_own_data=data is None or data == config.data.source,
        limit=limit,
        run=_run_figures(predictions.run) if predictions.run else None,
        calibration=calibrate(
            logits.double().softmax(1).amax(1).clamp(max=1.0), logits.argmax(1) == labels
        ),
        mistakes=tuple(images[m.row] for m in every[:n]),
        no_maps=no_maps,
        suspects=tuple(images[m.row] for m in suspected[:MOST_SUSPECTS]),
        num_suspects=None if not_examined else len(suspected),
        not_examined=not_examined,
        configuration=config_yaml(config),
        commands=tuple(map(tuple, commands)),
    )


def _maps(
    evaluation: Evaluation, mistakes: Sequence[Mistake], progress: Progress | None
) -> list[Tensor | None]:
    """Of what speaks for the predicted class of each.

    Raises:
        ConfigError: Captum is not installed, or the network has no gradients.
    """
    predictions = evaluation.predictions
    maps: list[Tensor | None] = []
    if not mistakes:
        return maps
    for start in range(0, len(mistakes), _MAPS_AT_ONCE):
        some = mistakes[start : start + _MAPS_AT_ONCE]
        pixels = predictions.images.images[[m.row for m in some]]
        with memory_errors(*FEWER_IMAGES):
            maps += activation_maps(predictions.trained, pixels, [m.predicted for m in some])
        if progress:
            progress("Drawing activation maps", len(maps), len(mistakes))
    return maps


def _run_figures(run: RunDir) -> RunFigures:
    """What is there of a run's small files."""
    damaged: list[str] = []
    warnings = [
        RunWarning(event["what"], event.get("remedy", ""))
        for event in read_events(run.path / "events.jsonl", MAX_TABLE)
        if event.get("event") == "warning"
        and isinstance(event.get("what"), str)
        and isinstance(event.get("remedy", ""), str)
    ]
    return RunFigures(
        name=run.name,
        state=facts_of(run).state,
        epochs=_rows(run.read_metrics, damaged),
        steps=_rows(run.read_steps, damaged),
        damaged=tuple(damaged),
        warnings=tuple(dict.fromkeys(warnings)),  # a run that was resumed warns again
        environment=run.peek_json("env.json"),
    )


def _rows(read: Callable[[], list[Row]], damaged: list[str]) -> tuple[Row, ...]:
    try:
        return tuple(read())
    except CheckpointError as error:
        damaged.append(error.what)
        return ()
