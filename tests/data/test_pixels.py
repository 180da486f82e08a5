"""Pictures as they are meant: upright, in their shape, and with the mean that they have."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import tiny_config
from PIL import Image, ImageOps

from cifar_cli import evaluate, train
from cifar_cli.config import Config
from cifar_cli.config.checking import build_complete, complete_tree
from cifar_cli.data.opening import channel_statistics, open_images
from cifar_cli.data.sources.decode import decode_image
from cifar_cli.data.sources.pixels import Rules
from cifar_cli.data.types import ImageSet
from cifar_cli.rundir import RunDir

Make = Callable[..., Path]
Pixels = npt.NDArray[np.uint8]


def noise(height: int, width: int, channels: int = 3) -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(pixels: Pixels, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_camera_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(noise(48, 32), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    expected = decode_image(encoded(np.asarray(upright)), Rules(16))
    found = decode_image(data, Rules(16))
    assert np.abs(found.pixels.astype(int) - expected.pixels.astype(int)).max() <= 1
    if kind == "JPEG":
        stored = decode_image(data, Rules(16, as_stored=True))
        assert np.array_equal(stored.pixels, expected.pixels) == (orientation == 1)


def test_damaged_metadata_spoils_no_pixels() -> None:
    data = encoded(noise(16, 16), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(decode_image(data, Rules(16)).pixels, noise(16, 16))


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_square_images_are_the_same_however_others_are_resized(resize: str) -> None:
    for side in (16, 40):
        with Image.open(io.BytesIO(data := encoded(noise(side, side)))) as image:
            plain = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))
        picture = decode_image(data, Rules(16, resize))
        assert np.array_equal(picture.pixels, plain)
        assert (picture.is_resized, picture.is_padded) == (side != 16, False)


@pytest.mark.parametrize("is_upright", [True, False])
def test_long_images_are_cropped_padded_or_squashed(is_upright: bool) -> None:
    """An image of three squares, of which the one in the middle is white."""
    strip = np.zeros((60, 20, 3), np.uint8)
    strip[20:40] = 255
    pixels = strip if is_upright else strip.transpose(1, 0, 2)
    found = {way: decode_image(encoded(pixels), Rules(30, way, (9, 8, 7)))
             for way in ("crop", "pad", "squash")}  # fmt: skip
    assert (found["crop"].pixels[2:-2, 2:-2] > 240).all()
    padded = found["pad"].pixels if is_upright else found["pad"].pixels.transpose(1, 0, 2)
    assert padded[15, [0, 9, 20, 29]].tolist() == [[9, 8, 7]] * 4
    assert (padded[[0, 15, 29], 15] == [[0], [255], [0]]).all()
    squashed = found["squash"].pixels if is_upright else found["squash"].pixels.swapaxes(0, 1)
    assert (squashed[[2, 15, 27]] == np.array([0, 255, 0])[:, None, None]).all()
    assert all(picture.is_long for picture in found.values())
    assert not decode_image(encoded(noise(30, 20)), Rules(16)).is_long


def test_transparent_edges_take_no_colour_from_hidden_pixels() -> None:
    """Half is opaque white, half is transparent with a hidden red."""
    pixels = np.full((40, 40, 4), 255, np.uint8)
    pixels[:, 20:] = (255, 0, 0, 0)
    picture = decode_image(encoded(pixels), Rules(16, colour=(255, 255, 255)))
    assert (picture.pixels == 255).all()
    assert picture.is_transparent


def test_the_cache_tells_rules_apart_and_colours_where_they_show(class_folders: Make) -> None:
    root = class_folders(size=(30, 60))
    shown = {}
    for resize in ("crop", "pad", "squash"):
        for mean in ((0.5, 0.5, 0.5), (0.1, 0.1, 0.1)):
            data = {"source": str(root), "resize": resize, "mean": mean}
            config = Config.model_validate({"data": data})
            first = open_images(config).dataset.train.images
            assert torch.equal(open_images(config).dataset.train.images, first)
            shown[resize, mean] = first.double().mean().item()
    assert len(set(shown.values())) == 4


def test_mean_and_deviation_are_those_of_the_training_images(class_folders: Make) -> None:
    images = torch.from_numpy(np.stack([noise(16, 16) for _ in range(3)]))
    mean, std = channel_statistics(ImageSet(images, torch.zeros(3), torch.arange(3)))
    scaled = images.double().reshape(-1, 3) / 255
    assert mean == pytest.approx(scaled.mean(0).tolist(), abs=1e-4)
    assert std == pytest.approx(scaled.std(0, correction=0).tolist(), abs=1e-4)
    root = class_folders(counts=(8, 4))
    clear = noise(32, 32, 4)
    Image.fromarray(clear).save(root / "train" / "cat" / "clear.png")
    auto = {"data__source": str(root), "data__mean": "auto", "data__std": "auto"}
    config = tiny_config(**auto)
    result = train(config, root.parent / "run")
    kept = RunDir(result.run_dir).read_config()
    assert kept.data.mean != "auto"
    assert kept.data.mean == open_images(config).config.data.mean
    # With the numbers, the same pixels come again: transparent ones too.
    report = evaluate(result.run_dir, split="train")
    assert report.num_images == len(open_images(kept).splits.train)
    assert not any("not the images" in note for note in evaluate(result.run_dir).predictions.notes)
    again = train(config.model_copy(update={"train": config.train.model_copy(
        update={"epochs": 3})}), result.run_dir, resume=True, allow_changes=True)  # fmt: skip
    assert again.epochs_completed == 3


@pytest.mark.parametrize("version", [1, 2, None])
def test_runs_of_earlier_versions_keep_the_pixels_that_they_had(version: int | None) -> None:
    tree = complete_tree(Config())
    for name in ("resize", "as_stored"):
        del tree["data"][name]
    tree |= {"schema_version": version}
    if version is None:
        del tree["schema_version"]
    config, _ = build_complete(tree)
    assert (config.data.resize, config.data.as_stored) == ("squash", True)
    config, _ = build_complete(complete_tree(Config()))
    assert (config.data.resize, config.data.as_stored) == ("crop", False)
