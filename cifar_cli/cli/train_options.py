"""Options of `train` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cifar_cli.cli.options import option

TRAINING, RUN = "Training", "Run"

Epochs = Annotated[
    int | None,
    option("--epochs", "N", TRAINING, "Number of epochs."),
]
BatchSize = Annotated[
    int | None,
    option("--batch-size", "N", TRAINING, "Batch size."),
]
MaxLr = Annotated[
    str | None,
    option(
        "--max-lr",
        "X|auto",
        TRAINING,
        "Peak learning rate. auto (Adam): run the LR range test first and take its suggestion.",
    ),
]
DivFactor = Annotated[
    float | None,
    option("--div-factor", "X", TRAINING, "First learning rate = max-lr / X (schedule one_cycle)."),
]
FinalDivFactor = Annotated[
    float | None,
    option(
        "--final-div-factor",
        "X",
        TRAINING,
        "Last learning rate = first learning rate / X (schedule one_cycle).",
    ),
]
PctStart = Annotated[
    float | None,
    option(
        "--pct-start",
        "X",
        TRAINING,
        "Fraction of all steps in which the learning rate rises (schedule one_cycle).",
    ),
]
WeightDecay = Annotated[
    float | None,
    option(
        "--weight-decay",
        "X",
        TRAINING,
        "L2 penalty of Adam; with Muon, decay of biases and the last layer.",
    ),
]
Dropout = Annotated[
    float | None,
    option("--dropout", "X", TRAINING, "Dropout probability in all layers of custom_resnet."),
]
RunDirectory = Annotated[
    Path | None,
    option("--run-dir", "DIR", RUN, "The run directory. Default: runs/ and the date and time."),
]
RunName = Annotated[
    str | None,
    option("--name", "NAME", RUN, "The run's name under runs/."),
]
Resume = Annotated[
    bool,
    option(
        "--resume",
        None,
        RUN,
        "Resume the run in --run-dir or --name, or the newest run. Start a new run if there "
        "is none.",
    ),
]
AllowChanges = Annotated[
    bool,
    option(
        "--allow-changes",
        None,
        RUN,
        "Let --resume use other settings or images than before. Refused if validation images "
        "could have been trained on.",
    ),
]
