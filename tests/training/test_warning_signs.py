"""Trainings that go wrong, or whose figures mean little, say so; sound ones say nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import random_images, tiny_config
from torch import Tensor, nn

from cifar_cli import train
from cifar_cli.data.splits import Splits
from cifar_cli.data.types import ImageSet
from cifar_cli.rundir import EpochRecord
from cifar_cli.training.observer import Observer, Sign
from cifar_cli.training.state import TrainState
from cifar_cli.training.step import class_weights
from cifar_cli.training.warning_signs import copies_in, signs_after, signs_before

NAMES = ("cat", "dog", "owl", "bat")
Figures = tuple[float, float, float, float]


def labelled(*counts: int, seed: int = 0) -> ImageSet:
    """Noise with so many images of each class."""
    images = random_images(sum(counts), seed=seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return ImageSet(images.images, labels, images.indices)


def splits(train: ImageSet, val: ImageSet | None = None) -> Splits:
    return Splits(train, val or labelled(5, 5, 5, 5, seed=9), NAMES, val_from="test")


def state(
    *records: tuple[float, float, float, float], predicted: Tensor | None = None
) -> TrainState:
    """After epochs with these losses and accuracies of training and validation."""
    history = [
        EpochRecord(number, train_loss, train_accuracy, val_loss, val_accuracy, 0.1, 1.0, 1.0)
        for number, (train_loss, train_accuracy, val_loss, val_accuracy) in enumerate(records, 1)
    ]
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    return TrainState(model, optimizer, history=history, predicted=predicted)


def keys(signs: list[Sign]) -> list[str]:
    return [sign.key for sign in signs]


def test_few_steps_per_epoch_name_a_batch_size_that_gives_enough() -> None:
    images = splits(labelled(400, 400, 400, 400))
    (sign,) = signs_before(images, 512)
    assert str(sign) == "Only 4 steps per epoch. Try --batch-size 64 or more epochs."
    assert keys(signs_before(images, 64)) == []
    per_epoch = -(-len(images.train) // 512)
    assert signs_before(images, 512, epochs=-(-300 // per_epoch)) == [], "many in all will do"
    assert keys(signs_before(images, 512, epochs=299 // per_epoch)) == ["few_steps"]
    few = splits(labelled(5, 5, 5, 5))
    assert "--batch-size 8 " in str(signs_before(few, 16)[0])
    assert signs_before(few, 8) == [], "a smaller batch is no better"


def test_classes_that_differ_more_than_tenfold_are_named() -> None:
    (sign,) = signs_before(splits(labelled(8, 81, 20, 20)), 4)
    assert sign.key == "imbalance"
    assert "81 training images of dog, 8 of cat" in sign.what
    assert signs_before(splits(labelled(8, 80, 20, 20)), 4) == []
    assert signs_before(splits(labelled(8, 81, 20, 20)), 4, weighted=True) == []


def test_the_same_picture_in_both_splits_is_counted() -> None:
    train_images, val = labelled(50, 50, 50, 50), labelled(5, 5, 5, 5, seed=3)
    val.images[2], val.images[7] = train_images.images[1], train_images.images[199]
    assert copies_in(train_images, val) == 2
    (sign,) = signs_before(splits(train_images, val), 8)
    assert "2 of 20 validation images are training images too" in sign.what


def test_validation_at_chance_is_reported_at_the_end_and_after_three_epochs() -> None:
    images = splits(labelled(50, 50, 50, 50), labelled(250, 250, 250, 250))
    good, bad = (1.0, 0.5, 1.0, 0.5), (0.9, 0.6, 1.4, 0.26)
    assert signs_after(state(good, bad, bad), images, 9) == []
    assert keys(signs_after(state(good, bad, bad, bad), images, 9)) == ["chance"]
    assert keys(signs_after(state(good, bad), images, 2)) == ["chance"]
    assert signs_after(state(bad, good), images, 2) == []


def test_chance_is_the_largest_class_of_the_validation_images() -> None:
    images = splits(labelled(50, 50, 50, 50), labelled(700, 100, 100, 100))
    (sign,) = signs_after(state((0.5, 0.8, 0.9, 0.7)), images, 1)
    assert "70.0% of 1,000 images, not better than answering cat every time (70.0%)" in sign.what
    assert signs_after(state((0.5, 0.8, 0.9, 0.8)), images, 1) == []


def test_with_few_images_a_higher_accuracy_may_be_chance() -> None:
    images = splits(labelled(50, 50, 50, 50), labelled(5, 5, 5, 0))
    (sign,) = signs_after(state((0.5, 0.8, 0.9, 8 / 15)), images, 1)
    assert "53.3% of 15 images, not clearly better than answering cat" in sign.what


def test_a_loss_far_above_that_of_guessing_is_reported() -> None:
    images = splits(labelled(50, 50, 50, 50), labelled(250, 250, 250, 250))
    (sign,) = signs_after(state((2.0, 0.5, 118e6, 0.4)), images, 1)
    assert sign.key == "high_loss"
    assert "1.18e+08 in validation; guessing would give 1.39" in sign.what


def test_a_class_that_is_never_predicted_is_named() -> None:
    images = splits(labelled(50, 50, 50, 50), labelled(250, 250, 250, 0))
    after = state((1.0, 0.5, 1.0, 0.5), predicted=torch.tensor([500, 250, 0, 0]))
    (sign,) = signs_after(after, images, 1)
    assert sign.what == "Never predicted in validation: owl."
    assert signs_after(after, images, 2) == [], "while it is trained it may come yet"


def test_a_run_reports_its_warnings_and_keeps_them(in_tmp: Path) -> None:
    seen: list[Sign] = []

    class Watching(Observer):
        def warning(self, sign: Sign) -> None:
            seen.append(sign)

    config = tiny_config(optim__max_lr=50, schedule__div_factor=1)
    result = train(config, "a", observer=Watching())
    assert {"few_steps", "high_loss"} <= {sign.key for sign in seen}
    assert set(result.warnings) <= set(seen)
    noted = json.loads(Path("a/result.json").read_text())["warnings"]
    assert [Sign(**entry) for entry in noted] == list(result.warnings)
    again = train(config, "a", resume=True)
    assert again.warnings == result.warnings, "a finished run has them still"


@pytest.mark.parametrize("setting", [True, "auto"])
def test_class_weights_give_each_class_the_same_part(setting: bool | str) -> None:
    labels = torch.tensor([0] * 30 + [1] * 60 + [2] * 2)
    weights = class_weights(labels, 4, setting)  # type: ignore[arg-type]
    assert weights is not None
    parts = torch.bincount(labels, weights[labels], minlength=4)
    assert parts[:3].tolist() == pytest.approx([23.0] * 3)
    assert class_weights(torch.tensor([0] * 9 + [1] * 90), 2, "auto") is None
    assert class_weights(labels, 4, False) is None


def test_weights_reach_the_loss_of_a_run(in_tmp: Path) -> None:
    plain, weighted = (
        train(tiny_config(train__class_weights=value, data__limit_train=17), name).history[0]
        for name, value in (("a", False), ("b", True))
    )
    assert plain.train_loss != weighted.train_loss
