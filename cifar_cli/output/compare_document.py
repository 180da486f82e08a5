"""What `compare` found, as JSON documents; keys are a contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_cli.output.documents import START, Document

if TYPE_CHECKING:
    from cifar_cli.analysis.paired import Comparison, Pair
    from cifar_cli.analysis.significance import Difference
    from cifar_cli.experiments.bench import Spread

DIFFERENCE_KEYS = ("difference", "interval", "p_value", "p_value_holm")


def comparison_document(comparison: Comparison, *, split: str, files: Iterable[Path]) -> Document:
    """What `compare --json` prints: all pairs, and at the top the figures of the first pair."""
    pairs = [
        {
            "before": pair.before.name,
            "after": pair.after.name,
            **difference_entry(pair.before.name, pair.after.name, pair.difference),
            "gained": pair.gained,
            "lost": pair.lost,
            "same_network": pair.is_same_network,
            "per_class": [
                {"class": one.name, **{key: getattr(one, key) for key in one._fields[1:]}}
                for one in pair.per_class
            ],
            "flipped": flipped_rows(comparison, pair),
        }
        for pair in comparison.pairs
    ]
    runs = [
        {
            "name": run.name,
            "path": str(run.run.path if run.run else run.checkpoint),
            "checkpoint": str(run.checkpoint),
            "accuracy": run.accuracy,
            "correct": run.correct,
            "interval": run.interval,
        }
        for run in comparison.runs
    ]
    return START | {
        "runs": runs,
        **{key: pairs[0][key] for key in (*DIFFERENCE_KEYS, "better", "flipped")},
        "comparisons": pairs,
        "settings": [{"key": key, "values": own} for key, own in comparison.settings.items()],
        "num_images": len(comparison.images),
        "data": comparison.data,
        "split": split,
        "files": list(map(str, files)),
    }


def difference_entry(before: str, after: str, difference: Difference) -> Document:
    """A difference as `compare --json` prints it; `better` is null if none is clearly better."""
    winner = after if difference.difference > 0 else before
    figures = {key: getattr(difference, key) for key in DIFFERENCE_KEYS}
    return figures | {"better": winner if difference.is_clear else None}


def flipped_rows(comparison: Comparison, pair: Pair) -> list[Document]:
    """The images that only one of two networks classifies correctly."""
    names, images = comparison.class_names, comparison.images
    rows = []
    for row, is_gain in pair.flips:
        entry: Document = {"index": int(images.indices[row])}
        entry |= {"file": comparison.files[row]} if comparison.files else {}
        entry |= {"true": names[int(images.labels[row])]}
        entry |= {"change": "wrong to right" if is_gain else "right to wrong"}
        for when, run in (("before", pair.before), ("after", pair.after)):
            entry[when] = names[int(run.predicted[row])]
            entry[f"{when}_confidence"] = round(float(run.confidence[row]), 6)
        rows.append(entry)
    return rows


def seeds_document(
    accuracies: Mapping[str, Sequence[float]],
    means: Sequence[Spread],
    differences: Mapping[str, Difference],
    files: Iterable[Path],
) -> Document:
    """What `compare --bench --json` prints; `differences` of each recipe from the first one."""
    before, *_ = accuracies
    runs = [
        {"name": name, "num_runs": len(own), "accuracy": mean.mean, "interval": mean.interval,
         "accuracies": list(own)}
        for (name, own), mean in zip(accuracies.items(), means, strict=True)
    ]  # fmt: skip
    pairs = [
        {"before": before, "after": after, **difference_entry(before, after, own)}
        for after, own in differences.items()
    ]
    top = {key: pairs[0][key] for key in (*DIFFERENCE_KEYS, "better")}
    rest = {"flipped": None, "comparisons": pairs, "files": list(map(str, files))}
    return START | {"runs": runs} | top | rest
