"""What commands print on a terminal of 80 columns: nothing is cut off or broken inside a word."""

from __future__ import annotations

import os
import re
import shlex
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from conftest import QUICK_FLAGS, TINY_FLAGS, Answer, tree
from forked import ForkedPython

from cifar_cli.config import recipe_names, recipe_text
from cifar_cli.experiments.bench import BenchRun
from cifar_cli.output.console import Screen
from cifar_cli.output.documents import bench_document
from cifar_cli.output.tables import bench_table, epoch_table
from cifar_cli.rundir import EpochRecord

Cli = Callable[..., Answer]
OnTerminal = Callable[..., str]
WIDTH = 80
pytestmark = pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")


@pytest.fixture
def on_terminal(forked_python: ForkedPython) -> Callable[..., str]:
    """Runs a command, and returns what it prints as `run_on_terminal` does."""
    return partial(run_on_terminal, forked_python)


def run_on_terminal(python: ForkedPython, *arguments: object) -> str:
    """What the command prints on a terminal of 80 columns, control sequences left out."""
    import fcntl
    import pty
    import termios

    try:
        ours, theirs = pty.openpty()
    except OSError as error:  # a container or chroot without /dev/pts
        pytest.skip(f"there are no terminals here: {error}")
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    command = [python.command, *map(str, arguments)]
    seen = b""
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        while chunk := read(ours):
            seen += chunk
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert process.returncode == 0, text
    return text.replace("\r\n", "\n")


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # its end, on Linux
        return b""


def lines(text: str, width: int = WIDTH) -> list[str]:
    """The lines as a reader sees them: of a bar its last state."""
    shown = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
    assert max(map(len, shown)) <= width, shown
    assert "…" not in text
    return shown


def test_a_run_and_its_evaluation_fit(on_terminal: OnTerminal, in_tmp: Path) -> None:
    trained = lines(on_terminal("train", *TINY_FLAGS, "--name", "a"))
    epochs = [line for line in trained if line.startswith("epoch ")]
    assert len(epochs) == 2
    for line in epochs:
        assert re.fullmatch(
            r"epoch \d  train \d\.\d{4} +[\d.]+%  val \d\.\d{4} +[\d.]+%  lr \S+  \S+ s", line
        )
    assert "Run directory: runs/a" in trained
    shown = lines(on_terminal("evaluate"))
    assert any(
        re.fullmatch(r"Accuracy .+% \(95% interval .+\): \d+ of 50 images", x) for x in shown
    )
    assert any(re.fullmatch(r"Loss \d\.\d{4}", line) for line in shown)
    assert "runs/a/eval/val_last_confusion.png" in shown
    shown = lines(on_terminal("misclassified"))
    assert any(line.endswith("images are misclassified.") for line in shown)
    assert "runs/a/misclassified/gallery.png" in shown


@pytest.mark.parametrize("command", ["list", "list of a pipe"])
def test_recipes_are_listed_whole(
    on_terminal: OnTerminal, cli: Cli, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    if command == "list":
        shown = lines(on_terminal("recipes", "list"))
    else:
        monkeypatch.setenv("COLUMNS", str(WIDTH))
        shown = lines(cli("recipes", "list").out)
    (row,) = (line for line in shown if "fast96" in line and "│" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["fast96", "18", "512", "128, 384, 512", "tensor", "cifar10"]
    assert any("The network of the course project" in line for line in shown)


def test_recipes_and_settings_are_shown_whole(on_terminal: OnTerminal) -> None:
    for recipe in recipe_names():
        assert recipe_text(recipe).splitlines() == lines(recipe_text(recipe))[:-1]
    shown = lines(on_terminal("recipes", "explain", "augment"))
    assert "augment.crop_ratio" in shown


@pytest.mark.parametrize("recipe", ["baseline", "fast96"])
def test_the_layer_table_and_its_totals_fit(on_terminal: OnTerminal, recipe: str) -> None:
    shown = lines(on_terminal("summary", "--recipe", recipe))
    assert any(re.fullmatch(r"Total mult-adds \(M\): [\d.]+", line) for line in shown)
    assert any(line.startswith("Performed mult-adds (M): ") for line in shown)


def test_the_lr_range_test_prints_a_command_that_a_shell_reads(
    on_terminal: OnTerminal, in_tmp: Path
) -> None:
    flags = [*QUICK_FLAGS, "--num-iter", "18", "--start-lr", "1e-5", "--end-lr", "0.1"]
    shown = lines(on_terminal("find-lr", *flags))
    (first,) = (number for number, line in enumerate(shown) if line.startswith("Train with it: "))
    last = next(n for n in range(first, len(shown)) if not shown[n].endswith("\\"))
    command = "\n".join(shown[first : last + 1]).removeprefix("Train with it: ")
    words = shlex.split(command.replace("\\\n", ""))
    assert words[:2] == ["cifar-resnet", "train"]
    assert [word for word in words if "=" in word] == [f for f in QUICK_FLAGS if "=" in f]
    assert tree(in_tmp) == [f"lr_range/lr_range.{kind}" for kind in ("csv", "json", "png")]


def test_the_checks_and_the_augmentations_fit(on_terminal: OnTerminal, in_tmp: Path) -> None:
    shown = lines(on_terminal("doctor", "--data", "shapes"))
    assert any("training step" in line for line in shown)
    shown = lines(on_terminal("preview-augs", "--data", "shapes", "--n", "4"))
    assert "preview/image_0_epoch_1.png" in shown


def test_a_bench_of_many_recipes_is_shown_in_several_tables() -> None:
    run = BenchRun("fast90", 1, 0.9012, 0.9112, 171.2, 300.1, 160.3, 1.25, 2**30, 1.5e15, ())
    runs = [
        replace(run, recipe=name, seed=seed, accuracy=run.accuracy + seed / 1000)
        for name in ("fast90", "fast92", "fast94", "fast96", "baseline", "a-recipe-of-my-own")
        for seed in (1, 2, 3)
    ]
    document = bench_document(runs, [])
    out = StringIO()
    Screen(out, WIDTH).print(bench_table(document, WIDTH))
    shown = lines(out.getvalue())
    rows = [line for line in shown if "Accuracy %" in line]
    assert len(rows) == 2
    assert "".join(rows).count("90.32 ± 0.25") == 6
    for name in document["recipes"]:
        assert out.getvalue().count(name) == 1


@pytest.mark.parametrize("width", [80, 100])
def test_long_epochs_keep_their_time_on_one_line(width: int) -> None:
    record = EpochRecord(24, 0.1234, 0.9512, 0.4321, 0.8669, 2.33e-07, 3725.0, 3700.0)
    out = StringIO()
    Screen(out, width).print(epoch_table([record], width))
    assert "2.33e-07 │ 1 h 02 min │" in out.getvalue()
    assert len(lines(out.getvalue(), width)) > 4
