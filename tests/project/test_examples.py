"""The examples, each run as its first lines say, made small by environment settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import rows, tree
from forked import ForkedPython

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {
    "CIFAR_RESNET_DATA__LIMIT_TRAIN": "30",  # whole LR range tests of 200 steps are among them
    "CIFAR_RESNET_DATA__LIMIT_VAL": "50",
    "CIFAR_RESNET_DEVICE": "cpu",
}
WIDTH = "CIFAR_RESNET_MODEL__WIDTH"


def run(*command: object, **variables: str) -> str:
    """Carry a command out with few images, and with narrow networks of the course project."""
    environment = os.environ | SMALL | {WIDTH: "2"} | variables
    done = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def before_others(python: ForkedPython) -> str:
    """A path on which the scripts find the command that starts quickly."""
    return os.pathsep.join([str(python.command.parent), os.environ["PATH"]])


def test_every_example_is_run_by_a_test() -> None:
    names = {path.name for path in EXAMPLES.iterdir()} - {"README.md"}
    source = Path(__file__).read_text()
    assert all(name in source for name in names), names


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_the_course_project_step_by_step(in_tmp: Path, forked_python: ForkedPython) -> None:
    script = EXAMPLES / "reproduce_course_project.sh"
    out = run(script, CIFAR_RESNET_DATA="shapes", PATH=before_others(forked_python))
    assert "95% interval" in out
    found = tree(in_tmp / "course-project")
    for picture in (
        "preview/samples.png",
        "preview/samples_labelled.png",
        "preview/augmentations.png",
        "lr_range/lr_range.png",
        "run/plots/learning_rate.png",
        "run/plots/loss_accuracy.png",
        "run/misclassified/gallery.png",
    ):
        assert picture in found
    assert len(rows(in_tmp / "course-project/run/metrics.csv")) == 24


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_own_images(
    in_tmp: Path, class_folders: Callable[..., Path], forked_python: ForkedPython
) -> None:
    folder = class_folders(counts=(40, 5), size=(48, 40))
    small = {WIDTH: "", f"{WIDTH}S": "[4,4,4]", "CIFAR_RESNET_TRAIN__EPOCHS": "2"}
    out = run(EXAMPLES / "own_images.sh", folder, **small, PATH=before_others(forked_python))
    assert "owl" in out
    assert "own-images/run/eval/test_last_confusion.png" in out


def test_a_recipe_of_ones_own(in_tmp: Path) -> None:
    recipe = EXAMPLES / "narrow.yaml"
    out = run(
        sys.executable, "-m", "cifar_cli", "train", "--recipe", recipe, "--epochs", 1,
        CIFAR_RESNET_DATA="shapes",
    )  # fmt: skip
    assert "Validation accuracy" in out


def test_the_public_python_api(in_tmp: Path) -> None:
    out = run(sys.executable, EXAMPLES / "python_api.py", in_tmp / "run")
    assert "epoch 2: validation accuracy" in out
    assert "of 50 right" in out
    assert "a grey image is taken for" in out
