"""`cifar-resnet sweep STUDY.yaml`, `sweep status`, `sweep best`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cifar_cli.cli import options
from cifar_cli.errors import ConfigError

if TYPE_CHECKING:
    from cifar_cli.experiments.study_file import Study
    from cifar_cli.experiments.sweep import Place, Trial
    from cifar_cli.experiments.trials import Tally

DEFAULT = "run"


class _Group(TyperGroup):
    """`sweep STUDY.yaml` is short for `sweep run STUDY.yaml`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [DEFAULT, *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


app = typer.Typer(
    cls=_Group,
    help="Search settings by many trainings, on one machine or several. sweep STUDY.yaml is short "
    "for sweep run STUDY.yaml.",
    no_args_is_help=True,
)
File = Annotated[
    Path, typer.Argument(metavar="STUDY", help="A YAML file that says what is searched.")
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="sqlite:///FILE, or postgresql://USER@HOST/DATABASE, which several machines can "
        "share. Default: an SQLite file in the folder.",
    ),
]
Folder = Annotated[
    Path | None, options.of_output("--out DIR", "Folder for the runs. Default: sweeps/NAME.")
]
Name = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name of the study. Default: that of the file."),
]


@app.command(DEFAULT)
def run(
    study: File,
    trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Trials in all, instead of the file's.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, metavar="M", help="Begin no trial after so many minutes."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="Processes that train trials here.")
    ] = 1,
    storage: Storage = None,
    out: Folder = None,
    name: Name = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train trials until there are enough of them; resume a study that was interrupted.

    The same command can run on several machines at a time, with one PostgreSQL storage. Workers
    may be stopped or killed at any time: their trials are resumed, and none is done twice.
    """
    from cifar_cli.experiments.study_file import read_study
    from cifar_cli.experiments.sweep import check_images, work
    from cifar_cli.experiments.workers import run_workers
    from cifar_cli.output.console import remarks

    read = read_study(study)
    check_images(read)  # before anything is stored
    ends = {"trials": trials, "minutes": minutes}
    read = read.model_copy(update={key: end for key, end in ends.items() if end is not None})
    place = _open(study, storage, out, name, begin=read)
    say: Callable[[str], None] = (lambda text: None) if quiet else remarks().say

    def tell(trial: Trial, state: Tally) -> None:
        say(_line(trial, state, place))

    if workers == 1:
        work(place, tell)
    else:
        say(f"{workers} workers train {place.study.trials:,} trials in {place.folder}.")
        run_workers(
            _arguments(study, place, trials, minutes), workers, _shares(place, workers),
            _Poll(place, tell),
        )  # fmt: skip
    _show(place, json)


@app.command("status")
def status(
    study: File,
    storage: Storage = None,
    out: Folder = None,
    name: Name = None,
    json: options.Json = False,
) -> None:
    """Show the trials of a study, and draw them."""
    _show(_open(study, storage, out, name), json)


@app.command("best")
def best(
    study: File,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Confirm the best trial, and write it as a recipe."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=2, max=100, metavar="N", help="Trainings that confirm it.")
    ] = 3,
    storage: Storage = None,
    out: Folder = None,
    name: Name = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show the best trial; with --write, confirm it on fresh seeds and write it as a recipe.

    The best of many looks better than it is. What is claimed in the recipe is the mean over seeds
    that the study has not used.
    """
    from cifar_cli.config.loading import config_yaml
    from cifar_cli.experiments.bench import spread
    from cifar_cli.experiments.sweep import best_of, confirm
    from cifar_cli.output.console import remarks, show
    from cifar_cli.output.study import best_document, best_lines
    from cifar_cli.storage import write_text

    place = _open(study, storage, out, name)
    trial = best_of(place.trials(), place.study)
    if trial is None:
        raise ConfigError(f"No trial of {study} is complete.", f"Run: cifar-resnet sweep {study}")
    if write and os.path.lexists(write):
        raise ConfigError(f"{write} exists already; choose another name.")
    found = None
    if write:
        say: Callable[[str], None] = (lambda text: None) if quiet else remarks().say
        found = spread(confirm(place, trial, seeds, say))
    document = best_document(place.study, trial, found, write)
    lines = best_lines(document)
    if write:
        header = "".join(f"# {line}\n" for line in lines)
        write_text(write, header + config_yaml(place.study.config(trial.values)))
    show(document, json, *lines)


