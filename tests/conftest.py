"""Fixtures that all tests share."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import drawn_once  # noqa: F401 - for its effect
import numpy as np
import pytest
import torch
from forked import ForkedPython
from hypothesis import HealthCheck, settings
from PIL import Image
from torch import nn

from cifar_cli import train
from cifar_cli.cli.app import run
from cifar_cli.config import Config, load_config
from cifar_cli.data.types import ImageSet
from cifar_cli.kernels import library
from cifar_cli.models import build_model
from cifar_cli.training.runtime import COMPILER_CACHE, Runtime

# A CPU is tested, also where there is a GPU, for which torch has not looked yet.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# A shell starts what it puts in the background deaf to Ctrl-C, and nohup deaf to SIGHUP;
# and so would be all processes here.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
# Timing depends on the machine that runs the tests; what is tested here does not.
settings.register_profile("plain", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("plain")

# A network and a schedule small enough to train within a second.
TINY = {
    "data.source": "shapes",
    "data.limit_train": 100,
    "data.limit_val": 50,
    "augment.form": "tensor",
    "model.width": 4,
    "optim.max_lr": 0.01,
    "schedule.div_factor": 10,
    "train.epochs": 2,
    "train.batch_size": 32,
    "device": "cpu",
}
TINY_FLAGS = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
# Of an LR range test, which takes 200 steps at least.
QUICK_FLAGS = [*TINY_FLAGS, "--set", "model.width=2", "--set", "train.batch_size=4"]


def shared_native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the compiled code: one for all tests and processes, as it takes seconds to make."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "native"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def share_compiled_code(source: Path, target: Path) -> None:
    """Give compiled code a second name in another folder, as a link to a folder is refused."""
    for file in source.glob("tiles-*.so"):
        target.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (target / file.name).hardlink_to(file)


def need_compiled_code(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Load it, or skip the test; with gcc on Linux, for which it is written, there is no excuse."""
    if not library.load(shared_native(tmp_path_factory)):
        excused = sys.platform != "linux" or shutil.which("gcc") is None
        (pytest.skip if excused else pytest.fail)(str(library.status().problem))


@pytest.fixture(autouse=True)
def isolated(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Each test gets its own cache folder, none of the caller's settings, and a fixed seed."""
    for variable in [name for name in os.environ if name.startswith("CIFAR_RESNET_")]:
        monkeypatch.delenv(variable)
    monkeypatch.delenv("COLUMNS", raising=False)  # which pytest-xdist sets
    home = tmp_path_factory.mktemp("home")
    shared, own = shared_native(tmp_path_factory), home / "native"
    share_compiled_code(shared, own)
    monkeypatch.setenv("CIFAR_RESNET_HOME", str(home))
    monkeypatch.setenv(COMPILER_CACHE, "set, so that it is as before afterwards")
    monkeypatch.delenv(COMPILER_CACHE)
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    share_compiled_code(own, shared)
    torch.set_num_threads(threads)


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def on_cpu(config: Config) -> Runtime:
    """A runtime on the CPU without effects on the process."""
    return Runtime(torch.device("cpu"), config.runtime)


def tiny_config(**changes: object) -> Config:
    """A configuration that trains within a second; `a__b=1` changes `a.b`; None: the default."""
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    recipe: dict[str, Any] = {}
    for key, value in TINY.items():
        section, _, name = key.rpartition(".")
        if key not in dotted:
            (recipe.setdefault(section, {}) if section else recipe)[name] = value
    return load_config(recipe, env={}, settings=dotted)


def spoiled(*arguments: Any) -> nn.Module:
    """A network that gives NaN."""
    model = build_model(*arguments)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    return model


def random_images(count: int, size: int = 32, classes: int = 10, seed: int = 0) -> ImageSet:
    """Noise, with labels that go round the classes."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    labels = torch.arange(count) % classes
    return ImageSet(torch.from_numpy(pixels), labels, torch.arange(count))


@pytest.fixture
def class_folders(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of class folders with images of noise."""

    def make(
        classes: tuple[str, ...] = ("cat", "dog", "owl"),
        counts: tuple[int, int] = (4, 2),
        size: tuple[int, int] = (32, 32),
        splits: tuple[str, str] = ("train", "test"),
        name: str = "images",
        extension: str = "png",
    ) -> Path:
        rng = np.random.default_rng(7)
        for split, count in zip(splits, counts, strict=True):
            for label in classes:
                folder = tmp_path / name / split / label
                folder.mkdir(parents=True)
                for number in range(count):
                    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number:04}.{extension}")
        return tmp_path / name

    return make


class Answer(NamedTuple):
    """What a command gave back."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        document: dict[str, Any] = json.loads(self.out)
        assert document["schema_version"] == 1
        return document


@pytest.fixture
def cli(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs the real command line within this process, in an empty folder."""

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Answer(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def forked_python() -> Iterator[ForkedPython]:
    """A Python that starts in milliseconds."""
    with tempfile.TemporaryDirectory(prefix="py") as folder:
        server = ForkedPython(Path(folder))
        yield server
        server.close()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory, trained once; tests must not change it."""
    return train(tiny_config(train__epochs=3), tmp_path_factory.mktemp("trained") / "tiny").run_dir


def tree(folder: Path) -> list[str]:
    """Every file below a folder, but for the compiled code that all tests share."""
    files = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return sorted(str(file) for file in files if file.parts[0] != "native")


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--overwrite-golden", action="store_true", help="write golden values anew")
    parser.addoption("--fault-report", type=Path, help="write the outcome of fault tests as JSON")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--fault-report")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FaultReport(path))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if numbers := [n for mark in item.iter_markers("fault") for n in mark.args]:
            item.user_properties.append(("faults", numbers))


class FaultReport:
    """Collects which tests injected which faults, and how they came out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        numbers = dict(report.user_properties).get("faults")
        if numbers and (report.when == "call" or (report.when == "setup" and not report.passed)):
            self.outcomes.append(
                {
                    "test": report.nodeid,
                    "faults": numbers,
                    "outcome": report.outcome,
                    "seconds": report.duration,
                }
            )

    def pytest_sessionfinish(self) -> None:
        self.outcomes.sort(key=lambda outcome: str(outcome["test"]))
        self.path.write_text(json.dumps(self.outcomes, indent=1) + "\n", encoding="utf-8")
