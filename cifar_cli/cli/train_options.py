"""Options of `train` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TRAINING, RUN = "Training", "Run"

Epochs = Annotated[
    int | None,
    typer.Option("--epochs", metavar="N", help="Number of epochs.", rich_help_panel=TRAINING),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", metavar="N", help="Batch size.", rich_help_panel=TRAINING),
]
MaxLr = Annotated[
    str | None,
    typer.Option(
        "--max-lr",
        metavar="X|auto",
        help="Peak learning rate. auto (Adam): run the LR range test first and take its "
        "suggestion.",
        rich_help_panel=TRAINING,
    ),
]
DivFactor = Annotated[
    float | None,
    typer.Option(
        "--div-factor",
        metavar="X",
        help="First learning rate = max-lr / X (schedule one_cycle).",
        rich_help_panel=TRAINING,
    ),
]
FinalDivFactor = Annotated[
    float | None,
    typer.Option(
        "--final-div-factor",
        metavar="X",
        help="Last learning rate = first learning rate / X (schedule one_cycle).",
        rich_help_panel=TRAINING,
    ),
]
PctStart = Annotated[
    float | None,
    typer.Option(
        "--pct-start",
        metavar="X",
        help="Fraction of all steps in which the learning rate rises (schedule one_cycle).",
        rich_help_panel=TRAINING,
    ),
]
WeightDecay = Annotated[
    float | None,
    typer.Option(
        "--weight-decay",
        metavar="X",
        help="L2 penalty of Adam; with Muon, decay of biases and the last layer.",
        rich_help_panel=TRAINING,
    ),
]
Dropout = Annotated[
    float | None,
    typer.Option(
        "--dropout",
        metavar="X",
        help="Dropout probability in all layers of custom_resnet.",
        rich_help_panel=TRAINING,
    ),
]
RunDirectory = Annotated[
    Path | None,
    typer.Option(
        "--run-dir",
        metavar="DIR",
        help="The run directory. Default: runs/ and the date and time.",
        rich_help_panel=RUN,
    ),
]
RunName = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="The run's name under runs/.", rich_help_panel=RUN),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Resume the run in --run-dir or --name, or the newest run. Start a new run if "
        "there is none.",
        rich_help_panel=RUN,
    ),
]
AllowChanges = Annotated[
    bool,
    typer.Option(
        "--allow-changes",
        help="Let --resume use other settings or images than before. Refused if validation "
        "images could have been trained on.",
        rich_help_panel=RUN,
    ),
]
