"""The cache of decoded images: whole or not there, and never trusted when damaged."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
from conftest import random_images

from cifar_cli.data.cache import cached, home
from cifar_cli.data.types import Dataset


def dataset(seed: int = 0) -> Dataset:
    return Dataset("noise", ("a", "b"), random_images(6, classes=2, seed=seed), random_images(2))


def never() -> Dataset:
    raise AssertionError("decoded again")


def test_what_was_stored_comes_back_equal(tmp_path: Path) -> None:
    first = cached(tmp_path, "key", dataset)
    again = cached(tmp_path, "key", never)
    assert again.class_names == first.class_names
    assert again.name == first.name
    for one, two in ((first.train, again.train), (first.test, again.test)):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.labels, two.labels)
        assert torch.equal(one.indices, two.indices)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "rubbish"])
def test_a_damaged_file_is_decoded_anew(tmp_path: Path, damage: str) -> None:
    expected = cached(tmp_path, "key", dataset)
    (path,) = (tmp_path / "decoded").glob("*.npz")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    changed = {
        "flip": data,
        "truncate": data[: len(data) // 2],
        "empty": b"",
        "rubbish": b"rubbish" * 100,
    }[damage]
    path.write_bytes(changed)
    assert torch.equal(cached(tmp_path, "key", dataset).train.images, expected.train.images)
    assert torch.equal(cached(tmp_path, "key", never).train.images, expected.train.images)


def test_an_error_while_decoding_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        cached(tmp_path, "key", never)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def _store(folder: str) -> None:
    cached(Path(folder), "key", dataset)


def test_processes_that_write_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_store, args=(str(tmp_path),)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert [p.name for p in (tmp_path / "decoded").iterdir()] == ["key-v2.npz"]
    cached(tmp_path, "key", never)


def test_the_folder_is_the_options_then_the_variables_then_the_platforms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CIFAR_RESNET_HOME", str(tmp_path / "home"))
    assert home(str(tmp_path / "mine")) == tmp_path / "mine"
    assert home(None) == tmp_path / "home"
    monkeypatch.delenv("CIFAR_RESNET_HOME")
    assert home(None).name == "cifar-resnet"
