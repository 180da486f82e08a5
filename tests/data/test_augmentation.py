"""The two forms of the augmentation: exact operations, keyed draws, one distribution."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import random_images
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cifar_cli.config import Config, TensorConfig, load_config
from cifar_cli.data.augment.crop import RandomResizedCrop, resized_crop
from cifar_cli.data.augment.cutout import Cutout
from cifar_cli.data.augment.flip import AlternatingFlip, HorizontalFlip
from cifar_cli.data.augment.tensor import TensorAugment, transforms_in_use
from cifar_cli.data.augment.transform import Draws, Transform
from cifar_cli.data.augment.translation import Translation, translate
from cifar_cli.data.keyed import GOLDEN, mix, uniforms
from cifar_cli.data.loader import make_augment
from cifar_cli.errors import ConfigError

FILL = (125, 123, 114)
FORMS = ("tensor", "albumentations")
OFF = {"crop_p": 0.0, "flip_p": 0.0, "cutout_p": 0.0}


def config(form: str, **changes: Any) -> Config:
    settings = {f"augment.{key}": value for key, value in changes.items()}
    return load_config(env={}, settings={"augment.form": form, **settings})


def augmented(form: str, images: Tensor, epoch: int = 1, **changes: Any) -> Tensor:
    return make_augment(config(form, **changes))(images.clone(), torch.arange(len(images)), epoch)


def coordinates(count: int) -> Tensor:
    """Images whose red tells the column, whose green tells the row, and whose blue is full."""
    ramp = torch.arange(32, dtype=torch.uint8) * 8
    image = torch.full((32, 32, 3), 255, dtype=torch.uint8)
    image[..., 0], image[..., 1] = ramp[None, :], ramp[:, None]
    return image.expand(count, 32, 32, 3).clone()


def measure(images: Tensor) -> dict[str, Tensor]:
    """What was done to `coordinates`: position and size of the crop, flip, cutout."""
    x = images.double()
    red, green, square = x[..., 0].mean(1), x[..., 1].mean(2), x[..., 2] < 200
    rows = torch.arange(32).double()
    total = square.sum((1, 2)).clamp(min=1)

    def half_pixels(grey: Tensor) -> Tensor:
        # Boxes lie on whole pixels; OpenCV's rounding must not part what is one box.
        return (grey / 4).round()

    return {
        "horizontal extent": half_pixels(red.amax(1) - red.amin(1)),
        "vertical extent": half_pixels(green.amax(1) - green.amin(1)),
        "horizontal position": half_pixels(x[..., 0].mean((1, 2))),
        "vertical position": half_pixels(x[..., 1].mean((1, 2))),
        "flipped": (red[:, 0] > red[:, -1]).double(),
        "cutout area": square.sum((1, 2)).double(),
        "cutout row": (square.sum(2) * rows).sum(1) / total,
        "cutout column": (square.sum(1) * rows).sum(1) / total,
    }


def distance(one: Tensor, two: Tensor) -> float:
    """Kolmogorov and Smirnov's: the greatest difference of the two distribution functions."""
    points = torch.cat([one, two]).sort().values
    shares = [
        torch.searchsorted(sample.sort().values, points, right=True) / len(sample)
        for sample in (one, two)
    ]
    return float((shares[0] - shares[1]).abs().max())


COUNT = 4000
# Two samples of one distribution are farther apart than this once in 10,000 times.
FAR = 2.23 * (2 / COUNT) ** 0.5


def test_both_forms_draw_from_the_same_distribution() -> None:
    images = coordinates(COUNT)
    tensor, albumentations = (measure(augmented(form, images)) for form in FORMS)
    distances = {name: distance(tensor[name], albumentations[name]) for name in tensor}
    assert max(distances.values()) < FAR, distances


@pytest.mark.parametrize(
    "alone",
    [
        {"crop_p": 1.0, "flip_p": 0.0, "cutout_p": 0.0},
        {"crop_p": 1.0, "flip_p": 0.0, "cutout_p": 0.0, "crop_scale": [0.5, 1.0]},
        {"crop_p": 0.0, "flip_p": 0.5, "cutout_p": 1.0, "cutout_size": 11},
    ],
    ids=["crop", "large crop", "flip and cutout"],
)
def test_each_augmentation_alone_is_drawn_alike(alone: dict[str, Any]) -> None:
    images = coordinates(COUNT)
    tensor, albumentations = (measure(augmented(form, images, **alone)) for form in FORMS)
    distances = {name: distance(tensor[name], albumentations[name]) for name in tensor}
    assert max(distances.values()) < FAR, distances


