"""Results as JSON documents: keys are a contract, and floats are plain numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_cli.rundir import SCHEMA_VERSION

if TYPE_CHECKING:  # most commands need no torch to print what they found
    from cifar_cli.analysis.evaluate import Evaluation
    from cifar_cli.analysis.export import Export
    from cifar_cli.analysis.mistakes import Mistake
    from cifar_cli.analysis.predict import Classified
    from cifar_cli.analysis.report import Report
    from cifar_cli.config import Config, ModelConfig
    from cifar_cli.config.explain import Explanation
    from cifar_cli.doctor.checks import Check
    from cifar_cli.experiments.bench import BenchRun
    from cifar_cli.models.summary import ModelSummary
    from cifar_cli.rundir.listing import RunFacts
    from cifar_cli.training.lr_curve import LrCurve
    from cifar_cli.training.result import TrainResult

Document = dict[str, Any]
START: Document = {"schema_version": SCHEMA_VERSION}
RUN_KEYS = (
    "name", "path", "state", "data", "epochs_completed", "val_accuracy", "best_val_accuracy",
    "seconds", "updated",
)  # fmt: skip
BENCH_FIGURES = (
    "accuracy", "accuracy_six_views", "train_seconds", "process_seconds", "evaluate_seconds",
    "cpu_seconds", "peak_bytes", "train_flops",
)  # fmt: skip


def training_document(result: TrainResult) -> Document:
    """What `train --json` prints."""
    keys = ("epochs_completed", "val_accuracy", "val_loss", "best_val_accuracy", "train_seconds",
            "seconds")  # fmt: skip
    warnings = [sign._asdict() for sign in result.warnings]
    return as_document(run_dir=str(result.run_dir), **_values(result, keys), warnings=warnings)


def layer_document(summary: ModelSummary) -> Document:
    """What `summary --json` prints."""
    keys = ("total_params", "trainable_params", "total_mult_adds", "performed_mult_adds")
    return as_document(layers=[asdict(row) for row in summary.rows], **_values(summary, keys))


def check_document(checks: Sequence[Check]) -> Document:
    """What `doctor --json` prints."""
    keys = ("name", "ok", "detail", "remedy")
    is_ok = all(check.ok for check in checks)
    return as_document(ok=is_ok, checks=[_values(check, keys) for check in checks])


def evaluation_document(
    evaluation: Evaluation,
    *,
    split: str,
    tta: str,
    files: Iterable[Path],
) -> Document:
    """What `evaluate --json` prints."""
    keys = ("accuracy", "precision", "f1", "correct", "num_images", "num_predicted")
    predictions = evaluation.predictions
    return as_document(
        accuracy=evaluation.accuracy,
        interval=list(evaluation.interval),
        **_values(evaluation, ("loss", "correct", "num_images")),
        per_class=[{"class": c.name, **_values(c, keys)} for c in evaluation.per_class],
        confusion=evaluation.confusion,
        class_names=list(evaluation.class_names),
        **_values(evaluation, ("balanced_accuracy", "macro_f1", "top5_accuracy")),
        confused=[asdict(pair) for pair in evaluation.confused],
        checkpoint=str(predictions.trained.path),
        split=split,
        tta=tta,
        seconds=predictions.seconds,
        files=_paths(files),
    )


def mistake_document(
    shown: Sequence[Mistake],
    class_names: Sequence[str],
    *,
    total: int,
    num_images: int,
    files: Iterable[Path],
    names: Sequence[str] = (),
) -> Document:
    """What `misclassified --json` prints: the mistakes shown, of `total` in `num_images` images.

    `names` are those of the images' files, by row; empty: they have none.
    """
    images = [
        {
            "index": mistake.index,
            **({"file": names[mistake.row]} if names else {}),
            "true": class_names[mistake.true],
            "predicted": class_names[mistake.predicted],
            "confidence": mistake.confidence,
            "loss": mistake.loss,
        }
        for mistake in shown
    ]
    counts = {"count": len(shown), "total": total, "num_images": num_images}
    return as_document(**counts, images=images, files=_paths(files))


def picture_entry(picture: Classified) -> Document:
    """One entry of `images` in what `predict --json` prints."""
    predictions = [{"class": name, "probability": p} for name, p in picture.predictions]
    return {"file": picture.file, "predictions": predictions} | _values(
        picture, ("unlike", "error")
    )


def prediction_document(
    num_images: int, num_errors: int, num_unlike: int | None, files: Iterable[Path]
) -> Document:
    """What `predict --json` prints after `images`; `num_unlike` is None if it is unknown."""
    counts = {"num_images": num_images, "num_errors": num_errors, "num_unlike": num_unlike}
    return counts | {"files": _paths(files)}


def export_document(export: Export) -> Document:
    """What `export --json` prints."""
    files = {"file": str(export.plan.file), "model_card": str(export.plan.card)}
    keys = "num_images", "num_different", "max_difference"
    return as_document(
        **files,
        format=export.plan.format.name,
        **_values(export, keys),
        accuracy=export.evaluation.accuracy,
        files=list(files.values()),
    )


def report_document(report: Report, file: Path, size: int) -> Document:
    """What `report --json` prints; `size` is that of the file, in bytes."""
    evaluation = report.evaluation
    return as_document(
        file=str(file),
        bytes=size,
        accuracy=evaluation.accuracy,
        interval=list(evaluation.interval),
        num_images=evaluation.num_images,
        num_misclassified=evaluation.num_images - evaluation.correct,
        calibration_error=report.calibration.error,
        num_suspects=report.num_suspects,
        has_maps=not report.no_maps,
        checkpoint=str(evaluation.predictions.trained.path),
        split=report.split,
        files=[str(file)],
    )


def lr_document(curve: LrCurve, files: Iterable[Path]) -> Document:
    """What `find-lr --json` prints."""
    return as_document(
        suggestion=curve.suggestion,
        band=list(curve.band),
        suggestions=curve.suggestions,
        warnings=list(curve.warnings),
        num_points=len(curve.lrs),
        stopped_early=curve.stopped_early,
        files=_paths(files),
    )


def bench_document(runs: Sequence[BenchRun], files: Iterable[Path]) -> Document:
    """What `bench --json` prints: all runs, and by recipe each figure's mean and interval."""
    from cifar_cli.experiments.bench import spread

    of_recipe: dict[str, list[BenchRun]] = {}
    for run in runs:
        of_recipe.setdefault(run.recipe, []).append(run)
    recipes = {
        name: {f: asdict(spread([getattr(run, f) for run in own])) for f in BENCH_FIGURES}
        for name, own in of_recipe.items()
    }
    return as_document(recipes=recipes, runs=[asdict(run) for run in runs], files=_paths(files))


