"""`cifar-resnet compare`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifar_cli.cli import completion, options
from cifar_cli.cli.evaluate import Split
from cifar_cli.cli.result_files import folder_name, replacement_note, result_stem
from cifar_cli.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from cifar_cli.analysis.paired import Comparison, Pair
    from cifar_cli.output.figures.curves import RunCurves
    from cifar_cli.output.progress import Bars


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="A B...",
            help="Run directories, names under runs/, NAME@best, or files of checkpoints. Each "
            "is compared with the first. With --bench: recipes.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            metavar="last|best",
            help="Checkpoint of each run that is not named with @last or @best.",
            show_default=True,
        ),
    ] = "last",
    split: Split = "val",
    bench: Annotated[
        Path | None,
        typer.Option(
            "--bench",
            metavar="DIR",
            help="Compare recipes rather than runs: mean accuracies over the seeds that bench has "
            "left in DIR.",
        ),
    ] = None,
    n: Annotated[
        int,
        typer.Option(
            "--n",
            min=1,
            max=50,
            metavar="N",
            help="Maximum number of images per section of flipped.png.",
        ),
    ] = 10,
    data: options.RunData = None,
    data_dir: options.DataDir = None,
    limit_val: options.LimitVal = None,
    skip_bad_images: options.SkipBadImages = False,
    device: options.Device = None,
    out: options.Out = None,
    format_: options.Format = "png",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Tell whether B is better than A, on the same images.

    Prints the difference of accuracy with its 95% interval (Tango) and McNemar's exact test, each
    class, and the settings that differ. Writes the images that flipped, and figures, to compare/
    of the last run named.
    """
    given = locals()
    if bench is not None:
        _compare_recipes(given)
        return
    from cifar_cli.analysis.compare import compare as compare_runs
    from cifar_cli.output.compare_document import comparison_document
    from cifar_cli.output.compare_tables import (
        compared_table,
        correction_lines,
        difference_table,
        pair_lines,
        setting_table,
    )
    from cifar_cli.output.console import show
    from cifar_cli.output.progress import Bars
    from cifar_cli.storage import write_json

    if runs and len(runs) == 1 and (Path(runs[0]) / "bench.json").is_file():
        raise ConfigError(
            f"{runs[0]} is a bench.", f"Compare its recipes: cifar-resnet compare --bench {runs[0]}"
        )
    with Bars(quiet) as bars:
        found = compare_runs(
            runs or [],
            checkpoint=checkpoint,
            split=split,  # type: ignore[arg-type] # checked there
            data=data,
            data_dir=str(data_dir) if data_dir else None,
            device=device,
            limit=limit_val,
            skip_bad_images=skip_bad_images,
            progress=bars.update,
        )
        bars.say(found.notes)
        files = _write(given, found, bars)
    document = comparison_document(found, split=split, files=files)
    write_json(files[-1], document)
    names = [run.name for run in found.runs]
    differ = [pair for pair in found.pairs if not pair.is_same_network]
    show(
        document,
        json,
        compared_table(found),
        *map(difference_table, differ),
        *([setting_table(found.settings, names)] if found.settings else []),
        *(line for pair in found.pairs for line in pair_lines(pair)),
        *correction_lines(len(found.pairs)),
    )


def _write(given: Mapping[str, Any], found: Comparison, bars: Bars) -> list[Path]:
    """Draw the figures and write the tables; all files, of which the document is still to come."""
    from cifar_cli.output.figures.curves import loss_and_accuracy
    from cifar_cli.output.figures.differences import class_differences
    from cifar_cli.output.figures.style import about_line
    from cifar_cli.rundir import RunDir

    run, out, form = found.runs[-1].run, given["out"], given["format_"]
    others = folder_name("_".join(one.name for one in found.runs[:-1]))
    folder = out or (RunDir(run.subfolder("compare")).subfolder(others) if run else Path("compare"))
    stem = result_stem(
        split=given["split"],
        checkpoint=given["checkpoint"],
        data=given["data"],
        own_data=found.runs[0].config.data.source,
        limit=given["limit_val"],
    )
    tag = "" if stem == "val_last" else f"_{stem}"
    foot = about_line("", found.data, given["split"], len(found.images))
    writers: dict[Path, Callable[[Path], object]] = {}
    for number, pair in enumerate(found.pairs, start=1):
        own = f"{number}_{folder_name(pair.after.name)}" if len(found.pairs) > 1 else ""
        own = f"_{own}{tag}" if own else tag
        if pair.is_same_network:
            continue
        title = f"{pair.after.name} minus {pair.before.name}, by class"
        writers[folder / f"classes{own}.{form}"] = partial(
            class_differences, pair=pair, title=title, footer=foot
        )
        writers[folder / f"flipped{own}.{form}"] = partial(
            _draw_flips, found=found, pair=pair, most=given["n"], foot=foot
        )
        writers[folder / f"flipped{own}.csv"] = partial(_write_flips, found=found, pair=pair)
    curves = _curves(found, bars)
    if len(curves) > 1:
        writers[folder / f"loss_accuracy.{form}"] = lambda path: loss_and_accuracy(path, curves)
    files = [*writers, folder / f"comparison{tag}.json"]
    bars.say(replacement_note(files, "compare", in_run=out is None and run is not None))
    for file, write in writers.items():
        write(file)
    return files