def test_the_comparison_tells_slightly_different_settings_apart() -> None:
    images = coordinates(COUNT)
    plain = measure(augmented("tensor", images))
    for changes, name in (
        ({"crop_p": 0.3}, "horizontal extent"),
        ({"flip_p": 0.3}, "flipped"),
        ({"cutout_size": 9}, "cutout area"),
        ({"crop_p": 1.0, "crop_scale": [0.2, 1.0]}, "vertical extent"),
    ):
        assert distance(plain[name], measure(augmented("tensor", images, **changes))[name]) > FAR


@pytest.mark.parametrize("form", FORMS)
def test_augmentations_that_never_happen_change_nothing(form: str) -> None:
    images = random_images(8).images
    assert torch.equal(augmented(form, images, crop_p=0.0, flip_p=0.0, cutout_p=0.0), images)


@pytest.mark.parametrize("form", FORMS)
def test_a_certain_flip_mirrors_every_image(form: str) -> None:
    images = random_images(8).images
    assert torch.equal(
        augmented(form, images, crop_p=0.0, flip_p=1.0, cutout_p=0.0), images.flip(2)
    )


@pytest.mark.parametrize("form", FORMS)
def test_cutout_fills_one_square_of_the_mean_colour_within_the_image(form: str) -> None:
    images = torch.full((200, 32, 32, 3), 7, dtype=torch.uint8)
    out = augmented(form, images, crop_p=0.0, flip_p=0.0, cutout_p=1.0)
    square = (out != 7).all(3)
    assert (square.sum((1, 2)) == 64).all()
    assert torch.equal(out[square].unique(dim=0), torch.tensor([FILL], dtype=torch.uint8))
    for image in square:
        rows, columns = image.any(1).nonzero(), image.any(0).nonzero()
        assert len(rows) == len(columns) == 8
    # Every border is reached: the square may lie anywhere inside.
    assert square[:, 0].any()
    assert square[:, :, 31].any()


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("tensor", {"crop_p": 0.7, "flip_p": 0.5}),
        ("albumentations", {"crop_p": 0.7, "flip_p": 0.5}),
        ("tensor", {**OFF, "translate": 4}),
        ("tensor", {**OFF, "flip": "alternating"}),
        ("tensor", {**OFF, "cutout_p": 1.0, "cutout_size": 12}),
    ],
    ids=["tensor", "albumentations", "translation", "alternating flip", "cutout"],
)
def test_an_images_draw_depends_on_seed_epoch_and_index_alone(
    form: str, kind: dict[str, Any]
) -> None:
    images, rows = random_images(60).images, torch.arange(60)
    settings = config(form, **kind)
    augment, other = (make_augment(settings.model_copy(update={"seed": s})) for s in (1, 2))
    whole, order = augment(images.clone(), rows, 3), rows.flip(0)
    assert torch.equal(augment(images[order], order, 3), whole[order])
    assert torch.equal(augment(images[5:6].clone(), torch.tensor([5]), 3), whole[5:6])
    assert not torch.equal(augment(images.clone(), rows, 4), whole)
    assert not torch.equal(augment(images.clone(), rows + 50, 3), whole)
    assert not torch.equal(other(images.clone(), rows, 3), whole)


def test_a_resized_crop_equals_opencvs_bilinear_enlargement() -> None:
    images = random_images(60).images
    rng = np.random.default_rng(0)
    sides = rng.integers(1, 33, (60, 2))
    places = rng.integers(0, 33 - sides)
    boxes = torch.tensor(np.concatenate([places, sides], 1), dtype=torch.float32)
    ours = resized_crop(images, boxes)
    for image, (top, left, height, width), got in zip(
        images.numpy(), boxes.int().tolist(), ours.numpy(), strict=True
    ):
        crop = image[top : top + height, left : left + width]
        expected = cv2.resize(crop, (32, 32), interpolation=cv2.INTER_LINEAR)
        # OpenCV rounds in fixed point; one grey level apart is the same.
        assert np.abs(got.astype(int) - expected.astype(int)).max() <= 1


def test_a_crop_of_the_whole_image_is_the_image() -> None:
    images = random_images(3).images
    boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0]] * 3)
    assert torch.equal(resized_crop(images, boxes), images)


def test_the_hash_gives_even_and_independent_numbers() -> None:
    u = uniforms(1, 1, torch.arange(20_000), 6)
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.stack([torch.histc(u[:, i], 20, 0, 1) for i in range(6)])
    chi_square = ((counts - 1000) ** 2 / 1000).sum(1)
    assert (chi_square < 50).all()  # 19 degrees of freedom; above 50 once in 7,000
    assert (torch.corrcoef(u.T) - torch.eye(6)).abs().max() < 0.03
    following = torch.corrcoef(torch.stack([u[:-1, 0], u[1:, 0]]))[0, 1]
    assert following.abs() < 0.03