def recipe_document(recipes: Mapping[str, Config], headers: Mapping[str, str]) -> Document:
    """What `recipes list --json` prints; `headers` are the first lines of their files."""
    from cifar_cli.config.loading import OWN_RECIPE

    rows = [
        {
            "name": name,
            "epochs": config.train.epochs,
            "batch_size": config.train.batch_size,
            "widths": _widths(config.model),
            "augment": config.augment.form,
            "data": "your own" if name == OWN_RECIPE else config.data.source,
            "about": headers[name].removeprefix("# "),
        }
        for name, config in recipes.items()
    ]
    return as_document(recipes=rows)


def setting_document(entries: Sequence[Explanation]) -> Document:
    """What `recipes explain --json` prints."""
    from cifar_cli.config.loading import variable

    settings = [asdict(entry) | {"variable": variable(entry.key)} for entry in entries]
    return as_document(settings=settings)


def runs_document(runs: Sequence[RunFacts]) -> Document:
    """What `runs list --json` and `runs show --json` print."""
    return as_document(runs=[_values(run, RUN_KEYS) for run in runs])


def prune_document(going: Sequence[RunFacts], kept: Mapping[str, str], removed: bool) -> Document:
    """What `runs prune --json` prints: the runs that would go or are gone, and why others stay."""
    reasons = [{"path": path, "reason": reason} for path, reason in kept.items()]
    return as_document(**runs_document(going), kept=reasons, removed=removed)


def file_document(files: Iterable[Path]) -> Document:
    """What a command prints with `--json` that only writes files."""
    return as_document(files=_paths(files))


def _widths(model: ModelConfig) -> list[int]:
    return list(model.widths) if model.name == "speed_resnet" else [model.width]


def as_document(**entries: Any) -> Document:
    """The entries, after the version of the schema."""
    return START | entries


def _values(result: object, keys: Iterable[str]) -> Document:
    return {key: getattr(result, key) for key in keys}


def _paths(files: Iterable[Path]) -> list[str]:
    return [str(file) for file in files]
