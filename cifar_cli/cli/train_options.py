"""Options of `train` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cifar_cli.cli.options import of_training, option_maker

of_run = option_maker("Run")

Epochs = Annotated[int | None, of_training("--epochs N", "Number of epochs.")]
BatchSize = Annotated[int | None, of_training("--batch-size N", "Batch size.")]
MaxLr = Annotated[
    str | None,
    of_training(
        "--max-lr X|auto",
        "Peak learning rate. auto (Adam): run the LR range test first and take its suggestion.",
    ),
]
DivFactor = Annotated[
    float | None,
    of_training("--div-factor X", "First learning rate = max-lr / X (schedule one_cycle)."),
]
FinalDivFactor = Annotated[
    float | None,
    of_training(
        "--final-div-factor X", "Last learning rate = first learning rate / X (schedule one_cycle)."
    ),
]
PctStart = Annotated[
    float | None,
    of_training(
        "--pct-start X",
        "Fraction of all steps in which the learning rate rises (schedule one_cycle).",
    ),
]
WeightDecay = Annotated[
    float | None,
    of_training(
        "--weight-decay X", "L2 penalty of Adam; with Muon, decay of biases and the last layer."
    ),
]
Dropout = Annotated[
    float | None, of_training("--dropout X", "Dropout probability in all layers of custom_resnet.")
]
RunDirectory = Annotated[
    Path | None, of_run("--run-dir DIR", "The run directory. Default: runs/ and the date and time.")
]
RunName = Annotated[str | None, of_run("--name NAME", "The run's name under runs/.")]
Resume = Annotated[
    bool,
    of_run(
        "--resume",
        "Resume the run in --run-dir or --name, or the newest run. Start a new run if there "
        "is none.",
    ),
]
AllowChanges = Annotated[
    bool,
    of_run(
        "--allow-changes",
        "Let --resume use other settings or images than before. Refused if validation images "
        "could have been trained on.",
    ),
]
Strict = Annotated[
    bool,
    of_run("--strict", "Exit with code 5 if there was a warning about the training or its data."),
]
Track = Annotated[
    list[str] | None,
    of_run(
        "--track tensorboard",
        "Also record losses, accuracies and learning rates for TensorBoard, in the run's "
        "tensorboard/.",
    ),
]
