"""Imports run one way: a file imports from floors below its own, or from its own room."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "cifar_cli"
FLOORS = {
    "errors": 0,
    "limits": 0,
    "stops": 0,
    "text": 0,
    "config": 1,
    "locking": 1,
    "storage": 1,
    "rng": 1,
    "kernels": 2,
    "rundir": 2,
    "data": 3,
    "models": 3,
    "training": 4,
    "analysis": 5,
    "doctor": 5,
    "experiments": 5,
    "output": 6,
    "serving": 6,
    "cli": 7,
}
FILES = sorted(PACKAGE.rglob("*.py"))
ENGINE = {"kernels", "data", "models", "training", "analysis", "doctor", "experiments"}
LIGHT = {"errors", "text", "config", "locking", "storage", "rundir"}
HEAVY = {"torch", "torchvision", "numpy", "matplotlib", "albumentations", "torch_lr_finder"}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> list[str]:
    """Every module that a file imports, inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.append(node.module or "")
            if node.module == "cifar_cli":
                found += [f"cifar_cli.{a.name}" for a in node.names if a.name in FLOORS]
    return found


def own_room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_import_runs_up_or_sideways(path: Path) -> None:
    room = own_room(path)
    if room in ("__init__", "__main__"):
        return  # the front door, which opens every room on demand
    for module in imports(path):
        target = room_of(module) if module.startswith("cifar_cli") else ""
        if target and target != room:
            assert FLOORS[target] < FLOORS[room], f"{path.name} imports {module}"


def test_every_file_stands_on_a_floor() -> None:
    rooms = {own_room(path) for path in FILES} - {"__init__", "__main__"}
    assert rooms == set(FLOORS)


@pytest.mark.parametrize("path", [p for p in FILES if own_room(p) in LIGHT], ids=lambda p: p.name)
def test_the_lower_floors_know_nothing_of_torch(path: Path) -> None:
    assert not HEAVY & {module.split(".")[0] for module in imports(path)}


@pytest.mark.parametrize(
    "path",
    [
        p
        for p in FILES
        if own_room(p)
        in ("kernels", "data", "models", "training", "analysis", "doctor", "experiments")
    ],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_the_engine_neither_prints_nor_draws(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {function.id for function in calls if isinstance(function, ast.Name)}
    assert "print" not in called
    assert not {"typer", "rich", "matplotlib"} & {m.split(".")[0] for m in imports(path)}


COMMANDS = r"""
import sys
from cifar_cli.cli.app import run
commands = ["list"], ["list", "--json"], ["show", "demo"], \
    ["copy", "demo", "a"], ["explain", "model"]
codes = [run(["recipes", *command]) for command in commands]
codes += [run(["runs", *command]) for command in (["list"], ["prune"])]
sys.exit(f"{codes} {HEAVY & set(sys.modules)}" if any(codes) or HEAVY & set(sys.modules) else 0)
"""


def test_recipes_and_runs_are_listed_and_shown_without_torch(tmp_path: Path) -> None:
    program = f"HEAVY = {HEAVY!r}{COMMANDS}"
    path = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_no_file_is_longer_than_it_can_be_read() -> None:
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path