def test_splitmix_gives_its_published_numbers() -> None:
    # The first outputs of SplitMix64 with state 1234567, as its authors' C program prints them.
    state, found = torch.tensor(1234567), []
    for _ in range(3):
        state = state + GOLDEN
        found.append(int(mix(state)) % 2**64)
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(
    st.integers(0, 2**31 - 1),
    st.integers(1, 10**6),
    st.integers(16, 96),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    st.tuples(st.floats(0.1, 4), st.floats(0.1, 4)),
)
def test_boxes_and_squares_always_lie_within_the_image(
    seed: int, epoch: int, size: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    settings = TensorConfig(
        crop_scale=(min(scale), max(scale)), crop_ratio=(min(ratio), max(ratio))
    )
    draws = Draws.of(seed, epoch, torch.arange(64))
    boxes = RandomResizedCrop(1.0, settings.crop_scale, settings.crop_ratio).boxes(draws, size)
    squares = Cutout(1.0, settings.cutout_size, FILL).corners(draws, size)
    top, left, height, width = boxes.unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (height >= 1).all()
    assert (width >= 1).all()
    assert (top + height <= size).all()
    assert (left + width <= size).all()
    assert (squares >= 0).all()
    assert (squares + settings.cutout_size <= size).all()


TRANSFORMS = [
    RandomResizedCrop(0.4, (0.08, 1.0), (0.75, 4 / 3)),
    HorizontalFlip(0.4),
    AlternatingFlip(),
    Translation(1.0, 3),
    Cutout(0.5, 8, FILL),
]


@pytest.mark.parametrize("size", [32, 30])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: t.name)
def test_transforming_all_images_gives_the_same_as_transforming_the_chosen_ones(
    transform: Transform, size: int
) -> None:
    images, draws = random_images(200, size=size).images, Draws.of(1, 2, torch.arange(200))
    chosen = torch.arange(200) % 3 == 0
    some = transform.to_rows(images.clone(), draws, chosen)
    assert torch.equal(some, transform.to_all(images, draws, chosen))
    assert torch.equal(some[~chosen], images[~chosen])
    assert not torch.equal(some[chosen], images[chosen])


def test_nothing_waits_for_a_device_other_than_the_cpu() -> None:
    # Tensors on "meta" have no values: counting or reading any raises an error.
    settings = TensorConfig(flip="alternating", translate=2)
    images, indices = torch.empty(8, 32, 32, 3, dtype=torch.uint8), torch.arange(8)
    for transforms in (TRANSFORMS, transforms_in_use(settings, FILL)):
        augment = TensorAugment(transforms, 1)
        out = augment(images.to("meta"), indices.to("meta"), 1)
        assert (out.shape, out.dtype) == (images.shape, torch.uint8)
    with pytest.raises(NotImplementedError):
        images.to("meta").nonzero()


def test_the_square_may_be_as_large_as_the_image() -> None:
    out = augmented("tensor", random_images(4).images, cutout_size=32, cutout_p=1.0)
    assert len(out.reshape(-1, 3).unique(dim=0)) == 1


def test_an_alternating_flip_shows_each_image_either_way_every_other_epoch() -> None:
    images = random_images(200).images
    changes = {**OFF, "flip": "alternating"}
    epochs = [augmented("tensor", images, epoch, **changes) for epoch in (1, 2, 3)]
    flipped = [(epoch == images.flip(2)).flatten(1).all(1) for epoch in epochs]
    plain = [(epoch == images).flatten(1).all(1) for epoch in epochs]
    assert all((a ^ b).all() for a, b in zip(flipped, plain, strict=True))
    assert torch.equal(flipped[0], plain[1])
    assert torch.equal(flipped[0], flipped[2])
    assert 60 < int(flipped[0].sum()) < 140


@given(st.integers(1, 5), st.integers(0, 2**31))
def test_translation_equals_torchs_reflected_padding_and_a_slice(limit: int, seed: int) -> None:
    images = random_images(6, size=16, seed=seed % 1000).images
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.randint(0, 2 * limit + 1, (6, 2), generator=generator)
    padded = F.pad(images.permute(0, 3, 1, 2).float(), [limit] * 4, mode="reflect")
    for image, (down, right), got in zip(
        padded, offsets.tolist(), translate(images, offsets, limit), strict=True
    ):
        expected = image[:, down : down + 16, right : right + 16].permute(1, 2, 0)
        assert torch.equal(got.float(), expected)


def test_translations_are_uniform_and_drawn_anew_in_each_epoch() -> None:
    transform = Translation(1.0, 2)
    first, second = (transform.offsets(Draws.of(1, e, torch.arange(25_000))) for e in (1, 2))
    counts = torch.bincount(first[:, 0] * 5 + first[:, 1], minlength=25)
    assert ((counts - 1000) ** 2 / 1000).sum() < 60  # 24 degrees of freedom; once in 10,000
    assert not torch.equal(first, second)


def test_the_copyleft_successor_of_albumentations_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.1")
    with pytest.raises(ConfigError, match="albumentationsx"):
        make_augment(config("albumentations"))
