"""`doctor`: ticks where all is well, and for each real fault a cross, its remedy and its code."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Answer, tiny_config, tree
from torch import nn

from cifar_cli.data.sources import cifar10
from cifar_cli.doctor import checks
from cifar_cli.kernels import status

Cli = Callable[..., Answer]
ROOT = Path(__file__).parents[2]
NAMES = ["versions", "device", "free space", "write access", "data", "training step",
         "augmentation"]  # fmt: skip


def failed(answer: Answer) -> dict[str, Any]:
    """The checks that failed, by name; each has a remedy."""
    report = answer.json
    assert [check["name"] for check in report["checks"]] == NAMES
    crosses = {check["name"]: check for check in report["checks"] if not check["ok"]}
    assert report["ok"] is not bool(crosses)
    assert all(check["detail"] and check["remedy"] for check in crosses.values())
    assert answer.err == ""
    return crosses


def install(folder: Path, name: str, version: str, *metadata: str) -> None:
    """A distribution as pip leaves it, on a path of its own."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata]
    (info / "METADATA").write_text("\n".join(head) + "\n")


def doctor_with(path: Path, *arguments: str) -> Answer:
    """`doctor --json` in a process that finds packages in `path` first."""
    found = subprocess.run(
        [sys.executable, "-m", "cifar_cli", "doctor", "--data", "shapes", "--json", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    return Answer(found.returncode, found.stdout, found.stderr)


def test_all_is_well_and_nothing_is_left_behind(cli: Cli, in_tmp: Path) -> None:
    answer = cli("doctor", "--data", "shapes", "--json")
    assert answer.code == 0
    assert failed(answer) == {}
    details = {check["name"]: check["detail"] for check in answer.json["checks"]}
    assert f"torch {torch.__version__.split('+')[0]}" in details["versions"]
    assert "cpu" in details["device"]
    assert "5,000 training and 1,000 test images" in details["data"]
    how = "code that was compiled here" if status().is_loaded else "no compiled code: "
    assert f"convolutions use {how}" in details["training step"]
    assert "128 draws in 2 loader processes are all different" in details["augmentation"]
    assert tree(in_tmp) == []
    home = tree(Path(os.environ["CIFAR_RESNET_HOME"]))
    assert [name for name in home if not name.startswith("native/tiles-")] == []


def test_images_that_are_not_downloaded_yet_are_a_hint(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", pytest.fail)
    answer = cli("doctor", "--json")
    assert answer.code == 0
    assert failed(answer) == {}
    (data,) = (check for check in answer.json["checks"] if check["name"] == "data")
    assert "not in" in data["detail"]
    assert "--data shapes" in data["remedy"]


def test_the_table_has_a_tick_a_cross_or_a_dot_for_each(cli: Cli, in_tmp: Path) -> None:
    (in_tmp / "file").touch()
    answer = cli("doctor", "--run-dir", "file/runs")
    assert answer.code == 7
    assert answer.out.count("✓") == 5
    assert answer.out.count("✗") == 1
    assert answer.out.count("•") == 1
    assert "What to do" in answer.out
    assert answer.err == ""


@pytest.mark.parametrize("option", ["--run-dir", "--data-dir"])
def test_a_place_that_cannot_be_written_to(cli: Cli, in_tmp: Path, option: str) -> None:
    (in_tmp / "file").touch()
    answer = cli("doctor", "--data", "shapes", option, in_tmp / "file" / "deeper" / "x", "--json")
    assert answer.code == 7
    crosses = failed(answer)
    assert list(crosses) == ["write access"]
    assert str(in_tmp / "file") in crosses["write access"]["detail"]


def test_too_little_space(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    # No small file system can be made here; a need larger than the disk is as good.
    monkeypatch.setattr("cifar_cli.doctor.checks.RUN_BYTES", 10**18)
    answer = cli("doctor", "--data", "shapes", "--json")
    assert answer.code == 7
    assert "1,000,000,000.0 GB are needed" in failed(answer)["free space"]["detail"]


def test_a_device_that_is_not_there(cli: Cli) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("it is there")
    answer = cli("doctor", "--data", "shapes", "--device", "mps", "--json")
    assert answer.code == 2
    crosses = failed(answer)
    assert list(crosses) == ["device", "training step"]
    assert "not available here" in crosses["device"]["detail"]
    assert "auto" in crosses["device"]["remedy"]


def test_a_broken_image(cli: Cli, class_folders: Callable[..., Path]) -> None:
    folder = class_folders()
    image = folder / "train" / "cat" / "0000.png"
    image.write_bytes(image.read_bytes()[:200])
    answer = cli("doctor", "--data", folder, "--json")
    assert answer.code == 3
    crosses = failed(answer)
    assert list(crosses) == ["data"]
    assert "0000.png" in crosses["data"]["detail"]


def test_a_batch_with_a_changed_byte(
    cli: Cli, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = in_tmp / cifar10.FOLDER
    folder.mkdir()
    for published in (cifar10.TRAIN_BATCHES, cifar10.TEST_BATCHES):
        for seed, name in enumerate(published):
            pixels = np.full((20, 3072), seed, np.uint8)
            content = {b"data": pixels, b"labels": [n % 10 for n in range(20)]}
            data = pickle.dumps(content, protocol=3).replace(b"numpy._core", b"numpy.core")
            monkeypatch.setitem(published, name, hashlib.md5(data).hexdigest())
            (folder / name).write_bytes(data)
    whole = cli("doctor", "--data", in_tmp, "--json")
    assert whole.code == 0
    changed = bytearray(data)
    changed[1000] ^= 1
    (folder / name).write_bytes(changed)
    answer = cli("doctor", "--data", in_tmp, "--json")
    assert answer.code == 3
    crosses = failed(answer)
    assert list(crosses) == ["data"]
    assert "MD5" in crosses["data"]["detail"]


@pytest.mark.fault(58)
def test_a_damaged_archive_is_told_and_stays(cli: Cli) -> None:
    archive = Path(os.environ["CIFAR_RESNET_HOME"]) / cifar10.ARCHIVE
    archive.write_bytes(b"cut short")
    answer = cli("doctor", "--json")
    assert answer.code == 3
    assert "MD5" in failed(answer)["data"]["detail"]
    assert archive.read_bytes() == b"cut short"


def test_a_step_that_computes_something_else(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    # A convolution that is slightly off, as a faulty kernel might be.
    plain = nn.Conv2d.forward
    monkeypatch.setattr(
        nn.Conv2d, "forward", lambda self, x: plain(self, x) + 0.01 * x.mean(1, keepdim=True)
    )
    answer = cli("doctor", "--data", "shapes", "--json")
    assert answer.code == 5
    crosses = failed(answer)
    assert list(crosses) == ["training step"]
    assert "differs" in crosses["training step"]["detail"]


REPEATS = """
import os, random
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations, numpy
plain = albumentations.Compose.set_random_state
albumentations.Compose.set_random_state = lambda self, *_: plain(
    self, numpy.random.default_rng(0), random.Random(0)
)
"""


def test_loader_processes_that_repeat_draws(
    cli: Cli, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What Albumentations does when left to seed itself: all workers start from one state.
    packages = tmp_path_factory.mktemp("packages")
    (packages / "sitecustomize.py").write_text(REPEATS)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    answer = cli("doctor", "--data", "shapes", "--json")
    assert answer.code == 5
    assert "draws" in failed(answer)["augmentation"]["detail"]


@pytest.mark.fault(89)
def test_a_check_that_hangs_is_a_cross_and_the_others_still_end(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "from cifar_cli.doctor import checks\n"
        "def hang(config):\n"
        "    checks.LIMIT_SECONDS = 1.5\n"
        "    time.sleep(1000)\n"
        "checks._training_step = checks._data = hang\n"
        "checks.DATA_LIMIT_SECONDS = 1.5\n"
    )
    started = time.monotonic()
    answer = doctor_with(tmp_path)
    assert time.monotonic() - started < 90
    assert answer.code == 3
    crosses = failed(answer)
    assert {"data", "training step"} <= crosses.keys()
    assert "has not ended after 1.5 s" in crosses["data"]["detail"]
    assert "--data" in crosses["data"]["remedy"]
    assert "--device cpu" in crosses["training step"]["remedy"]


@pytest.mark.fault(89)
def test_ctrl_c_ends_a_check_that_hangs(monkeypatch: pytest.MonkeyPatch, in_tmp: Path) -> None:
    monkeypatch.setattr(checks, "_versions", lambda: str(time.sleep(3)))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with pytest.raises(KeyboardInterrupt):
        next(checks.examine(tiny_config(), in_tmp, lambda *_: None))
    signal.signal(signal.SIGALRM, before)


@pytest.mark.fault(73)
def test_a_check_that_cannot_be_started_is_a_cross(in_tmp: Path) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.daemon:  # those of the terminal's progress are none of this
            raise RuntimeError("can't start new thread")
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        (check, *_) = checks.examine(tiny_config(), in_tmp, lambda *_: None)
    assert (check.ok, check.exit_code) == (False, 6)
    assert "can't start new thread" in check.detail
    assert "ulimit -u" in check.remedy


@pytest.mark.fault(78)
def test_libraries_for_which_memory_lacks_are_no_fault_of_the_installation(
    monkeypatch: pytest.MonkeyPatch, in_tmp: Path
) -> None:
    real = importlib.import_module

    def load(name: str) -> ModuleType:
        if name == "torch":
            raise ImportError("libtorch.so: failed to map segment from shared object")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", load)
    found = list(checks.examine(tiny_config(), in_tmp, lambda *_: None))
    assert [(check.name, check.exit_code) for check in found] == [("versions", 6)]
    assert "ulimit -v" in found[0].remedy


def test_the_wrong_albumentations(tmp_path: Path) -> None:
    install(tmp_path, "albumentationsx", "2.0.8")
    answer = doctor_with(tmp_path)
    assert answer.code == 2
    crosses = failed(answer)
    assert list(crosses) == ["versions", "augmentation"]
    assert "albumentationsx" in crosses["versions"]["detail"]
    assert "pip uninstall albumentationsx" in crosses["versions"]["remedy"]


@pytest.mark.fault(77)
def test_packages_that_do_not_fit_or_do_not_import(tmp_path: Path) -> None:
    install(tmp_path, "torchvision", "9.9", "Requires-Dist: torch==1.2.3")
    install(tmp_path, "torchinfo", "1.7.9")
    (tmp_path / "torch_lr_finder.py").write_text("raise RuntimeError('broken')\n")
    answer = doctor_with(tmp_path)
    assert answer.code == 2
    crosses = failed(answer)
    assert list(crosses) == ["versions"]
    for word in (
        "torchvision needs torch==1.2.3: torch",
        "torchinfo 1.7.9 is installed, == 1.8.0 is needed",
        "torch-lr-finder 0.2.2 cannot be imported (RuntimeError: broken)",
    ):
        assert word in crosses["versions"]["detail"]


@pytest.mark.fault(77)
def test_without_torch_every_check_still_ends_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so: no such file')\n")
    answer = doctor_with(tmp_path)
    assert answer.code == 2
    crosses = failed(answer)
    assert {"versions", "device", "training step", "augmentation"} <= crosses.keys()
    assert "libtorch.so" in crosses["versions"]["detail"]
    assert "Traceback" not in answer.out + answer.err


def test_the_report_is_one_json_document(cli: Cli) -> None:
    report = json.loads(cli("doctor", "--data", "shapes", "--json", "--quiet").out)
    assert set(report) == {"schema_version", "ok", "checks"}
    assert {frozenset(check) for check in report["checks"]} == {
        frozenset({"name", "ok", "detail", "remedy"})
    }
