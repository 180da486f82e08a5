"""`cifar-resnet find-lr`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cifar_cli.cli import options
from cifar_cli.cli.result_files import replacement_note

if TYPE_CHECKING:
    from cifar_cli.config import Config


def find_lr(
    start_lr: Annotated[float, typer.Option(metavar="X", help="First learning rate.")] = 1e-7,
    end_lr: Annotated[float, typer.Option(metavar="X", help="Last learning rate.")] = 10.0,
    num_iter: Annotated[int, typer.Option(metavar="N", help="Number of steps.")] = 200,
    step_mode: Annotated[
        Literal["exp", "linear"],
        typer.Option(metavar="exp|linear", help="Space the steps logarithmically or linearly."),
    ] = "exp",
    init: options.Init = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    limit_train: options.LimitTrain = None,
    skip_bad_images: options.SkipBadImages = False,
    recipe: options.Recipe = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    device: options.Device = None,
    seed: options.Seed = None,
    out: options.Out = None,
    format_: options.Format = "png",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run the LR range test: raise the learning rate step by step, and suggest a peak rate.

    Writes lr_range.png, lr_range.csv and lr_range.json. Default folder: lr_range/.
    """
    given = locals()
    settings, note = options.choose(given)
    from cifar_cli.data.opening import open_images
    from cifar_cli.output.console import command_line, show
    from cifar_cli.output.documents import lr_document
    from cifar_cli.output.figures.curves import lr_range
    from cifar_cli.output.figures.style import about_line
    from cifar_cli.output.progress import Bars
    from cifar_cli.storage import write_csv, write_json
    from cifar_cli.training.lr_search import check_range, lr_range_test
    from cifar_cli.training.memory import fewer_images, memory_errors, smaller_batch
    from cifar_cli.training.pretrained import start_from, weights_for
    from cifar_cli.training.runtime import Runtime

    check_range(start_lr, end_lr, num_iter)
    files = [(out or Path("lr_range")) / f"lr_range.{end}" for end in (format_, "csv", "json")]
    notes = replacement_note(files, "find-lr")
    runtime, trained = Runtime.start(settings), weights_for(settings)
    with Bars(quiet, note) as bars, memory_errors(*smaller_batch(settings)):
        bars.say(notes)
        with memory_errors(*fewer_images(settings)):
            settings, dataset, splits = open_images(settings, bars.update)
        bars.say(dataset.notes)
        start = start_from(trained, splits.class_names) if trained else None
        bars.say([start.note] if start else [])
        curve = lr_range_test(
            settings,
            splits,
            runtime,
            start_lr=start_lr,
            end_lr=end_lr,
            num_iter=num_iter,
            step_mode=step_mode,
            start=start,
            on_step=bars.update,
        )
    footer = about_line("", dataset.name, "train", len(splits.train))
    suggestions, band = curve.suggestions, curve.band
    lr_range(files[0], curve.lrs, curve.smoothed, suggestions, band, step_mode, footer)
    columns = ("lr", "loss", "smoothed_loss")
    points = zip(curve.lrs, curve.losses, curve.smoothed, strict=True)
    write_csv(files[1], list(columns), [dict(zip(columns, p, strict=True)) for p in points])
    document = lr_document(curve, files)
    write_json(files[2], document)
    how = "stopped early because the loss diverged" if curve.stopped_early else "the whole range"
    low, high = curve.band
    others = {name: lr for name, lr in curve.suggestions.items() if name != "middle"}
    command = train_command(given, settings, curve.suggestion)
    show(
        document,
        json,
        f"{len(curve.lrs)} steps, {how}.",
        f"Suggested peak learning rate: {curve.suggestion:.3g} ({low:.1e} to {high:.1e} will do)",
        f"Other rules: {', '.join(f'{name} {lr:.1e}' for name, lr in others.items())}",
        *(f"Warning: {warning}" for warning in curve.warnings),
        command_line("Train with it", command),
    )


def train_command(given: Mapping[str, Any], config: Config, max_lr: float) -> list[str]:
    """The command that trains with the options of `find-lr` and the learning rate it suggests."""
    sets = list(given["set_"] or [])
    if config.optim.name == "muon":  # whose other rates rose with this one
        factor = max_lr / float(config.optim.max_lr)
        rates = {"bias_lr": config.optim.bias_lr, "head_lr": config.optim.head_lr}
        sets += [f"optim.{name}={factor * rate:.3g}" for name, rate in rates.items()]
    values = {**given, "max_lr": f"{max_lr:.3g}"}
    command = ["cifar-resnet", "train"]
    if given["skip_bad_images"]:
        command.append("--skip-bad-images")
    for name in (
        "recipe",
        "config",
        "init",
        "data",
        "data_dir",
        "limit_train",
        "device",
        "seed",
        "max_lr",
    ):
        if values[name] is not None:
            command += [f"--{name.replace('_', '-')}", str(values[name])]
    return command + [part for setting in sets for part in ("--set", setting)]
