"""`cifar-resnet train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from cifar_cli.cli import options
from cifar_cli.errors import ConfigError

RUN = "Run"
TRAINING = "Training"


def train(
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of epochs.", rich_help_panel=TRAINING),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Batch size.", rich_help_panel=TRAINING)
    ] = None,
    max_lr: Annotated[
        str | None,
        typer.Option(
            metavar="X|auto",
            help="Peak learning rate. auto (Adam): run the LR range test first and take its "
            "suggestion.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    div_factor: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="First learning rate = max-lr / X (schedule one_cycle).",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    final_div_factor: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Last learning rate = first learning rate / X (schedule one_cycle).",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    pct_start: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Fraction of all steps in which the learning rate rises (schedule one_cycle).",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="L2 penalty of Adam; with Muon, decay of biases and the last layer.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Dropout probability in all layers of custom_resnet.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Hold out this fraction of the training images for validation. The test split "
            "is not used.",
            rich_help_panel=options.IMAGES,
        ),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The run directory. Default: runs/ and the date and time.",
            rich_help_panel=RUN,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The run's name under runs/.", rich_help_panel=RUN),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume the run in --run-dir or --name, or the newest run. Start a new run if "
            "there is none.",
            rich_help_panel=RUN,
        ),
    ] = False,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes",
            help="Let --resume use other settings or images than before. Refused if validation "
            "images could have been trained on.",
            rich_help_panel=RUN,
        ),
    ] = False,
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
    if run_dir is not None and name is not None:
        raise ConfigError("--run-dir and --name both say where the run lies: give one of them.")
    if resume and run_dir is None and name is None:
        run_dir = _newest()
    if allow_changes and not resume:
        raise ConfigError("--allow-changes: it only means something with --resume.")
    own = _own_settings(run_dir, name) if resume and recipe is None else None
    settings = options.resolve(
        own or recipe or "baseline",
        config,
        set_,
        data,
        data__dir=data_dir,
        data__limit_train=limit_train,
        data__limit_val=limit_val,
        data__skip_bad_images=skip_bad_images or None,
        data__val_fraction=val_fraction,
        device=device,
        seed=seed,
        train__epochs=epochs,
        train__batch_size=batch_size,
        optim__max_lr=_number_or_auto(max_lr),
        optim__weight_decay=weight_decay,
        schedule__div_factor=div_factor,
        schedule__final_div_factor=final_div_factor,
        schedule__pct_start=pct_start,
        model__dropout=dropout,
        model__residual_dropout=dropout,
        use_environment=own is None,
    )

    from cifar_cli.output.console import (
        TrainDisplay,
        counted,
        duration,
        print_json,
        results,
        styled,
    )
    from cifar_cli.output.tables import epoch_table
    from cifar_cli.rundir import SCHEMA_VERSION
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
    if json:
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "run_dir": str(result.run_dir),
                "epochs_completed": result.epochs_completed,
                "val_accuracy": result.val_accuracy,
                "val_loss": result.val_loss,
                "best_val_accuracy": result.best_val_accuracy,
                "train_seconds": result.train_seconds,
                "seconds": result.seconds,
            }
        )
        return
    console = results()
    console.print(epoch_table(result.history))
    console.print(
        "Validation accuracy",
        styled(f"{result.val_accuracy:.2%}"),
        f"after {counted(result.epochs_completed, 'epoch')} in {duration(result.seconds)}.",
    )
    console.print(f"Run directory: {result.run_dir}", soft_wrap=True)


def _number_or_auto(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text  # the configuration knows `auto`, and refuses everything else


def _own_settings(run_dir: Path | None, name: str | None) -> dict[str, Any] | None:
    """The settings of the run that is to be resumed: its checkpoint's, else its config.yaml.

    All but its data folder: the run may be from elsewhere, and caches are written there.
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
    return own


def _newest() -> Path | None:
    from cifar_cli.errors import CheckpointError
    from cifar_cli.rundir import find_run

    try:
        return find_run().path
    except CheckpointError:
        return None
