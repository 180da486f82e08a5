"""`cifar-resnet train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cifar_cli.cli import options, train_options
from cifar_cli.errors import ConfigError


def train(
    epochs: train_options.Epochs = None,
    batch_size: train_options.BatchSize = None,
    max_lr: train_options.MaxLr = None,
    div_factor: train_options.DivFactor = None,
    final_div_factor: train_options.FinalDivFactor = None,
    pct_start: train_options.PctStart = None,
    weight_decay: train_options.WeightDecay = None,
    dropout: train_options.Dropout = None,
    val_fraction: options.ValFraction = None,
    run_dir: train_options.RunDirectory = None,
    name: train_options.RunName = None,
    resume: train_options.Resume = False,
    allow_changes: train_options.AllowChanges = False,
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
    own = _own_settings(run_dir, name) if resume and recipe is None else None
    settings = options.resolve(given, own or recipe or "baseline", use_environment=own is None)

    from rich.text import Text

    from cifar_cli.output.console import counted, duration, results, show, styled
    from cifar_cli.output.documents import training_document
    from cifar_cli.output.progress import TrainDisplay
    from cifar_cli.output.tables import epoch_table
    from cifar_cli.training.run import train as run_training

    with TrainDisplay(settings, quiet=quiet) as display:
        result = run_training(
            settings,
            run_dir,
            name=name,
            resume=resume,
            allow_changes=allow_changes,
            observer=display,
        )
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


def _own_settings(run_dir: Path | None, name: str | None) -> dict[str, Any] | None:
    """The settings of the run that is to be resumed: its checkpoint's, else its config.yaml.

    All but its data folder and torch.compile: the run may be from elsewhere, and caches are written
    to that folder, and code is compiled and kept only if this command line asks for it.
    """
    from cifar_cli.config.checking import complete_tree
    from cifar_cli.rundir import RunDir, run_path
    from cifar_cli.training.checkpoint import load_newest

    if run_dir is None and name is None:
        return None
    run = RunDir(run_dir if run_dir is not None else run_path(str(name)))
    if not run.is_run:  # somebody else's config.yaml, perhaps
        return None
    checkpoint = load_newest(run.last)
    if checkpoint is None and not os.path.lexists(run.config):
        return None
    own = complete_tree(checkpoint.config if checkpoint else run.read_config())
    own["data"]["dir"] = None
    own["runtime"]["compile"] = False
    return own


def _newest() -> Path | None:
    from cifar_cli.errors import CheckpointError
    from cifar_cli.rundir import find_run

    try:
        return find_run().path
    except CheckpointError:
        return None
