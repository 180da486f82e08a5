"""Options that several commands share, and the one way from them to a `Config`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cifar_cli.config import Config

IMAGES, CONFIGURATION, OUTPUT = "Images", "Configuration", "Output"

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME|PATH",
        help="cifar10, shapes (built in, needs no network), a folder with train/ and test/ class "
        "folders, or the original archive or its folder. Default: CIFAR_RESNET_DATA, else what "
        "the recipe names, else cifar10.",
        rich_help_panel=IMAGES,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Folder for downloads and caches. Default: CIFAR_RESNET_HOME, else the platform's "
        "cache folder.",
        rich_help_panel=IMAGES,
    ),
]
RunData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME|PATH",
        help="Other images of the same classes. Default: those that the run was trained with.",
        rich_help_panel=IMAGES,
    ),
]
LimitTrain = Annotated[
    int | None,
    typer.Option(
        "--limit-train",
        metavar="N",
        help="Train on a random, class-balanced subset of N images.",
        rich_help_panel=IMAGES,
    ),
]
LimitVal = Annotated[
    int | None,
    typer.Option(
        "--limit-val",
        metavar="N",
        help="Validate on a random, class-balanced subset of N images.",
        rich_help_panel=IMAGES,
    ),
]
SkipBadImages = Annotated[
    bool,
    typer.Option(
        "--skip-bad-images",
        help="Skip unreadable image files in class folders; train lists them in the run's "
        "skipped_images.csv.",
        rich_help_panel=IMAGES,
    ),
]
Recipe = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        help="A built-in recipe (see: cifar-resnet recipes list) or a YAML file.",
        rich_help_panel=CONFIGURATION,
    ),
]
TrainRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        help="A built-in recipe (see: cifar-resnet recipes list) or a YAML file. Default: "
        "baseline, or with --resume the run's own settings.",
        rich_help_panel=CONFIGURATION,
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="YAML file with settings that override the recipe.",
        rich_help_panel=CONFIGURATION,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set one setting by its dotted path, such as model.width=32. Repeatable.",
        rich_help_panel=CONFIGURATION,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|mps",
        help="Device to compute on. Default: auto.",
        rich_help_panel=CONFIGURATION,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        help="Random seed. Default: 1.",
        rich_help_panel=CONFIGURATION,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on stdout.", rich_help_panel=OUTPUT),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="Print no progress and no messages.", rich_help_panel=OUTPUT),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder for the files.", rich_help_panel=OUTPUT),
]
Run = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="A run directory, or the name of one under runs/. Default: the newest run.",
        show_default=False,
    ),
]


ValFraction = Annotated[
    float | None,
    typer.Option(
        "--val-fraction",
        metavar="X",
        help="Hold out this fraction of the training images for validation. The test split "
        "is not used.",
        rich_help_panel=IMAGES,
    ),
]

KEYS = {
    "epochs": ("train.epochs",),
    "batch_size": ("train.batch_size",),
    "max_lr": ("optim.max_lr",),
    "weight_decay": ("optim.weight_decay",),
    "div_factor": ("schedule.div_factor",),
    "final_div_factor": ("schedule.final_div_factor",),
    "pct_start": ("schedule.pct_start",),
    "dropout": ("model.dropout", "model.residual_dropout"),
    "data": ("data.source",),
    "data_dir": ("data.dir",),
    "limit_train": ("data.limit_train",),
    "limit_val": ("data.limit_val",),
    "val_fraction": ("data.val_fraction",),
    "skip_bad_images": ("data.skip_bad_images",),
    "device": ("device",),
    "seed": ("seed",),
}
"""Settings by the parameter of a command that sets them."""


def resolve(
    given: Mapping[str, Any],
    recipe: str | Path | dict[str, Any] | None = None,
    *,
    use_environment: bool = True,
) -> Config:
    """Build the configuration from a command's parameters.

    Args:
        given: Parameters by name: those in `KEYS`, `recipe`, `config` and `set_`. None and False
            mean that an option was not given.
        recipe: In the place of the one that was given.
        use_environment: Whether environment variables count.
    """
    from cifar_cli.config import load_config

    settings = {
        key: _number_or_auto(value) if name == "max_lr" else value
        for name, value in given.items()
        if value is not None and value is not False
        for key in KEYS.get(name, ())
    }
    return load_config(
        recipe or given.get("recipe") or "baseline",
        config_file=given.get("config"),
        overrides=given.get("set_") or (),
        settings=settings,
        env=None if use_environment else {},
    )


def _number_or_auto(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # the configuration knows `auto`, and refuses everything else
