"""Checkpoints and runs from elsewhere, which name folders of the user's, by the command line."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY_FLAGS, Answer, tiny_config, tree
from local_cifar10 import (
    Server,
    publish_archive,
    publish_batches,
    serving,
    small_batches,
    write_archive,
    write_folder,
)

from cifar_cli import train
from cifar_cli.data.sources.cifar10 import ARCHIVE, CLASS_NAMES

FLAGS = [*TINY_FLAGS, "--set", "runtime.threads=1"]
Cli = Callable[..., Answer]


@pytest.fixture
def archive(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small archive that is taken for the published one, which no server has."""
    monkeypatch.delenv("CIFAR_RESNET_MIRROR", raising=False)
    path = write_archive(in_tmp / "published", small_batches())
    publish_batches(small_batches(), monkeypatch.setattr)
    data = path.read_bytes()
    publish_archive(data, monkeypatch.setattr)
    path.unlink()
    return data


@pytest.fixture
def server(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(archive) as running:
        monkeypatch.setenv("CIFAR_RESNET_MIRROR", running.url("good"))
        yield running


@pytest.fixture
def photos(in_tmp: Path) -> Path:
    """A folder of the user's, with names that the program uses too."""
    folder = in_tmp / "photos"
    (folder / "decoded").mkdir(parents=True)
    for name in (
        ARCHIVE,
        f"{ARCHIVE}.part",
        "decoded/cifar10-v2.npz",
        "x.jpg",
        "decoded/.mine.2020.tmp",
        f"decoded/.mine.{'0a' * 8}.tmp",
    ):
        (folder / name).write_text(f"mine: {name}")
    return folder


def state(folder: Path) -> list[tuple[str, str]]:
    """All that is below a folder, and what it holds."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found.append((str(path.relative_to(folder)), hashlib.sha256(content).hexdigest()))
    return found


def home() -> Path:
    return Path(os.environ["CIFAR_RESNET_HOME"])


def stranger(folder: Path, **data: Any) -> Path:
    """A run as somebody else may have made it, whose files name other images and folders."""
    train(tiny_config(train__epochs=2, runtime__threads=1), folder)
    for path in (folder / "checkpoints").glob("*.pt"):
        content = torch.load(path, weights_only=True)
        content["config"]["data"] |= data
        content["class_names"] = list(CLASS_NAMES)
        if content["training"]:
            history = content["training"]["history"][:1]
            content["training"] |= {"epoch": 2, "step": 0, "history": history}
        torch.save(content, path)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"] |= data
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "result.json").unlink()
    return folder


def commands(run: Path) -> list[list[object]]:
    last = run / "checkpoints" / "last.pt"
    return [
        ["evaluate", "--checkpoint", last, "--device", "cpu"],
        ["evaluate", run, "--device", "cpu"],
        ["evaluate", run, "--split", "train", "--device", "cpu"],
        ["misclassified", "--checkpoint", last, "--device", "cpu"],
        ["train", "--resume", "--run-dir", run, "--allow-changes"],
    ]


@pytest.mark.fault(57)
def test_a_checkpoint_from_elsewhere_writes_and_deletes_nothing_where_it_says(
    cli: Cli, in_tmp: Path, photos: Path, server: Server
) -> None:
    run = stranger(in_tmp / "run", dir=str(photos), source="cifar10")
    before = state(photos)
    for number, arguments in enumerate(commands(run)):
        copy = in_tmp / f"copy{number}"
        shutil.copytree(run, copy)
        answer = cli(*[str(a).replace(str(run), str(copy)) for a in arguments])
        assert answer.code == 0, (arguments, answer.err)
        assert state(photos) == before, arguments
    # Another one, before its first checkpoint.
    shutil.copytree(run, in_tmp / "begun", ignore=shutil.ignore_patterns("*.pt"))
    for name in ("metrics.csv", "steps.csv"):
        (in_tmp / "begun" / name).unlink()
    answer = cli("train", "--resume", "--run-dir", in_tmp / "begun")
    assert answer.code == 0, answer.err
    assert state(photos) == before
    # All went to the user's own folder.
    assert ARCHIVE in tree(home())
    assert "decoded/cifar10-v2.npz" in tree(home())


@pytest.mark.fault(57)
def test_a_checkpoint_that_names_a_folder_that_is_not_there_makes_none(
    cli: Cli, in_tmp: Path, server: Server
) -> None:
    run = stranger(in_tmp / "run", dir=str(in_tmp / "new" / "folder"), source="cifar10")
    for arguments in commands(run):
        assert cli(*arguments).code == 0
        assert not (in_tmp / "new").exists(), arguments


@pytest.mark.fault(57)
def test_the_command_line_says_where_caches_go(
    cli: Cli, in_tmp: Path, photos: Path, server: Server
) -> None:
    run = stranger(in_tmp / "run", dir=str(photos), source="cifar10")
    before, here = state(photos), in_tmp / "here"
    answer = cli("evaluate", run, "--data-dir", here, "--device", "cpu")
    assert answer.code == 0, answer.err
    assert state(photos) == before
    assert sorted(tree(here)) == [ARCHIVE, f"{ARCHIVE}.lock", "decoded/cifar10-v2.npz"]


@pytest.mark.fault(57)
def test_class_folders_that_a_checkpoint_names_are_only_read(
    cli: Cli, in_tmp: Path, class_folders: Callable[..., Path]
) -> None:
    root = class_folders()
    assert cli("train", *FLAGS, "--data", root, "--epochs", "1", "--run-dir", "a").code == 0
    before = state(root)
    for name in ("last.pt", "best.pt"):
        path = in_tmp / "a" / "checkpoints" / name
        content = torch.load(path, weights_only=True)
        content["config"]["data"]["dir"] = str(root / "train" / "cat")
        torch.save(content, path)
    for arguments in (["evaluate", "a"], ["misclassified", "a"]):
        assert cli(*arguments, "--device", "cpu").code == 0
        assert state(root) == before


@pytest.mark.parametrize("form", ["archive", "folder"])
@pytest.mark.fault(57)
def test_cifar10_in_the_folder_of_the_own_run_is_still_found_and_only_read(
    cli: Cli, in_tmp: Path, archive: bytes, form: str
) -> None:
    there = in_tmp / "there"
    if form == "archive":
        there.mkdir()
        (there / ARCHIVE).write_bytes(archive)
    else:
        write_folder(there, small_batches())
    flags = [*FLAGS, "--data", "cifar10", "--data-dir", there, "--set", "data.limit_train=64"]
    answer = cli("train", *flags, "--epochs", "2", "--run-dir", "a")
    assert answer.code == 0, answer.err
    (in_tmp / "a" / "result.json").unlink()
    before = state(there)
    last = in_tmp / "a" / "checkpoints" / "last.pt"
    for _ in range(2):  # the second resume knows the folder too
        content = torch.load(last, weights_only=True)
        content["training"] |= {"epoch": 2, "step": 0}
        content["training"]["history"] = content["training"]["history"][:1]
        torch.save(content, last)
        (in_tmp / "a" / "result.json").unlink(missing_ok=True)
        answer = cli("train", "--resume", "--run-dir", "a")
        assert answer.code == 0, answer.err
    assert cli("evaluate", "a", "--device", "cpu").code == 0
    assert state(there) == before
    assert "decoded/cifar10-v2.npz" in tree(home())


@pytest.mark.fault(58)
def test_any_other_archive_is_refused_without_advice_to_remove_it(
    cli: Cli, in_tmp: Path, archive: bytes
) -> None:
    path = in_tmp / "photos.zip"
    path.write_bytes(b"PK\5\6" + bytes(18))
    for arguments in (["train", *FLAGS], ["preview-augs", *FLAGS], ["doctor", "--json"]):
        answer = cli(*arguments, "--data", path)
        text = answer.err + answer.out
        assert answer.code == 3
        assert "photos.zip holds no images in class folders" in text
        assert "emove it" not in text
        assert "CIFAR-10" not in answer.err
        assert "Expected train/<class>/ folders" in text
    assert path.stat().st_size == 22
