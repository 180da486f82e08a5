"""What a user has who installed the package from a clone: its files, and no word of others."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY_FLAGS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cifar_cli"
ABSENT = re.compile(
    r"pip install[^\n]*cifar[-_]resnet|\bdoc/|README|\w\.md\b|\bmake (setup|demo|test|clean)\b"
)
"""Files of the source alone, its make, and a name that is not this project's on the index."""


def messages(path: Path) -> Iterator[str]:
    """The strings of a module, but for docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in documents:
            yield str(node.value)


def test_no_message_names_what_an_installed_user_does_not_have() -> None:
    found = {
        (path.name, text)
        for path in PACKAGE.rglob("*.py")
        for text in messages(path)
        if ABSENT.search(text)
    }
    assert found == set()
    assert ABSENT.search("Try pip install --force-reinstall cifar-resnet.")
    assert ABSENT.search("See doc/guide.md")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the package from a wheel; of the running one only its libraries."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q"]
    source = folder / "source"  # a clone, so that nothing is built where others work
    shutil.copytree(PACKAGE, source / "cifar_cli", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    subprocess.run(wheel, check=True, capture_output=True)
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True, text=True
    )
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    (file,) = folder.glob("*.whl")
    install = [*pip, f"--python={folder / 'env/bin/python'}", "install", "--no-deps", str(file)]
    subprocess.run(install, check=True, capture_output=True)
    # Only afterwards, or pip would find the running environment's copy of the package.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env"


@pytest.mark.skipif(os.name != "posix", reason="the layout of environments of POSIX")
def test_a_wheel_holds_every_file_that_is_read(environment: Path) -> None:
    (file,) = environment.parent.glob("*.whl")
    with zipfile.ZipFile(file) as wheel:
        held = set(wheel.namelist())
    source = environment.parent / "source"
    kept = {
        path.relative_to(source).as_posix()
        for path in (source / "cifar_cli").rglob("*")
        if path.is_file()
    }
    assert len(kept) > 100
    assert kept <= held


@pytest.mark.skipif(os.name != "posix", reason="the layout of environments of POSIX")
def test_the_installed_command_works_from_an_empty_folder(
    environment: Path, tmp_path: Path
) -> None:
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*command: object) -> str:
        done = subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=clean, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    command = environment / "bin/cifar-resnet"
    assert "baseline" in run(command, "recipes", "list")
    # In one process, as each imports torch.
    program = f"""
import sys, cifar_cli
from cifar_cli.cli.app import run
assert cifar_cli.__file__.startswith({str(environment)!r}), cifar_cli.__file__
for command in (["summary"], ["train", *{TINY_FLAGS!r}, "--epochs", "1", "--run-dir", "r"]):
    assert run(command) == 0
"""
    out = run(environment / "bin/python", "-c", program)
    assert "Total params: 6,573,120" in out
    assert "Run directory: r" in out
    assert (tmp_path / "r/checkpoints/last.pt").is_file()
