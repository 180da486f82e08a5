"""Rich tables of results. Names and sentences may be wrapped, numbers never."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cifar_cli.config.settings import TAGS
from cifar_cli.output.console import counted, duration, styled
from cifar_cli.text import printable

if TYPE_CHECKING:  # they need torch, which a list of recipes does not
    from cifar_cli.analysis.evaluate import Evaluation
    from cifar_cli.analysis.metrics import ClassFigures, ConfusedPair
    from cifar_cli.doctor.checks import Check
    from cifar_cli.rundir import EpochRecord

EPOCHS_WIDTH, RECIPES_WIDTH, RUNS_WIDTH = 84, 110, 100
"""Columns that these tables take in their wide form."""
BENCH_ROWS = (
    ("Accuracy %", "accuracy", 0.01, 2),
    ("Accuracy, 6 views %", "accuracy_six_views", 0.01, 2),
    ("Training s", "train_seconds", 1, 1),
    ("Whole process s", "process_seconds", 1, 1),
    ("Evaluation s", "evaluate_seconds", 1, 2),
    ("CPU s", "cpu_seconds", 1, 1),
    ("Peak memory GiB (host)", "peak_bytes", 2**30, 2),
    ("Training PFLOP", "train_flops", 1e15, 4),
)
"""Title, figure, unit and digits."""
BENCH_CAPTION = "± half of the 95% interval of the mean"


def epoch_table(records: Sequence[EpochRecord], width: int) -> Table:
    """The table of epochs; the best validation accuracy is bold."""
    headers = ["Epoch", "Train loss", "Val loss", "Train acc %", "Val acc %", "LR", "Time"]
    if width < EPOCHS_WIDTH:
        headers = [header.replace(" ", "\n", 1) for header in headers]
    table = new_table("Epochs", *headers, caption="Losses are means per image.")
    best = max((r.val_accuracy for r in records), default=None)
    for r in records:
        accuracy = f"{100 * r.val_accuracy:.2f}"
        table.add_row(
            str(r.epoch),
            f"{r.train_loss:.4f}",
            f"{r.val_loss:.4f}",
            f"{100 * r.train_accuracy:.2f}",
            styled(accuracy) if r.val_accuracy == best else accuracy,
            f"{r.lr:.3g}",
            duration(r.seconds),
        )
    return table


def class_table(classes: Sequence[ClassFigures]) -> Table:
    """One row per class: recall and precision, each with its number of images, and F1.

    Of more than 40 classes the worst twenty and the best five.
    """
    from cifar_cli.analysis.metrics import worst_and_best

    worst, best = worst_and_best(classes)
    rows = [*worst, *best] if best else list(classes)
    numbers = "Images", "Correct", "Recall %", "Predicted", "Precision %", "F1 %"
    left_out = len(classes) - len(rows)
    caption = f"The lowest recalls first; {left_out} classes in between." if best else ""
    table = new_table("Classes", "Class", *numbers, names=["Class"], caption=caption)
    for place, figures in enumerate(rows, start=1):
        table.add_row(
            figures.name,
            f"{figures.num_images:,}",
            f"{figures.correct:,}",
            _percent(figures.accuracy),
            f"{figures.num_predicted:,}",
            _percent(figures.precision),
            _percent(figures.f1),
            end_section=bool(best) and place == len(worst),
        )
    return table


def confused_table(pairs: Sequence[ConfusedPair]) -> Table:
    """The pairs of classes that are confused most often."""
    names = "True class", "Predicted class"
    table = new_table("Most confused", *names, "Images", "% of the class", names=names)
    for pair in pairs[:5]:
        table.add_row(pair.true, pair.predicted, f"{pair.count:,}", _percent(pair.share))
    return table


def evaluation_text(result: Evaluation) -> Text:
    """Accuracy with its interval, loss, and the means over classes."""
    low, high = result.interval
    means = {
        "Balanced accuracy": result.balanced_accuracy,
        "macro F1": result.macro_f1,
        "top-5 accuracy": result.top5_accuracy,
    }
    known = [f"{name} {value:.2%}" for name, value in means.items() if value is not None]
    return Text.assemble(
        "Accuracy ",
        styled(f"{result.accuracy:.2%}"),
        f" (95% interval {low:.2%} to {high:.2%}): {result.correct:,} of {result.num_images:,} "
        f"images\nLoss {result.loss:.4f}\n{', '.join(known)}",
    )


def mistake_table(images: Sequence[Mapping[str, Any]]) -> Table:
    """One row per misclassified image, with the entries of `mistake_document`."""
    first = "File" if any("file" in image for image in images) else "Index"
    names = "True class", "Predicted class", "File"
    headers = first, *names[:2], "Confidence %", "Loss"
    table = new_table("Misclassified images", *headers, names=names)
    for image in images:
        table.add_row(
            str(image[first.lower()]),
            image["true"],
            image["predicted"],
            f"{100 * image['confidence']:.1f}",
            f"{image['loss']:.3f}",
        )
    return table


def picture_table(images: Sequence[Mapping[str, Any]]) -> Table:
    """One row per picture, with the entries of `picture_entry`: its class, then the next ones."""
    has_next = any(image["error"] or len(image["predictions"]) > 1 for image in images)
    names = ("File", "Class", *["Next %"] * has_next)
    table = new_table("Predictions", "File", "Class", "%", *["Next %"] * has_next, names=names)
    for image in images:
        first, *others = image["predictions"] or [None]
        if first is None:
            table.add_row(image["file"], "--", "--", styled(image["error"], "red"))
            continue
        name = f"{first['class']} (unlike)" if image["unlike"] else first["class"]
        then = ", ".join(f"{one['class']} {_percent(one['probability'], 1)}" for one in others)
        row = image["file"], name, _percent(first["probability"], 1), then
        table.add_row(*row[: len(table.columns)])
    return table


def recipe_table(recipes: Sequence[Mapping[str, Any]], width: int) -> Group:
    """One row per recipe, with the entries of `recipe_document`; if narrow, descriptions below."""
    is_wide = width >= RECIPES_WIDTH
    names = "Name", "Augmentation", "Data", "About"
    headers = "Name", "Epochs", "Batch", "Widths", "Augmentation", "Data", "About"
    table = new_table("Recipes", *headers[: None if is_wide else -1], names=names)
    below = Table.grid(padding=(0, 2))
    for recipe in recipes:
        widths = ", ".join(map(str, recipe["widths"]))
        counts = str(recipe["epochs"]), str(recipe["batch_size"])
        cells = [recipe["name"], *counts, widths, recipe["augment"], recipe["data"]]
        table.add_row(*cells, *([recipe["about"]] if is_wide else []))
        below.add_row(recipe["name"], recipe["about"])
    return Group(table, *([] if is_wide else [below]))


def run_table(runs: Sequence[Mapping[str, Any]], width: int) -> Table:
    """One row per run, with the entries of `runs_document`; a narrow table has fewer columns."""
    names = "Name", "State", "Data"
    is_wide = width >= RUNS_WIDTH
    headers = *names, "Epochs", "Val acc %", *(["Best %", "Time", "Date"] if is_wide else [])
    table = new_table("Runs", *headers, names=names)
    for run in runs:
        cells = [run["name"], run["state"] or "--", run["data"] or "--"]
        cells += [str(run["epochs_completed"]), _percent(run["val_accuracy"])]
        if is_wide:
            seconds = run["seconds"]
            took = "--" if seconds is None else duration(seconds)
            cells += [_percent(run["best_val_accuracy"]), took, _date(run["updated"])]
        table.add_row(*cells)
    return table


def run_lines(run: Mapping[str, Any]) -> list[str | Text]:
    """What is known of one run, with the entries of `runs_document`."""
    seconds = run["seconds"]
    rows = {
        "directory": run["path"],
        "state": run["state"] or "unknown",
        "data": run["data"] or "unknown",
        "epochs": str(run["epochs_completed"]),
        "accuracy": f"{_percent(run['val_accuracy'])}% on validation after the last epoch",
        "best": f"{_percent(run['best_val_accuracy'])}%",
        "time": "--" if seconds is None else duration(seconds),
        "updated": _date(run["updated"]),
    }
    return [styled(run["name"]), *(f"  {name:<10} {value}" for name, value in rows.items())]


def _date(text: str) -> str:
    """Date and time to the minute."""
    return text[:16].replace("T", " ") or "--"


def setting_lines(setting: Mapping[str, Any]) -> list[str | Text]:
    """What a setting means, with the entries of `setting_document`."""
    lines: list[str | Text] = [
        styled(setting["key"]),
        f"  {setting['meaning']}",
        f"  values       {setting['values']}",
        f"  default      {setting['default']!r}",
    ]
    if setting["belongs_to"]:
        section = setting["key"].partition(".")[0]
        lines.append(f"  belongs to   {section}.{TAGS[section]} {', '.join(setting['belongs_to'])}")
    lines.append(f"  read by      {', '.join(setting['read_by'])}")
    lines.append(f"  environment  {setting['variable']}")
    return lines


def doctor_table(checks: Sequence[Check]) -> Table:
    """One row per check: a tick, a cross, or a dot if something is still to be done."""
    table = Table(title="Doctor", header_style="bold", show_lines=True)
    table.add_column("")
    table.add_column("Check", no_wrap=True)
    table.add_column("Found", overflow="fold")
    table.add_column("What to do", overflow="fold")
    for check in checks:
        tick = styled("•", "yellow") if check.remedy else styled("✓", "green")
        table.add_row(
            tick if check.ok else styled("✗", "red"), check.name, check.detail, check.remedy
        )
    return table


def bench_table(report: Mapping[str, Any], width: int) -> Group:
    """One column per recipe, one row per figure; as many tables as recipes need columns."""
    titles = [title for title, *_ in BENCH_ROWS]
    groups: list[list[tuple[str, list[str]]]] = []
    left = 0
    for name, figures in report["recipes"].items():
        cells = [_cell(figures[figure], unit, digits) for _, figure, unit, digits in BENCH_ROWS]
        header = f"{printable(name)}\n{counted(figures['accuracy']['n'], 'run')}"
        needed = max(map(len, [*cells, *header.split("\n")])) + 3
        if needed > left or not groups:
            groups.append([])
            left = width - max(map(len, titles)) - 4
        groups[-1].append((header, cells))
        left -= needed
    tables = []
    for group in groups:
        table = Table(title="Bench", caption=BENCH_CAPTION, header_style="bold")
        table.add_column("")
        for header, _ in group:
            table.add_column(Text(header), justify="right", overflow="fold")
        for row in zip(titles, *(cells for _, cells in group), strict=True):
            table.add_row(*row)
        tables.append(table)
    return Group(*tables)


def new_table(title: str, *headers: str, names: Container[str] = (), caption: str = "") -> Table:
    """A table with these columns; all but `names` hold numbers."""
    table = Table(title=title, caption=caption or None, header_style="bold")
    for header in headers:
        if header in names:
            table.add_column(header, overflow="fold")
        else:
            table.add_column(Text(header), justify="right", no_wrap=True)
    return table


def _cell(figure: Mapping[str, Any], unit: float, digits: int) -> str:
    """The mean of a figure and half of its 95% interval."""
    mean = f"{figure['mean'] / unit:.{digits}f}"
    if not figure["interval"] or not figure["deviation"]:
        return mean
    half = (figure["interval"][1] - figure["interval"][0]) / 2
    return f"{mean} ± {half / unit:.{digits}f}"


def _percent(share: float | None, digits: int = 2) -> str:
    return "--" if share is None else f"{100 * share:.{digits}f}"
