"""The preview shows exactly what training sees."""

from __future__ import annotations

import pytest
import torch
from conftest import random_images, tiny_config

from cifar_cli.data.keyed import epoch_order
from cifar_cli.data.loader import TrainLoader
from cifar_cli.data.preview import preview
from cifar_cli.data.types import Dataset
from cifar_cli.errors import ConfigError

DATASET = Dataset("noise", tuple("abcdefghij"), random_images(40), random_images(10, seed=1))


@pytest.mark.parametrize("form", ["tensor", "albumentations"])
@pytest.mark.parametrize(("epoch", "index"), [(1, 0), (3, 17), (9, 39)])
def test_pixels_equal_those_of_the_training_batch(form: str, epoch: int, index: int) -> None:
    config = tiny_config(
        augment__form=form, augment__crop_p=0.9, data__limit_train=None, data__limit_val=None
    )
    shown = preview(DATASET, config, 4, epoch, index).trained_on
    loader = TrainLoader(DATASET.train, config, torch.device("cpu"))
    for offset in (0, 7):
        batches = torch.cat([pixels for pixels, _ in loader.epoch(epoch + offset)])
        row = epoch_order(config.seed, epoch + offset, 40).tolist().index(index)
        expected = loader.normalise(shown[offset : offset + 1])
        assert torch.equal(batches[row : row + 1], expected)


def test_each_augmentation_alone_is_shown_applied() -> None:
    seen = preview(DATASET, tiny_config(), 4, 1, 5)
    assert list(seen.alone) == ["random resized crop", "horizontal flip", "cutout"]
    assert torch.equal(seen.alone["horizontal flip"][0], seen.original[0].flip(1))
    for images in seen.alone.values():
        assert images.shape == (8, 32, 32, 3)
        assert not (images == seen.original).flatten(1).all(1).any()


def test_transforms_that_are_not_in_use_are_not_shown() -> None:
    config = tiny_config(
        augment__form="tensor", augment__crop_p=0.0, augment__cutout_p=0.0,
        augment__flip="alternating", augment__translate=2,
    )  # fmt: skip
    seen = preview(DATASET, config, 4, 1, 5)
    assert list(seen.alone) == ["translation", "alternating flip"]
    either_way = [seen.original[0], seen.original[0].flip(1)]
    shown = [[torch.equal(i, way) for way in either_way] for i in seen.alone["alternating flip"]]
    assert shown in ([[True, False], [False, True]] * 4, [[False, True], [True, False]] * 4)
    middle = seen.original[0, 2:-2, 2:-2]
    for image in seen.alone["translation"]:
        places = image.unfold(0, 28, 1).unfold(1, 28, 1).permute(0, 1, 3, 4, 2)
        assert (places == middle).flatten(2).all(2).any()


def test_samples_are_balanced_and_carry_their_own_labels() -> None:
    seen = preview(DATASET, tiny_config(), 20, 1, 0)
    assert sorted(seen.sample_labels) == sorted("abcdefghij" * 2)
    known = {i.numpy().tobytes(): DATASET.class_names[int(y)] for i, y in zip(
        DATASET.train.images, DATASET.train.labels, strict=True)}  # fmt: skip
    for image, label in zip(seen.samples, seen.sample_labels, strict=True):
        assert known[image.numpy().tobytes()] == label


def test_an_image_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="numbered 0 to 39"):
        preview(DATASET, tiny_config(), 4, 1, 40)
