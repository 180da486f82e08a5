"""`cifar-resnet train`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from cifar_cli.cli import options, train_options
from cifar_cli.errors import ConfigError, DivergedError


def train(
    epochs: train_options.Epochs = None,
    batch_size: train_options.BatchSize = None,
    max_lr: train_options.MaxLr = None,
    div_factor: train_options.DivFactor = None,
    final_div_factor: train_options.FinalDivFactor = None,
    pct_start: train_options.PctStart = None,
    weight_decay: train_options.WeightDecay = None,
    dropout: train_options.Dropout = None,
    init: options.Init = None,
    val_fraction: options.ValFraction = None,
    run_dir: train_options.RunDirectory = None,
    name: train_options.RunName = None,
    resume: train_options.Resume = False,
    allow_changes: train_options.AllowChanges = False,
    strict: train_options.Strict = False,
    track: train_options.Track = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    limit_train: options.LimitTrain = None,
    limit_val: options.LimitVal = None,
    skip_bad_images: options.SkipBadImages = False,
    recipe: options.TrainRecipe = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    device: options.Device = None,
    seed: options.Seed = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train the network, show live progress, and write a run directory.

    Settings that are not given here come from the recipe.
    """
    given = locals()
    if run_dir is not None and name is not None:
        raise ConfigError("--run-dir and --name both name the run directory. Give one of them.")
    if resume and run_dir is None and name is None:
        run_dir = _newest()
    if allow_changes and not resume:
        raise ConfigError("--allow-changes: it only means something with --resume.")
    with ExitStack() as stack:
        opened = None
        if resume:  # the run's own settings are in its checkpoint, which only torch can read
            from cifar_cli.training.opening import open_run

            opened = stack.enter_context(open_run(run_dir, name, resume))
        own = opened.own_settings() if opened and recipe is None else None
        settings, note = options.choose(given, own or recipe, use_environment=own is None)

        from rich.text import Text

        from cifar_cli.output.console import counted, duration, results, show, styled
        from cifar_cli.output.documents import training_document
        from cifar_cli.output.progress import TrainDisplay
        from cifar_cli.output.tables import epoch_table
        from cifar_cli.training.opening import open_run
        from cifar_cli.training.run import train_in
        from cifar_cli.training.tracking import Tracked, make_trackers

        trackers = make_trackers(track or ())
        opened = opened or stack.enter_context(open_run(run_dir, name))
        with TrainDisplay(settings, quiet, note) as display:
            observer = Tracked(display, trackers) if trackers else display
            result = train_in(opened, settings, allow_changes, observer)
    accuracy = Text.assemble(
        "Validation accuracy ",
        styled(f"{result.val_accuracy:.2%}"),
        f" after {counted(result.epochs_completed, 'epoch')} in {duration(result.seconds)}.",
    )
    show(
        training_document(result),
        json,
        epoch_table(result.history, results().width),
        accuracy,
        f"Run directory: {result.run_dir}",
    )
    if strict and result.warnings:
        keys = ", ".join(sign.key for sign in result.warnings)
        raise DivergedError(
            f"--strict: this training has {counted(len(result.warnings), 'warning')} ({keys}).",
            "The run is complete and saved. See the warnings above, or result.json.",
        )


def _newest() -> Path | None:
    from cifar_cli.errors import CheckpointError
    from cifar_cli.rundir import find_run

    try:
        return find_run().path
    except CheckpointError:
        return None