def _curves(found: Comparison, bars: Bars) -> list[RunCurves]:
    """The curves of the runs; none if a file of one is damaged, which the networks do not need."""
    from cifar_cli.output.figures.curves import run_curves

    try:
        return [
            replace(run_curves(run), name=name)
            for run, name in {one.run: one.name for one in found.runs[::-1] if one.run}.items()
        ][::-1]
    except CheckpointError as error:
        bars.say([f"No curves are drawn: {error}"])
        return []


def _draw_flips(path: Path, found: Comparison, pair: Pair, most: int, foot: str) -> None:
    from cifar_cli.output.figures.images import FlipSection, flip_gallery

    names, sections = found.class_names, []
    before, after = pair.before, pair.after
    for is_gain, count in ((False, pair.lost), (True, pair.gained)):
        rows = [flip.row for flip in pair.flips if flip.is_gain == is_gain][:most]
        captions = []
        for row in rows:
            first, second = (
                f"{'✓' if is_right else '✗'} {run.name}: {names[int(run.predicted[row])]} "
                f"{run.confidence[row]:.0%}"
                for run, is_right in ((before, not is_gain), (after, is_gain))
            )
            file = found.files[row] if found.files else f"image {int(found.images.indices[row])}"
            captions.append((names[int(found.images.labels[row])], first, second, file))
        right = after.name if is_gain else before.name
        shown = f", {len(rows):,} shown" if len(rows) < count else ""
        heading = f"Only {right} is right: {count:,}{shown}"
        images = found.images.images[rows].numpy()
        sections.append(FlipSection(heading, is_gain, images, captions))
    title = f"Images that flipped from {before.name} to {after.name}"
    flip_gallery(path, sections, title, foot)


def _write_flips(path: Path, found: Comparison, pair: Pair) -> None:
    from cifar_cli.output.compare_document import flipped_rows
    from cifar_cli.storage import write_csv

    columns = ["index", *["file"] * bool(found.files), "true", "change"]
    columns += ["before", "before_confidence", "after", "after_confidence"]
    write_csv(path, columns, flipped_rows(found, pair))


def _compare_recipes(given: Mapping[str, Any]) -> None:
    """Compare the recipes of a bench by the mean accuracies over their seeds."""
    from cifar_cli.analysis.significance import corrected, welch
    from cifar_cli.experiments.bench import spread
    from cifar_cli.experiments.bench_result import read_accuracies
    from cifar_cli.output.compare_document import seeds_document
    from cifar_cli.output.compare_tables import correction_lines, seed_table, verdict
    from cifar_cli.output.console import remarks, show
    from cifar_cli.storage import write_json

    meaningless = ("data", "limit_val", "device", "data_dir", "skip_bad_images")
    for name in meaningless:
        if given[name]:
            raise ConfigError(
                f"--{name.replace('_', '-')} has no meaning with --bench, which reads results."
            )
    accuracies = read_accuracies(given["bench"], given["runs"] or [])
    before, *others = accuracies
    found = corrected([welch(accuracies[before], accuracies[name]) for name in others])
    differences = dict(zip(others, found, strict=True))
    means = [spread(own) for own in accuracies.values()]
    file = (given["out"] or given["bench"]) / "comparison.json"
    for note in [] if given["quiet"] else replacement_note([file], "compare"):
        remarks().say(note)
    document = seeds_document(accuracies, means, differences, [file])
    write_json(file, document)
    lines = []
    for name, difference in differences.items():
        seeds = f"Welch's test, {len(accuracies[before])} and {len(accuracies[name])} seeds"
        lines += verdict(before, name, difference, ("Welch", seeds))
    show(
        document,
        given["json"],
        seed_table(accuracies, means),
        *lines,
        *correction_lines(len(differences)),
    )
