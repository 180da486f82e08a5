"""`cifar-resnet report`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifar_cli.cli import options
from cifar_cli.cli.evaluate import (
    Checkpoint,
    Split,
    evaluate_with_progress,
    say_replacements,
    stem_of,
)

if TYPE_CHECKING:
    from cifar_cli.analysis.evaluate import Predictions

MOST_IMAGES = 1000


def report(
    run: options.Run = None,
    n: Annotated[
        int,
        typer.Option(
            "--n", min=1, max=MOST_IMAGES, metavar="N", help="Maximum number of mistakes shown."
        ),
    ] = 60,
    checkpoint: Checkpoint = "last",
    split: Split = "val",
    data: options.RunData = None,
    data_dir: options.DataDir = None,
    limit_val: options.LimitVal = None,
    skip_bad_images: options.SkipBadImages = False,
    device: options.Device = None,
    out: Annotated[
        Path | None,
        options.of_output("--out FILE", "The HTML file. Default: in report/ of the run."),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a report: one HTML file that opens in a browser and needs no network.

    It shows the result with its 95% interval, curves, classes, confusion, calibration, the worst
    mistakes with activation maps, suspected label errors, and how to repeat the run. Maps need
    Captum and suspected label errors need cleanlab: both are in the extra report.
    """
    given = locals()
    from cifar_cli.analysis.report import make_report
    from cifar_cli.output.console import show
    from cifar_cli.output.documents import report_document
    from cifar_cli.output.progress import Bars
    from cifar_cli.output.report.page import report_page
    from cifar_cli.output.report.sentences import summary_sentence
    from cifar_cli.output.tables import evaluation_text
    from cifar_cli.storage import check_place, write_text

    if out is not None:
        _check_out(out)
    evaluation = evaluate_with_progress(given)
    predictions = evaluation.predictions
    folder = predictions.run.subfolder("report") if predictions.run else Path("report")
    file = out or folder / f"{stem_of(given, predictions)}.html"
    check_place(file.parent)
    say_replacements([file], "report", given, predictions)
    with Bars(quiet) as bars:
        result = make_report(
            evaluation,
            split=split,  # type: ignore[arg-type]  # evaluate has checked it
            checkpoint=checkpoint,
            data=data,
            limit=limit_val,
            n=n,
            commands=_commands(given, predictions),
            progress=bars.update,
        )
        bars.say(text for text in (result.no_maps, result.not_examined) if text)
    page = report_page(result)
    write_text(file, page)
    show(
        report_document(result, file, len(page.encode())),
        json,
        evaluation_text(evaluation),
        summary_sentence(result),
    )


def _check_out(out: Path) -> None:
    """Refuse before the work what could not be written after it."""
    from cifar_cli.cli.result_files import replacement_note
    from cifar_cli.errors import ConfigError

    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder.", f"Name a file, such as {out}/report.html.")
    replacement_note([out], "report")


def _commands(given: Mapping[str, Any], predictions: Predictions) -> list[list[str]]:
    """How to train such a run again, and to make this report of it."""
    own = predictions.run
    config = str(own.config) if own else "config.yaml"
    train = ["cifar-resnet", "train", "--recipe", config]
    train += ["--name", f"{own.name}-again"] if own else []
    again = ["cifar-resnet", "report", *([str(own.path)] if own else [])]
    defaults = {"checkpoint": "last", "split": "val", "n": 60}
    for name in ("checkpoint", "split", "data", "data_dir", "limit_val", "n"):
        value = given[name]
        if value is not None and value != defaults.get(name):
            again += [f"--{name.replace('_', '-')}", str(value)]
    return [train, again + ["--skip-bad-images"] * given["skip_bad_images"]]
