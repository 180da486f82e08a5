"""Class folders: any classes, any image size, decoded once, clear errors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cifar_cli.config import DataConfig
from cifar_cli.data.sources.folder import list_folders
from cifar_cli.data.sources.load import count_classes, load_dataset
from cifar_cli.data.sources.pictures import load_pictures
from cifar_cli.data.sources.pixels import Rules
from cifar_cli.data.types import Dataset
from cifar_cli.errors import DataError

Make = Callable[..., Path]


def cache() -> Path:
    return Path(os.environ["CIFAR_RESNET_HOME"])


def load_folder(root: Path, rules: Rules, folder: Path) -> Dataset:
    return load_pictures(list_folders(root), rules, folder)


def test_images_arrive_in_order_of_class_and_name_with_exact_pixels(class_folders: Make) -> None:
    root = class_folders()
    dataset = load_folder(root, Rules(32), cache())
    assert dataset.class_names == ("cat", "dog", "owl")
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected = np.asarray(Image.open(root / "train" / "dog" / "0001.png"))
    assert np.array_equal(dataset.train.images[5].numpy(), expected)


@pytest.mark.parametrize("size", [(16, 16), (40, 64), (100, 30)])
def test_images_of_other_sizes_are_resized(class_folders: Make, size: tuple[int, int]) -> None:
    dataset = load_folder(class_folders(size=size), Rules(48), cache())
    assert dataset.train.images.shape == (12, 48, 48, 3)


def test_the_second_start_decodes_nothing(
    class_folders: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders()
    first = load_folder(root, Rules(32), cache())

    def refuse(*_: object) -> None:
        raise AssertionError("an image was decoded again")

    monkeypatch.setattr("cifar_cli.data.sources.pictures.decode_image", refuse)
    again = load_folder(root, Rules(32), cache())
    assert torch.equal(first.train.images, again.train.images)
    assert again.class_names == first.class_names


def test_a_changed_image_is_seen(class_folders: Make) -> None:
    root = class_folders()
    load_folder(root, Rules(32), cache())
    Image.new("RGB", (32, 32), (1, 2, 3)).save(root / "train" / "cat" / "0000.png")
    assert load_folder(root, Rules(32), cache()).train.images[0, 0, 0].tolist() == [1, 2, 3]


def test_the_cache_is_shared_by_copies_and_keyed_by_size(
    class_folders: Make, tmp_path: Path
) -> None:
    root = class_folders()
    load_folder(root, Rules(32), cache())
    copy = tmp_path / "copy"
    root.rename(copy)
    load_folder(copy, Rules(32), cache())
    assert len(list((cache() / "decoded").glob("*.npz"))) == 1
    load_folder(copy, Rules(16), cache())
    assert len(list((cache() / "decoded").glob("*.npz"))) == 2


def test_classes_are_counted_without_decoding(class_folders: Make) -> None:
    assert count_classes(DataConfig(source=str(class_folders()))) == 3
    assert count_classes(DataConfig(source="shapes")) == 10


def test_a_folder_without_images_and_a_name_that_is_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no images in class folders\. Expected train/<class>/"):
        load_dataset(DataConfig(source=str(tmp_path / "empty")))
    with pytest.raises(DataError, match="did you mean 'shapes'"):
        load_dataset(DataConfig(source="shape"))
