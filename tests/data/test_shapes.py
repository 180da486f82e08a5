"""The built-in `shapes` images: repeatable, balanced, and too hard for a linear model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cifar_cli.data.sources.shapes import CLASS_NAMES, draw_shapes, load_shapes


def test_five_thousand_and_one_thousand_images_each_class_equally_often() -> None:
    dataset = load_shapes()
    assert dataset.train.images.shape == (5000, 32, 32, 3)
    assert dataset.test.images.shape == (1000, 32, 32, 3)
    assert dataset.train.images.dtype == torch.uint8
    assert torch.bincount(dataset.train.labels).tolist() == [500] * 10
    assert torch.bincount(dataset.test.labels).tolist() == [100] * 10
    assert len(set(dataset.class_names)) == 10


def test_the_same_seed_draws_the_same_images_and_another_seed_others() -> None:
    first, again, other = (load_shapes(50, 20, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.train.images, again.train.images)
    assert torch.equal(first.test.labels, again.test.labels)
    assert not torch.equal(first.train.images, other.train.images)


def test_train_and_test_images_differ() -> None:
    dataset = load_shapes()
    train = {image.tobytes() for image in dataset.train.images.numpy()}
    assert len(train) == 5000
    assert not any(image.tobytes() in train for image in dataset.test.images.numpy())


@pytest.mark.parametrize("size", [16, 32, 48])
def test_any_image_size_is_drawn(size: int) -> None:
    images, labels = draw_shapes(30, size, np.random.default_rng(0))
    assert images.shape == (30, size, size, 3)
    assert images.dtype == np.uint8
    assert sorted(set(labels.tolist())) == list(range(10))


def test_colour_position_and_brightness_vary_within_each_class() -> None:
    images, labels = draw_shapes(1000, 32, np.random.default_rng(0))
    for label in range(len(CLASS_NAMES)):
        means = images[labels == label].mean(axis=(1, 2))
        assert (means.std(axis=0) > 20).all(), CLASS_NAMES[label]


@pytest.mark.parametrize("centred", [False, True])
def test_a_linear_model_stays_far_below_sixty_percent(centred: bool) -> None:
    dataset = load_shapes()

    def features(images: torch.Tensor) -> torch.Tensor:
        x = images.flatten(1).double() / 255
        # Also with each image's own mean colour taken away, which would help a weaker design.
        x = x - x.mean(1, keepdim=True) if centred else x
        return torch.cat([x, torch.ones(len(x), 1, dtype=torch.double)], 1)

    x, y = features(dataset.train.images), torch.eye(10).double()[dataset.train.labels]
    squares, best = x.T @ x, 0.0
    for strength in (1.0, 100.0, 10_000.0):
        weights = torch.linalg.solve(squares + strength * torch.eye(x.shape[1]), x.T @ y)
        predicted = (features(dataset.test.images) @ weights).argmax(1)
        best = max(best, (predicted == dataset.test.labels).double().mean().item())
    assert best < 0.6
