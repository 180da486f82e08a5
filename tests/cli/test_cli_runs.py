"""`runs list | show | prune`, the live bar of training, and what a shell completes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import shellingham
from conftest import TINY_FLAGS, Answer, tiny_config, tree

from cifar_cli import train
from cifar_cli.cli import completion
from cifar_cli.config import load_config, recipe_names
from cifar_cli.output.progress import TrainDisplay
from cifar_cli.rundir import RunDir
from cifar_cli.rundir.listing import _recipe_key, facts_of
from cifar_cli.training.observer import Running

Cli = Callable[..., Answer]
HEADER = "epoch,train_loss,train_accuracy,val_loss,val_accuracy,lr,seconds,train_seconds\n"


def copied(trained: Path, name: str, accuracy: float, folder: Path = Path("runs")) -> Path:
    """A copy of a run under `runs/`, with another accuracy."""
    target = folder / name
    shutil.copytree(trained, target)
    text = HEADER + f"1,2.0,0.5,2.0,{accuracy},0.01,9.0,8.0\n"
    (target / "metrics.csv").write_text(text)
    return target


@pytest.fixture
def three(trained: Path, in_tmp: Path) -> list[Path]:
    """Three runs of one recipe, a is the best; and a folder that is not a run."""
    runs = [copied(trained, name, share) for name, share in (("b", 0.5), ("a", 0.75), ("c", 0.25))]
    (in_tmp / "runs/mine").mkdir()
    (in_tmp / "runs/mine/config.yaml").write_text("seed: 1\n")
    return runs


def test_runs_are_listed_in_each_order(cli: Cli, three: list[Path]) -> None:
    for sort, names in (("name", "abc"), ("accuracy", "abc"), ("date", "cab")):
        for number, path in enumerate(three):
            os.utime(path / "config.yaml", (number, number))
        rows = cli("runs", "list", "--sort", sort, "--json").json["runs"]
        assert [row["name"] for row in rows] == list(names)
    assert rows[0]["val_accuracy"] == 0.25
    assert {row["state"] for row in rows} == {"completed"}
    shown = cli("runs", "list").out
    assert "75.00" in shown
    assert "3 runs under runs/." in shown


def test_one_run_is_shown(cli: Cli, three: list[Path]) -> None:
    (row,) = cli("runs", "show", "a", "--json").json["runs"]
    assert (row["path"], row["epochs_completed"], row["data"]) == ("runs/a", 1, "shapes")
    assert "75.00%" in cli("runs", "show", "a").out
    assert cli("runs", "show", "nothing").code == 4


def test_pruning_says_what_would_go_and_removes_nothing(cli: Cli, three: list[Path]) -> None:
    before = tree(Path.cwd())
    report = cli("runs", "prune", "--json").json
    assert {run["name"] for run in report["runs"]} == {"b", "c"}
    assert report["kept"] == [{"path": "runs/a", "reason": "the best of its recipe"}]
    assert report["removed"] is False
    assert "Would remove runs/b" in cli("runs", "prune").out
    assert tree(Path.cwd()) == before


def test_pruning_keeps_the_best_the_running_and_what_is_not_a_run(
    cli: Cli, three: list[Path], trained: Path, in_tmp: Path
) -> None:
    (in_tmp / "runs/c/notes.txt").write_text("mine")
    copied(trained, "elsewhere", 0.1, in_tmp)
    (in_tmp / "runs/link").symlink_to(in_tmp / "elsewhere")
    copied(trained, "other", 0.1)
    config = in_tmp / "runs/other/config.yaml"
    config.write_text(config.read_text().replace("epochs: 3", "epochs: 4"))
    with RunDir(copied(trained, "busy", 0.1)).locked():
        answer = cli("runs", "prune", "--yes")
    assert answer.code == 0, answer.err
    assert "Removed 1 run, kept 5." in answer.out
    left = {path.name for path in (in_tmp / "runs").iterdir()}
    assert left == {"a", "busy", "c", "link", "mine", "other"}
    assert (in_tmp / "elsewhere/metrics.csv").is_file()


def test_damaged_runs_are_listed_and_never_pruned(cli: Cli, three: list[Path]) -> None:
    for name in ("config.yaml", "metrics.csv", "status.json"):
        (three[2] / name).write_bytes(b"\0\xff{")
    rows = {row["name"]: row for row in cli("runs", "list", "--json").json["runs"]}
    assert rows["c"]["val_accuracy"] is None
    assert {run["name"] for run in cli("runs", "prune", "--json").json["runs"]} == {"b"}
    assert cli("runs", "list").code == 0


def test_a_killed_run_is_not_shown_as_running(three: list[Path]) -> None:
    RunDir(three[0]).write_status("running")
    assert facts_of(RunDir(three[0])).state == "interrupted"


def test_built_in_recipes_are_told_apart() -> None:
    trees = [load_config(name, env={}).model_dump(mode="json") for name in recipe_names()]
    assert len({_recipe_key(tree) for tree in trees}) == len(trees)
    other = load_config("demo", env={}, settings={"seed": 9, "optim.max_lr": 0.1})
    assert _recipe_key(other.model_dump(mode="json")) in {_recipe_key(tree) for tree in trees}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train --recipe fast9", ["fast90", "fast92", "fast94", "fast96"]),
        ("recipes show de", ["demo"]),
        ("evaluate ", ["mine"]),
        ("evaluate --checkpoint ", ["last", "best", "runs/mine/checkpoints/last.pt"]),
    ],
)
def test_a_shell_completes_names_without_torch(
    in_tmp: Path, words: str, expected: list[str]
) -> None:
    run = in_tmp / "runs/mine"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    (run / "checkpoints/last.pt").touch()
    program = (
        "import sys; from cifar_cli.cli.app import run; code = run([]); "
        "sys.exit(code if 'torch' not in sys.modules else 'torch')"
    )
    variables = {
        "_CIFAR_RESNET_COMPLETE": "complete_bash",
        "COMP_WORDS": f"cifar-resnet {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == expected


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_script_of_a_named_shell_is_shown(cli: Cli, shell: str) -> None:
    answer = cli("--show-completion", shell)
    assert answer.code == 0, answer.err
    assert "_CIFAR_RESNET_COMPLETE" in answer.out
    assert cli(f"--show-completion={shell}").out == answer.out


def test_a_completion_is_installed(cli: Cli, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(in_tmp))
    answer = cli("--install-completion", "bash")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("bash completion installed in ")
    assert ".bash_completions/cifar-resnet.sh" in (in_tmp / ".bashrc").read_text()
    assert "complete -o default" in (in_tmp / ".bash_completions/cifar-resnet.sh").read_text()


# Started by the shell itself: an `exit` after it, or the shell would become the program.
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_shell_that_starts_the_program_is_taken(in_tmp: Path, shell: str) -> None:
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"There is no {shell} here.")
    line = f"{sys.executable} -m cifar_cli --show-completion; exit $?"
    done = subprocess.run(
        [program, "-c", line], env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if shell == "bash":
        assert (done.returncode, done.stderr) == (0, "")
        assert "complete -o default" in done.stdout
    else:
        assert done.returncode == 2
        assert done.stderr.startswith("Error: There is no completion for the shell sh. Name one")


@pytest.mark.parametrize("found", [shellingham.ShellDetectionFailure(), ("tcsh", "/bin/tcsh")])
@pytest.mark.parametrize("option", completion.OPTIONS)
def test_a_shell_that_is_not_known_must_be_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, option: str, found: object
) -> None:
    def detect() -> object:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(shellingham, "detect_shell", detect)
    answer = cli(option)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.endswith(f"Name one after {option}: bash, zsh, fish, powershell, pwsh.\n")
    assert len(answer.err.splitlines()) == 1
    assert cli(option, "tcsh").code == 2


class Display(TrainDisplay):
    """Keeps the figures of each step."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments, quiet=True)  # type: ignore[arg-type]
        self.seen: list[Running] = []

    def stepped(self, epoch: int, step: int) -> None:
        super().stepped(epoch, step)
        assert self.running
        self.seen.append(self.running())


def test_the_bar_shows_loss_and_accuracy_of_the_running_epoch(in_tmp: Path) -> None:
    config = tiny_config()
    display = Display(config)
    history = train(config, "r", observer=display).history
    last = len(display.seen) // 2 - 1
    assert display.seen[last].correct / 100 == pytest.approx(history[0].train_accuracy)
    assert display.seen[0].loss > 0
    assert display.last == f"val acc {history[1].val_accuracy:.1%}"


def test_training_names_a_run_that_is_listed(cli: Cli) -> None:
    assert cli("train", *TINY_FLAGS, "--quiet", "--name", "x").code == 0
    (row,) = cli("runs", "list", "--json").json["runs"]
    assert (row["name"], row["state"], row["epochs_completed"]) == ("x", "completed", 2)
