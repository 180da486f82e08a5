"""What a report says in words; plain text, for any form that a report is written in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cifar_cli.analysis.report import Report
from cifar_cli.output.console import counted

IMAGES = {
    "val": "validation images",
    "test": "test images",
    "train": "training images, not augmented",
}
_MOST_ROWS, _MOST_CHARACTERS = 40, 200

MANY_SUSPECTS = 0.1
"""Share of labels: few data sets have so many wrong ones (Northcutt et al. 2021: 0.2% to 10.1%)."""


def images_line(report: Report) -> str:
    """Which images were classified."""
    return f"{report.evaluation.num_images:,} {IMAGES[report.split]}"


def checkpoint_line(report: Report) -> str:
    """Which checkpoint classified them."""
    path = report.evaluation.predictions.trained.path
    return f"{report.checkpoint} ({path})" if report.checkpoint in ("last", "best") else str(path)


def notes(report: Report) -> list[str]:
    """What a reader must know before the figures."""
    found = [] if report.run else [
        "The checkpoint is a file outside of a run. So there are no curves, warnings and versions."
    ]  # fmt: skip
    if report.run:
        finished = len(report.run.epochs)
        total = report.evaluation.predictions.trained.config.train.epochs
        epochs = f"{finished:,} of {counted(total, 'epoch')}"
        found += {
            "running": [
                f"The run is still training: {epochs} finished. A later report will differ."
            ],
            "interrupted": [f"Training was interrupted: {epochs} finished."],
            "failed": [f"Training failed: {epochs} finished."],
        }.get(report.run.state, [])
        found += report.run.damaged
    if report.split == "train":
        found.append(
            "The network was trained on these images. Its accuracy on new images is lower."
        )
    if report.split == "val" and report.checkpoint == "best":
        found.append(
            "This checkpoint was chosen for its accuracy on the validation images. Its accuracy on "
            "new images may be lower."
        )
    if report.limit is not None:
        found.append("The images are a random subset of the split, in its mixture of classes.")
    return [*found, *report.evaluation.predictions.notes]


def calibration_sentences(report: Report) -> list[str]:
    """The calibration error, and how it is defined."""
    calibration = report.calibration
    difference = calibration.confidence - calibration.accuracy
    how = "about as" if abs(difference) < 0.005 else "more" if difference > 0 else "less"
    than = "as" if how == "about as" else "than"
    return [
        f"The network is {how} confident {than} accurate: its mean confidence is "
        f"{calibration.confidence:.1%}, its accuracy {calibration.accuracy:.1%}.",
        "Confidence is the softmax probability of the predicted class. Images are sorted by it "
        f"into {len(calibration.bins)} bins of equal width. The expected calibration error is the "
        "mean over all images of the difference between accuracy and mean confidence in their bin.",
    ]


def mistake_sentences(report: Report) -> list[str]:
    """How many mistakes there are, which are shown, and what their maps mean."""
    total = report.evaluation.num_images
    wrong, shown = total - report.evaluation.correct, len(report.mistakes)
    if not wrong:
        return ["No image is misclassified."]
    which = f"The {shown:,} with the highest loss are shown."
    which = which if shown < wrong else "All are shown." if wrong > 1 else "It is shown."
    maps = report.no_maps and f"There are no activation maps. {report.no_maps}"
    return [
        f"{wrong:,} of {counted(total, 'image')} {'is' if wrong == 1 else 'are'} misclassified. "
        f"{which} Each is named by its true class and the predicted one, with the confidence in "
        "that.",
        maps
        or "An activation map (Grad-CAM) colours the parts of an image that speak for the "
        "predicted class. Some images have no such part.",
    ]


def suspect_sentences(report: Report) -> list[str]:
    """How many labels are suspected, and how far that can be trusted."""
    count, shown = report.num_suspects, len(report.suspects)
    if count is None:
        return [f"The labels were not examined. {report.not_examined}"]
    total = report.evaluation.num_images
    which = f" The {shown:,} least probable ones are shown." if shown < count else ""
    if report.split == "train":
        trust = (
            "The network was trained on these images, so it may have learned wrong labels too. "
            "Look at --split val, which it was not trained on."
        )
    elif report.is_own_data and report.run:
        trust = "The network was not trained on these images, as the method requires."
    else:
        trust = "The method requires images that the network was not trained on."
    mistaken = " A suspect can be a mistake of the network: look before you change a label."
    if count > MANY_SUSPECTS * total:
        mistaken = " So many are mostly mistakes of the network: look before you change a label."
    return [
        f"cleanlab suspects {f'{count:,}' if count else 'none'} of {counted(total, 'label')}."
        f"{which}{mistaken if count else ''}",
        f"Confident learning compares each label with the network's probabilities. {trust}",
    ]


def summary_sentence(report: Report) -> str:
    """What was found, in a line for the terminal."""
    wrong = report.evaluation.num_images - report.evaluation.correct
    suspects = report.num_suspects
    labels = "" if suspects is None else f" {counted(suspects, 'suspected label error')}."
    if suspects and suspects > MANY_SUSPECTS * report.evaluation.num_images:
        labels = f" {suspects:,} labels are suspected, which are mostly the network's mistakes."
    return (
        f"{counted(wrong, 'image')} misclassified, {len(report.mistakes):,} shown. "
        f"Calibration error {report.calibration.error:.2%}.{labels}"
    )


def repeat_sentence(report: Report) -> str:
    """What the commands need."""
    if report.run:
        return "The first command reads the configuration of the run, which stands below."
    return "Save the configuration below as config.yaml first."


def environment_rows(report: Report) -> list[tuple[str, str]]:
    """Versions and hardware of the run, as the run's file has them."""
    every = list(_flat(report.run.environment)) if report.run else []
    return every[:_MOST_ROWS]


def _flat(values: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and not depth:
            yield from _flat(value, 1)
        elif value is not None:
            text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
            yield str(key).replace("_", " ")[:_MOST_CHARACTERS], text[:_MOST_CHARACTERS]
