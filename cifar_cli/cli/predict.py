"""`cifar-resnet predict`."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from cifar_cli.cli import options
from cifar_cli.cli.evaluate import Checkpoint
from cifar_cli.errors import CifarError, ConfigError, DataError

if TYPE_CHECKING:
    from cifar_cli.analysis.predict import Classified
    from cifar_cli.output.console import JsonStream

MOST_ROWS = 200
"""Rows of the table on the screen; a list of any length goes to --out or --json."""


def predict(
    run: options.Run = None,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Image files, folders with all their subfolders, or patterns such as '*.jpg'. "
            "-: read paths from stdin, one per line or separated by NUL bytes.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="K", help="Number of classes to name.")
    ] = 5,
    checkpoint: Checkpoint = "last",
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            metavar="N",
            help="Images per batch. Default: what suits the device and the size of the images.",
        ),
    ] = None,
    data_dir: options.DataDir = None,
    device: options.Device = None,
    out: Annotated[
        Path | None, options.of_output("--out FILE.csv", "Write the predictions to a CSV file.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Classify pictures: the likeliest classes of each, of any size and format.

    A file that cannot be read gets its reason, and the others are classified. The exit code is 3
    if no file can be read. A picture is marked as unlike the training data if its score is lower
    than that of 95% of the validation images.
    """
    from cifar_cli.analysis.predict import classify_files
    from cifar_cli.analysis.trained import find_checkpoint, load_on
    from cifar_cli.analysis.unlike import find_threshold
    from cifar_cli.cli.result_files import replacement_note
    from cifar_cli.data.finding import find_pictures
    from cifar_cli.output.progress import Bars
    from cifar_cli.storage import atomic_file
    from cifar_cli.training.memory import memory_errors

    words = [*([run] if run is not None else []), *(paths or [])]
    names_run = bool(words) and _is_run(words[0], is_only=len(words) == 1)
    named, pictures = (words[0], words[1:]) if names_run else (None, words)
    if not pictures:
        raise ConfigError(
            "No pictures are named.", "Give files or folders: cifar-resnet predict photo.jpg"
        )
    with Bars(quiet) as bars, ExitStack() as stack:
        if out:
            bars.say(replacement_note([out], "predict"))
        owner, found = find_checkpoint(named, checkpoint)
        trained = load_on(found, device or "auto")
        progress, folder = bars.update, str(data_dir) if data_dir else None
        threshold = find_threshold(trained, found, owner, progress, folder)
        if threshold.value is None:
            bars.say(
                [f"Not known which pictures are unlike the training data: {threshold.reason}."]
            )
        stack.enter_context(memory_errors("while classifying", "Try a smaller --batch-size."))
        results = classify_files(
            trained,
            find_pictures(_from_stdin(pictures)),
            top=top,
            batch_size=batch_size,
            threshold=threshold.value,
        )
        file = stack.enter_context(atomic_file(out)) if out else None
        report = _Report(json, file, min(top, len(found.class_names)))
        for number, one in enumerate(results, start=1):
            report.add(one)
            if number % 50 == 0:
                bars.update("Classifying", number, None)
    report.end(pictures, out, threshold.value is not None)


class _Report:
    """What is printed and written while pictures are classified, and their counts.

    Holds the rows of the table that is shown, and nothing of the other pictures.
    """

    def __init__(self, as_json: bool, file: BinaryIO | None, top: int) -> None:
        self.as_json, self.file = as_json, file
        self.stream: JsonStream | None = None
        self.entries: list[dict[str, Any]] = []
        self.num_images = self.num_errors = self.num_unlike = 0
        ranks = [f"{what}_{n}" for n in range(1, top + 1) for what in ("class", "probability")]
        self.columns = ["file", "predicted", *ranks, "unlike", "error"]
        self._write(self.columns)

    def add(self, picture: Classified) -> None:
        """Report one more."""
        from cifar_cli.output.console import JsonStream
        from cifar_cli.output.documents import START, picture_entry
        from cifar_cli.text import printable

        self.num_images += 1
        self.num_errors += picture.error is not None
        self.num_unlike += bool(picture.unlike)
        if self.file:
            ranked = [(name, round(share, 6)) for name, share in picture.predictions]
            cells = [cell for pair in ranked for cell in pair] or [""] * (len(self.columns) - 4)
            unlike = "" if picture.unlike is None else str(picture.unlike).lower()
            first = ranked[0][0] if ranked else ""
            error = printable(picture.error or "")
            self._write([printable(picture.file), first, *cells, unlike, error])
        if self.as_json:
            self.stream = self.stream or JsonStream(START, "images")
            self.stream.add(picture_entry(picture))
        elif len(self.entries) < MOST_ROWS:
            self.entries.append(picture_entry(picture))

    def end(self, pictures: Sequence[str], out: Path | None, knows_unlike: bool) -> None:
        """Print what comes last.

        Raises:
            DataError: No picture was classified.
        """
        from cifar_cli.output.console import counted, print_line, results
        from cifar_cli.output.documents import prediction_document
        from cifar_cli.output.tables import picture_table

        good = self.num_images - self.num_errors
        if self.stream:
            num_unlike = self.num_unlike if knows_unlike else None
            files = [out] if out else []
            self.stream.end(
                prediction_document(self.num_images, self.num_errors, num_unlike, files)
            )
        elif self.entries:
            console = results()
            console.print(picture_table(self.entries))
            if more := self.num_images - len(self.entries):
                console.say(f"{more:,} more are not shown; --out FILE.csv or --json lists all.")
            if self.num_images > 1:
                parts = [f"Classified {good:,} of {counted(self.num_images, 'file')}"]
                parts += [f"{self.num_errors:,} cannot be read"] * bool(self.num_errors)
                parts += [f"{self.num_unlike:,} are unlike the training data"] * knows_unlike
                console.say(f"{'; '.join(parts)}.")
            if out:
                print_line(str(out))
        named = " ".join(pictures[:3]) + (" ..." if len(pictures) > 3 else "")
        if not self.num_images:
            raise DataError(f"There are no images in {named}.", "Give files or folders of images.")
        if not good:
            raise DataError(f"None of {counted(self.num_images, 'file')} can be read as an image.")

    def _write(self, cells: list[Any]) -> None:
        if self.file:
            line = io.StringIO()
            csv.writer(line).writerow(cells)
            self.file.write(line.getvalue().encode("utf-8", "backslashreplace"))


def _is_run(word: str, is_only: bool) -> bool:
    """Whether the first word is a run, or is meant to be one that is not there."""
    from cifar_cli.data.finding import may_be_picture
    from cifar_cli.rundir import find_run

    try:
        found = find_run(word)
        # A single word names pictures, unless there is nothing there but a run.
        is_other = is_only and Path(word).exists() and not found.path.samefile(word)
        return found.is_run and not is_other
    except (CifarError, OSError):
        return not (is_only or word == "-" or may_be_picture(word))


def _from_stdin(words: Iterable[str]) -> Iterator[str]:
    """The words, and for `-` the paths that standard input lists."""
    from cifar_cli.data.finding import paths_of

    for word in words:
        if word == "-":
            yield from paths_of(sys.stdin.buffer)
        else:
            yield word
