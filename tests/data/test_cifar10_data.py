"""CIFAR-10's original archive: checked before anything in it is unpickled."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from local_cifar10 import Bomb, publish_batches, small_batches, write_archive, write_folder

from cifar_cli.config import DataConfig
from cifar_cli.data.sources import cifar10
from cifar_cli.data.sources.load import load_dataset
from cifar_cli.errors import DataError


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Small batches of noise whose checksums are taken for the published ones."""
    batches = small_batches()
    publish_batches(batches, monkeypatch.setattr)
    return batches


def test_the_checksums_are_those_that_torchvision_publishes() -> None:
    reference = torchvision.datasets.CIFAR10
    assert dict(reference.train_list) == cifar10.TRAIN_BATCHES
    assert dict(reference.test_list) == cifar10.TEST_BATCHES
    assert reference.tgz_md5 == cifar10.ARCHIVE_MD5
    assert reference.filename == cifar10.ARCHIVE


def test_folder_and_archive_hold_the_same_images_in_the_original_order(
    published: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path, published)
    from_folder = load_dataset(DataConfig(source=str(folder), dir=str(tmp_path / "one")))
    archive = write_archive(tmp_path / "any-name.tar.gz", published)
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", md5)
    from_archive = load_dataset(DataConfig(source=str(archive), dir=str(tmp_path / "two")))
    for dataset in (from_folder, from_archive):
        assert len(dataset.train) == 100
        assert len(dataset.test) == 20
        assert dataset.class_names == cifar10.CLASS_NAMES
    assert torch.equal(from_folder.train.images, from_archive.train.images)
    first = pickle.loads(published["data_batch_1"], encoding="bytes")
    expected = first[b"data"][3].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(from_folder.train.images[3].numpy(), expected)
    assert from_folder.train.labels[:20].tolist() == first[b"labels"]


def test_the_parent_of_the_batches_folder_is_read_too(
    published: dict[str, bytes], tmp_path: Path
) -> None:
    write_folder(tmp_path / "parent", published)
    assert len(load_dataset(DataConfig(source=str(tmp_path / "parent"))).train) == 100


def test_unpacked_batches_in_the_data_folder_need_no_download(
    published: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(Path(os.environ["CIFAR_RESNET_HOME"]), published)
    monkeypatch.setattr("cifar_cli.data.sources.download.SOURCES", ())
    assert len(load_dataset(DataConfig()).train) == 100


def test_even_a_batch_with_the_right_checksum_cannot_run_code(
    published: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap"
    data = pickle.dumps(Bomb(trap))
    monkeypatch.setitem(cifar10.TEST_BATCHES, "test_batch", hashlib.md5(data).hexdigest())
    folder = write_folder(tmp_path, {**published, "test_batch": data})
    with pytest.raises(pickle.UnpicklingError, match="no place in a CIFAR-10 batch"):
        load_dataset(DataConfig(source=str(folder)))
    assert not trap.exists()


def test_a_missing_batch_is_named(published: dict[str, bytes], tmp_path: Path) -> None:
    folder = write_folder(tmp_path, published)
    (folder / "data_batch_4").unlink()
    with pytest.raises(DataError, match="data_batch_4"):
        load_dataset(DataConfig(source=str(folder)))


def test_a_file_that_is_not_the_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="not the published file"):
        load_dataset(DataConfig(source=str(path)))


def test_another_image_size_is_refused_for_cifar10(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="32 pixels"):
        load_dataset(DataConfig(image_size=64))
