"""The loader: every image once an epoch, exact normalisation, the same with workers."""

from __future__ import annotations

import pytest
import torch
from conftest import random_images, tiny_config
from torchvision.transforms import v2

from cifar_cli.config import Config
from cifar_cli.data.keyed import epoch_order
from cifar_cli.data.loader import (
    Normalise,
    TrainLoader,
    make_augment,
)

CPU = torch.device("cpu")
STILL = {"augment__crop_p": 0, "augment__flip_p": 0, "augment__cutout_p": 0}


def test_normalisation_equals_torchvisions() -> None:
    images = random_images(5).images
    config = Config().data
    reference = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize(config.mean, config.std)]
    )(images.permute(0, 3, 1, 2))
    for channels_last in (True, False):
        ours = Normalise(config.mean, config.std, channels_last)(images)
        torch.testing.assert_close(ours, reference, atol=1e-6, rtol=1e-5)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert ours.is_contiguous(memory_format=layout)


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    images = random_images(70)
    loader = TrainLoader(images, tiny_config(**STILL), CPU)
    epochs = [list(loader.epoch(number)) for number in (1, 2)]
    assert loader.steps == 3
    assert [len(labels) for _, labels in epochs[0]] == [32, 32, 6]
    orders = []
    for number, batches in enumerate(epochs, start=1):
        order = epoch_order(1, number, 70)
        assert sorted(order.tolist()) == list(range(70))
        pixels = torch.cat([p for p, _ in batches])
        expected = loader.normalise(images.images[order])
        assert torch.equal(pixels, expected)
        assert torch.equal(torch.cat([y for _, y in batches]), images.labels[order])
        orders.append(order.tolist())
    assert orders[0] != orders[1]


def test_every_seed_and_epoch_has_another_order() -> None:
    orders = {tuple(epoch_order(s, e, 50).tolist()) for s in range(1, 6) for e in range(1, 6)}
    assert len(orders) == 25


@pytest.mark.parametrize("form", ["tensor", "albumentations"])
def test_starting_in_the_middle_of_an_epoch_shows_the_rest_of_it(form: str) -> None:
    loader = TrainLoader(random_images(70), tiny_config(augment__form=form), CPU)
    whole = list(loader.epoch(3))
    rest = list(loader.epoch(3, first_step=1))
    assert len(rest) == 2
    for (a, b), (c, d) in zip(whole[1:], rest, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
    assert list(loader.epoch(3, first_step=3)) == []


def test_workers_change_nothing() -> None:
    config = tiny_config(augment__form="albumentations")
    alone = list(TrainLoader(random_images(70), config, CPU).epoch(2))
    helped_config = tiny_config(augment__form="albumentations", data__workers=2)
    before = torch.get_rng_state()
    with TrainLoader(random_images(70), helped_config, CPU) as loader:
        helped = list(loader.epoch(2))
    assert torch.equal(torch.get_rng_state(), before)
    for (a, b), (c, d) in zip(alone, helped, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)


def test_draws_follow_the_position_in_the_source_not_in_the_subset() -> None:
    images = random_images(70)
    config = tiny_config(augment__crop_p=0.8)
    chosen = images.subset(torch.tensor([3, 41, 60]))
    loader = TrainLoader(chosen, config, CPU)
    ((pixels, _),) = loader.epoch(5)
    order = chosen.indices[epoch_order(1, 5, 3)]
    expected = make_augment(config)(images.images[order], order, 5)
    assert torch.equal(pixels, loader.normalise(expected))


def test_one_image_makes_one_batch() -> None:
    loader = TrainLoader(random_images(1), tiny_config(), CPU)
    ((pixels, labels),) = loader.epoch(1)
    assert pixels.shape == (1, 3, 32, 32)
    assert labels.shape == (1,)


def test_a_sample_is_of_all_classes_where_images_lie_class_by_class() -> None:
    images = random_images(60)
    ordered = images.subset(images.labels.argsort(stable=True))
    loader = TrainLoader(ordered, tiny_config(), CPU)
    assert torch.equal(loader.sample(), loader.normalise(ordered.images))
    same = (loader.sample(30)[:, None] == loader.sample()[None]).flatten(2).all(2)
    assert (same.sum(1) == 1).all()  # each is one of the images, and none comes twice
    assert same.sum() == same.any(0).sum() == 30
    assert len(ordered.labels[same.any(0)].unique()) > 5


def test_a_sample_of_larger_images_has_no_more_pixels() -> None:
    config = tiny_config(data__image_size=64)
    assert len(TrainLoader(random_images(60, size=64), config, CPU).sample(40)) == 10
    assert len(TrainLoader(random_images(60, size=24), config, CPU).sample(40)) == 40
