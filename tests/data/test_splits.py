"""Validation splits and limits: seeded, disjoint, with the mixture of the classes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from conftest import random_images
from hypothesis import given
from hypothesis import strategies as st

from cifar_cli.config import DataConfig
from cifar_cli.data.splits import balanced_draw, choose_splits
from cifar_cli.data.types import Dataset, ImageSet
from cifar_cli.errors import DataError

DATASET = Dataset(
    "noise", tuple("abcdefghij"), random_images(200), random_images(100, seed=1)
)  # each class 20 and 10 times


def test_without_settings_everything_is_used_and_the_test_split_validates() -> None:
    splits = choose_splits(DATASET, DataConfig(), seed=1)
    assert splits.val_is_test
    assert splits.train is DATASET.train
    assert splits.val is DATASET.test


def test_held_out_images_are_not_trained_on_and_the_test_split_is_left_alone() -> None:
    splits = choose_splits(DATASET, DataConfig(val_fraction=0.25), seed=1)
    train, val = set(splits.train.indices.tolist()), set(splits.val.indices.tolist())
    assert not splits.val_is_test
    assert len(val) == 50
    assert not train & val
    assert train | val == set(range(200))
    assert torch.equal(splits.val.images, DATASET.train.images[splits.val.indices])


def test_limits_take_each_class_equally_often() -> None:
    splits = choose_splits(DATASET, DataConfig(limit_train=50, limit_val=20), seed=1)
    assert torch.bincount(splits.train.labels).tolist() == [5] * 10
    assert torch.bincount(splits.val.labels).tolist() == [2] * 10


def test_a_limit_above_the_number_of_images_takes_all() -> None:
    assert len(choose_splits(DATASET, DataConfig(limit_train=999), seed=1).train) == 200


def test_the_draw_follows_the_seed() -> None:
    def indices(seed: int) -> list[int]:
        chosen = choose_splits(DATASET, DataConfig(limit_train=30), seed).train
        return chosen.indices.tolist()

    assert indices(1) == indices(1)
    assert indices(1) != indices(2)


def test_a_fraction_that_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match="no training images"):
        choose_splits(DATASET, DataConfig(val_fraction=0.999), seed=1)


def of_classes(*counts: int) -> Dataset:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = torch.zeros(len(labels), 1, 1, 3, dtype=torch.uint8)
    names = tuple("abcdefghij"[: len(counts)])
    return Dataset(
        "plain", names, ImageSet(images, labels, torch.arange(len(labels))), DATASET.test
    )


def test_held_out_images_have_the_mixture_of_the_classes_and_each_class_on_both_sides() -> None:
    dataset = of_classes(1000, 100, 30, 10, 2)
    splits = choose_splits(dataset, DataConfig(val_fraction=0.1), seed=1)
    assert torch.bincount(splits.val.labels).tolist() == [99, 10, 3, 1, 1]
    assert torch.bincount(splits.train.labels).tolist() == [901, 90, 27, 9, 1]
    most = choose_splits(dataset, DataConfig(val_fraction=0.9), seed=1)
    assert torch.bincount(most.train.labels, minlength=5).min() >= 1


def test_a_class_of_one_image_cannot_be_held_out() -> None:
    with pytest.raises(DataError, match="Class b has one training image, which cannot be on both"):
        choose_splits(of_classes(10, 1), DataConfig(val_fraction=0.1), seed=1)


def test_limits_keep_the_mixture_of_the_classes() -> None:
    dataset = of_classes(600, 300, 90, 10)
    splits = choose_splits(dataset, DataConfig(limit_train=100), seed=1)
    assert torch.bincount(splits.train.labels).tolist() == [60, 30, 9, 1]


def test_a_smaller_limit_takes_a_part_of_a_larger_one() -> None:
    dataset = of_classes(50, 20, 3)
    drawn = [
        set(choose_splits(dataset, DataConfig(limit_train=n), seed=1).train.indices.tolist())
        for n in (2, 5, 30, 60)
    ]
    assert all(small < large for small, large in pairwise(drawn))


@given(st.integers(1, 9), st.integers(2, 6), st.integers(1, 60), st.integers(0, 99))
def test_of_classes_of_one_size_a_draw_is_the_balanced_one(
    each: int, classes: int, count: int, seed: int
) -> None:
    """As it was before draws kept the mixture: what was trained on a part of CIFAR-10 still is."""
    dataset = of_classes(*[each] * classes)
    count = min(count, len(dataset.train))
    drawn = choose_splits(dataset, DataConfig(limit_train=count), seed).train.indices
    if count < len(dataset.train):
        assert torch.equal(drawn, balanced_draw(dataset.train.labels, count, seed + 1))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 99))
def test_a_draw_is_as_balanced_as_the_labels_allow(
    labels: list[int], count: int, seed: int
) -> None:
    rows = balanced_draw(torch.tensor(labels), count, seed)
    assert len(rows) == min(count, len(labels))
    assert rows.tolist() == sorted(set(rows.tolist()))
    drawn = torch.bincount(torch.tensor(labels)[rows], minlength=5)
    there = torch.bincount(torch.tensor(labels), minlength=5)
    # A class that still has images left is drawn at most one time less than any other.
    for label in range(5):
        if drawn[label] < there[label]:
            assert drawn[label] >= drawn.max() - 1
