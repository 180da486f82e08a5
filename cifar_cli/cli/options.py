"""Options that several commands share, and the one way from them to a `Config`."""

from __future__ import annotations

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


def resolve(
    recipe: str | Path | dict[str, Any] = "baseline",
    config: Path | None = None,
    overrides: list[str] | None = None,
    data: str | None = None,
    use_environment: bool = True,
    **settings: Any,
) -> Config:
    """Build the configuration from a command's options; `a__b=1` stands for `a.b`."""
    from cifar_cli.config import load_config

    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return load_config(
        recipe,
        config_file=config,
        overrides=overrides or (),
        settings=dotted,
        data=data,
        env=None if use_environment else {},
    )
