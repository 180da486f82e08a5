"""Options that several commands share, and the one table from options to settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cifar_cli.cli import completion

if TYPE_CHECKING:
    from cifar_cli.config import Config
    from cifar_cli.config.loading import Chosen

TRAINING, IMAGES, CONFIGURATION, OUTPUT = "Training", "Images", "Configuration", "Output"


def option_maker(panel: str) -> Callable[..., Any]:
    """A function from `--name METAVAR` and a text to an option, under a heading of the help."""

    def make(declaration: str, text: str, **more: Any) -> Any:
        name, _, metavar = declaration.partition(" ")
        return typer.Option(name, metavar=metavar or None, help=text, rich_help_panel=panel, **more)

    return make


of_training, of_images, of_configuration, of_output = map(
    option_maker, (TRAINING, IMAGES, CONFIGURATION, OUTPUT)
)

Data = Annotated[
    str | None,
    of_images(
        "--data NAME|PATH",
        "cifar10, shapes (built in, needs no network), a folder with train/ and test/ class "
        "folders, or the original archive or its folder. Default: CIFAR_RESNET_DATA, else "
        "what the recipe names, else cifar10.",
    ),
]
DataDir = Annotated[
    Path | None,
    of_images(
        "--data-dir DIR",
        "Folder for downloads and caches. Default: CIFAR_RESNET_HOME, else the platform's "
        "cache folder.",
    ),
]
RunData = Annotated[
    str | None,
    of_images(
        "--data NAME|PATH",
        "Other images of the same classes. Default: those that the run was trained with.",
    ),
]
LimitTrain = Annotated[
    int | None,
    of_images("--limit-train N", "Train on a random, class-balanced subset of N images."),
]
LimitVal = Annotated[
    int | None,
    of_images("--limit-val N", "Validate on a random, class-balanced subset of N images."),
]
SkipBadImages = Annotated[
    bool,
    of_images(
        "--skip-bad-images",
        "Skip unreadable image files in class folders; train lists them in the run's "
        "skipped_images.csv.",
    ),
]


def _recipe(default: str) -> Any:
    return of_configuration(
        "--recipe NAME|FILE",
        "A built-in recipe (see: cifar-resnet recipes list) or a YAML file. Default: baseline; for "
        f"pictures of your own, own{default}.",
        autocompletion=completion.recipes,
    )


Recipe = Annotated[str | None, _recipe("")]
TrainRecipe = Annotated[str | None, _recipe("; with --resume, the run's own settings")]
ConfigFile = Annotated[
    Path | None,
    of_configuration("--config FILE", "YAML file with settings that override the recipe."),
]
Set = Annotated[
    list[str] | None,
    of_configuration(
        "--set KEY=VALUE", "Set one setting by its dotted path, such as model.width=32. Repeatable."
    ),
]
Device = Annotated[
    str | None,
    of_configuration("--device auto|cpu|cuda|mps", "Device to compute on. Default: auto."),
]
Seed = Annotated[int | None, of_configuration("--seed N", "Random seed. Default: 1.")]
Json = Annotated[bool, of_output("--json", "Print one JSON document on stdout.")]
Quiet = Annotated[bool, of_output("--quiet", "Print no progress and no messages.")]
Out = Annotated[Path | None, of_output("--out DIR", "Folder for the files.")]
Format = Annotated[
    Literal["png", "svg", "pdf"],
    typer.Option(
        "--format", metavar="png|svg|pdf", help="Format of the figures.", rich_help_panel=OUTPUT
    ),
]
Run = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="A run directory, or the name of one under runs/. Default: the newest run.",
        autocompletion=completion.runs,
        show_default=False,
    ),
]


ValFraction = Annotated[
    float | None,
    of_images(
        "--val-fraction X",
        "Hold out this fraction of the training images for validation. The test split is not used.",
    ),
]

Init = Annotated[
    str | None,
    of_training(
        "--init RUN|FILE",
        "Start from the weights of a trained network: a run (its best epoch), a checkpoint, or a "
        "safetensors file.",
        autocompletion=completion.runs,
    ),
]

KEYS = {
    "init": ("train.init",),
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
        recipe: Used instead of the one that was given.
        use_environment: Whether environment variables count.
    """
    return choose(given, recipe, use_environment=use_environment)[0]


def choose(
    given: Mapping[str, Any],
    recipe: str | Path | dict[str, Any] | None = None,
    *,
    use_environment: bool = True,
) -> tuple[Config, list[str]]:
    """As `resolve`, and what to say of the recipe once the images have been read."""
    from cifar_cli.training.choosing import choose_config

    settings = {
        key: _number_or_auto(value) if name == "max_lr" else value
        for name, value in given.items()
        if value is not None and value is not False
        for key in KEYS.get(name, ())
    }
    recipe = recipe or given.get("recipe")
    chosen = choose_config(
        recipe,
        config_file=given.get("config"),
        overrides=given.get("set_") or (),
        settings=settings,
        env=None if use_environment else {},
        # A run that is resumed has it all, and its weights are its own.
        **({} if use_environment else {"read_pretrained": None}),
    )
    return chosen.config, [_choice_note(chosen, bool(recipe))] if chosen.facts else []


def _choice_note(chosen: Chosen, is_named: bool) -> str:
    """Which recipe was taken, why, and what it was fitted to."""
    from cifar_cli.output.console import counted

    facts, config = chosen.facts, chosen.config
    assert facts
    if chosen.why_not_own:
        return (
            f"Recipe {chosen.recipe}, as these settings do not go with own, the recipe for "
            f"pictures of your own. {chosen.why_not_own.removeprefix('Wrong settings: ')}"
        )
    why = "" if is_named else ", since the pictures are your own (--recipe names another)"
    size = f" (the shorter side of half of them is at most {facts.side})" if facts.side else ""
    images = counted(facts.images, "training image")
    return (
        f"Recipe {chosen.recipe}{why}. For {images} of {facts.classes:,} "
        f"classes{size}: image size {config.eval_size}, batch size {config.train.batch_size}, "
        f"{counted(config.train.epochs, 'epoch')}."
    )


def _number_or_auto(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # the configuration knows `auto`, and refuses everything else
