"""Faults of classes and of numbers of images, through the real command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY_FLAGS, Answer, rows, tree

FLAGS = [*TINY_FLAGS, "--set", "runtime.threads=1"]
Cli = Callable[..., Answer]
Make = Callable[..., Path]


def lose(*paths: str) -> Callable[[Path], None]:
    """Remove folders."""

    def damage(root: Path) -> None:
        for path in paths:
            shutil.rmtree(root / path)

    return damage


def empty(*paths: str) -> Callable[[Path], None]:
    """Remove what is in folders."""

    def damage(root: Path) -> None:
        for path in paths:
            for image in (root / path).iterdir():
                image.unlink()

    return damage


@pytest.mark.fault(43)
@pytest.mark.parametrize("command", ["train", "summary"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lose("test/owl"), ["only in train/: owl."]),
        (lose("train/owl"), ["only in test/: owl."]),
        (lose("train/owl", "test/cat"), ["only in train/: cat;", "only in test/: owl."]),
        (empty("train/owl"), ["no images that can be read in train/owl."]),
        (empty("test/owl"), ["no images that can be read in test/owl."]),
        (empty("train/owl", "test/owl"), ["read in train/owl, test/owl."]),
        (lose("train/owl", "train/dog", "test/owl", "test/dog"), ["only one class, cat"]),
        (lose("test/cat", "test/dog", "test/owl"), ["test holds no readable images"]),
        (empty("train/cat", "train/dog", "train/owl"), ["train holds no readable images"]),
        (lose("train"), ["has a test/ folder but no train/ folder", "train/<class>/"]),
        (lose("train", "test"), ["holds no images in class folders", "Expected train/<class>/"]),
        (empty("train/cat", "train/dog", "train/owl", "test/cat"), ["no readable images"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "damage",
)
def test_classes_that_differ_are_shown(
    cli: Cli,
    in_tmp: Path,
    class_folders: Make,
    command: str,
    damage: Callable[[Path], None],
    words: list[str],
) -> None:
    root = class_folders()
    damage(root)
    before = tree(in_tmp)
    answer = cli(command, *FLAGS, "--data", root)
    assert answer.code == 3
    assert answer.err.count("\n") == 1
    for word in words:
        assert word in answer.err
    assert tree(in_tmp) == before


@pytest.mark.fault(44)
@pytest.mark.parametrize(
    ("form", "images", "batch", "size"),
    [
        ("tensor", 5, 32, 32),
        ("tensor", 33, 32, 32),
        ("tensor", 1, 32, 32),
        ("tensor", 1, 1, 16),
        ("tensor", 17, 16, 16),
        ("albumentations", 1, 32, 32),
        ("albumentations", 3, 2, 16),
    ],
)
def test_fewer_images_than_a_batch_and_a_last_batch_of_one_train(
    cli: Cli, form: str, images: int, batch: int, size: int
) -> None:
    shape = ["--set", f"data.image_size={size}", "--set", "augment.cutout_size=4"]
    counts = ["--limit-train", images, "--limit-val", 1, "--batch-size", batch]
    answer = cli("train", *FLAGS, *shape, *counts, "--set", f"augment.form={form}", "--name", "a")
    assert answer.code == 0, answer.err
    assert len(rows(Path("runs/a/metrics.csv"))) == 2
    evaluated = cli("evaluate", "a", "--json", "--quiet")
    assert evaluated.json["num_images"] == 1
