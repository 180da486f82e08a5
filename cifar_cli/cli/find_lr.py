"""`cifar-resnet find-lr`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cifar_cli.cli import options


def find_lr(
    start_lr: Annotated[float, typer.Option(metavar="X", help="First learning rate.")] = 1e-7,
    end_lr: Annotated[float, typer.Option(metavar="X", help="Last learning rate.")] = 10.0,
    num_iter: Annotated[int, typer.Option(metavar="N", help="Number of steps.")] = 200,
    step_mode: Annotated[
        Literal["exp", "linear"],
        typer.Option(metavar="exp|linear", help="Space the steps logarithmically or linearly."),
    ] = "exp",
    data: options.Data = None,
    data_dir: options.DataDir = None,
    limit_train: options.LimitTrain = None,
    skip_bad_images: options.SkipBadImages = False,
    recipe: options.Recipe = "baseline",
    config: options.ConfigFile = None,
    set_: options.Set = None,
    device: options.Device = None,
    seed: options.Seed = None,
    out: options.Out = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run the LR range test: raise the learning rate step by step, and suggest a peak rate.

    Writes lr_range.png, lr_range.csv and lr_range.json. Default folder: lr_range/.
    """
    settings = options.resolve(locals())
    folder = out or Path("lr_range")
    import shlex

    from cifar_cli.data.opening import open_images
    from cifar_cli.output.console import Bars, print_files, print_json, results
    from cifar_cli.output.figures.curves import lr_range
    from cifar_cli.rundir import SCHEMA_VERSION
    from cifar_cli.storage import write_csv, write_json
    from cifar_cli.training.lr_search import check_range, lr_range_test
    from cifar_cli.training.memory import fewer_images, memory_errors, smaller_batch
    from cifar_cli.training.runtime import Runtime

    check_range(start_lr, end_lr, num_iter)
    runtime = Runtime.start(settings)
    with Bars(quiet) as bars, memory_errors(*smaller_batch(settings)):
        with memory_errors(*fewer_images(settings)):
            settings, dataset, splits = open_images(settings, bars.update)
        bars.say(dataset.notes)
        curve = lr_range_test(
            settings,
            splits,
            runtime,
            start_lr=start_lr,
            end_lr=end_lr,
            num_iter=num_iter,
            step_mode=step_mode,
            on_step=bars.update,
        )
    picture = lr_range(
        folder / "lr_range.png", curve.lrs, curve.losses, curve.suggestions, step_mode
    )
    points = [{"lr": lr, "loss": x} for lr, x in zip(curve.lrs, curve.losses, strict=True)]
    write_csv(folder / "lr_range.csv", ["lr", "loss"], points)
    files = [picture, folder / "lr_range.csv", folder / "lr_range.json"]
    report = {
        "schema_version": SCHEMA_VERSION,
        "suggestion": curve.suggestion,
        "suggestions": curve.suggestions,
        "num_points": len(curve.lrs),
        "stopped_early": curve.stopped_early,
        "files": [str(file) for file in files],
    }
    write_json(files[-1], report)
    if json:
        print_json(report)
        return
    how = "stopped early because the loss diverged" if curve.stopped_early else "the whole range"
    console = results()
    console.print(f"{len(curve.lrs)} steps, {how}. Suggested learning rates:")
    for name, lr in curve.suggestions.items():
        chosen = "  ← the suggestion" if lr == curve.suggestion and name == "steepest" else ""
        console.print(f"  {name:<11} {lr:.3e}{chosen}")
    sets = list(set_ or [])
    if settings.optim.name == "muon":  # whose other rates rose with this one
        factor = curve.suggestion / float(settings.optim.max_lr)
        rates = {"bias_lr": settings.optim.bias_lr, "head_lr": settings.optim.head_lr}
        sets += [f"optim.{name}={factor * rate:.3g}" for name, rate in rates.items()]
    given = {
        "--recipe": recipe if recipe != "baseline" else None,
        "--config": config,
        "--data": data,
        "--data-dir": data_dir,
        "--limit-train": limit_train,
        "--device": device,
        "--seed": seed,
        "--max-lr": f"{curve.suggestion:.3g}",
    }
    command = ["cifar-resnet", "train", *(["--skip-bad-images"] if skip_bad_images else [])]
    command += [str(part) for pair in given.items() if pair[1] is not None for part in pair]
    command += [part for setting in sets for part in ("--set", setting)]
    console.print(f"Train with it: {shlex.join(command)}", soft_wrap=True)
    print_files(files)