def _open(
    file: Path,
    storage: str | None,
    out: Path | None,
    name: str | None,
    begin: Study | None = None,
) -> Place:
    """The study of a file, which is there already unless it is given as one to begin."""
    from cifar_cli.experiments.storage import checked_url, open_study
    from cifar_cli.experiments.study_file import read_study
    from cifar_cli.experiments.sweep import Place

    name = name or file.stem
    folder = out or Path("sweeps") / name
    study = begin or read_study(file)
    url = checked_url(storage, folder)
    if storage is None:
        if not begin and not (folder / "study.db").is_file():
            raise ConfigError(
                f"There is no study in {folder}.", f"Begin it with: cifar-resnet sweep {file}"
            )
        folder.mkdir(parents=True, exist_ok=True)
    return Place(study, open_study(study, name, url), url, folder)


def _arguments(file: Path, place: Place, trials: int | None, minutes: float | None) -> list[str]:
    """The command of one worker."""
    ends = [("--trials", trials), ("--minutes", minutes)]
    given = [text for option, value in ends if value is not None for text in (option, str(value))]
    name, url, folder = place.opened.study_name, place.url, str(place.folder)
    own = ["--name", name, "--storage", url, "--out", folder, "--quiet", "--json"]
    return ["sweep", DEFAULT, str(file), *given, *own]


def _shares(place: Place, workers: int) -> dict[str, str]:
    """The environment in which workers share the processor, unless the study says otherwise."""
    from cifar_cli.config.loading import variable
    from cifar_cli.training.threads import cpus

    key = "runtime.threads"
    if key in place.study.set or key in place.study.search:
        return {}
    return {variable(key): str(max(1, cpus() // workers))}


class _Poll:
    """Tells of trials that ended since the last call."""

    def __init__(self, place: Place, tell: Callable[[Trial, Tally], None]) -> None:
        self.place, self.tell = place, tell
        self.told = {t.number for t in place.trials() if t.state in _OVER}

    def __call__(self) -> None:
        from cifar_cli.experiments.trials import tally

        for trial in self.place.trials():
            if trial.state in _OVER and trial.number not in self.told:
                self.told.add(trial.number)
                self.tell(trial, tally(self.place.attempts()))


_OVER = ("complete", "pruned", "failed")


def _line(trial: Trial, state: Tally, place: Place) -> str:
    """One line on a trial that ended."""
    from cifar_cli.output.study import objective_text, values_text

    study = place.study
    values = values_text(trial.values)
    came_to = {
        "complete": f"{objective_text(study.objective, trial.objective)}",
        "pruned": f"pruned after epoch {trial.epochs}",
        "failed": f"failed: {trial.error}",
    }[trial.state]
    return f"{state.finished} of {study.trials}: trial {trial.number}, {values}: {came_to}"


def _show(place: Place, json: bool) -> None:
    from cifar_cli.experiments.sweep import best_of
    from cifar_cli.experiments.trials import tally
    from cifar_cli.output.console import show
    from cifar_cli.output.figures.study import study_figure
    from cifar_cli.output.study import sweep_document, sweep_lines, trial_table

    trials = place.trials()
    best = best_of(trials, place.study)
    files = []
    if any(trial.objective is not None for trial in trials):
        files = [study_figure(place.folder / "study.png", place.study, trials)]
    document = sweep_document(place.study, trials, best, tally(place.attempts()), files)
    show(document, json, trial_table(document), *sweep_lines(document))
