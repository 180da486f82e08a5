"""What is known of pictures before they are decoded, and which recipe is taken for them."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Answer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cifar_cli import load_config
from cifar_cli.config import DataConfig
from cifar_cli.config.fitting import Facts, fitted_settings
from cifar_cli.config.recipe_files import recipe_names
from cifar_cli.data.facts import survey
from cifar_cli.data.sources.cifar10 import CLASS_NAMES

Cli = Callable[..., Answer]
Make = Callable[..., Path]


def facts_of(source: Path, **settings: object) -> Facts | None:
    return survey(DataConfig(source=str(source), **settings))  # type: ignore[arg-type]


def test_images_classes_and_median_side_are_counted(class_folders: Make) -> None:
    root = class_folders(size=(48, 90))
    Image.new("RGB", (500, 500)).save(root / "train/cat/large.png")
    assert facts_of(root) == Facts(13, 6, 3, 48)


def test_images_that_will_be_held_out_do_not_count(class_folders: Make) -> None:
    root = class_folders(counts=(10, 5))
    assert facts_of(root, val_fraction=0.4) == Facts(18, 12, 3, 32)
    shutil.rmtree(root / "test")
    assert facts_of(root) == Facts(24, 6, 3, 32)
    assert facts_of(root, limit_train=7) == Facts(7, 6, 3, 32)


def test_an_archive_has_the_facts_of_its_folder(class_folders: Make, tmp_path: Path) -> None:
    root = class_folders()
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(root.rglob("*.png")):
            archive.write(path, path.relative_to(root))
    assert facts_of(tmp_path / "photos.zip") == facts_of(root) == Facts(12, 6, 3, 32)


def test_a_table_has_the_facts_of_its_files(class_folders: Make) -> None:
    root = class_folders()
    files = sorted((root / "train").rglob("*.png"))
    table = root / "labels.csv"
    table.write_text("".join(f"{p.relative_to(root)},{p.parent.name}\n" for p in files))
    assert facts_of(table) == Facts(10, 2, 3, 32)


def test_unreadable_images_have_no_side(class_folders: Make) -> None:
    root = class_folders()
    for path in root.rglob("*.png"):
        path.write_bytes(b"no picture")
    assert facts_of(root) == Facts(12, 6, 3, None)


def test_classes_of_cifar10_are_not_the_users_own(class_folders: Make) -> None:
    root = class_folders(classes=CLASS_NAMES, counts=(1, 1))
    assert facts_of(root) is None
    assert load_config(data=root, env={}) == load_config("baseline", data=root, env={})
    (root / "train/truck").rename(root / "train/lorry")
    (root / "test/truck").rename(root / "test/lorry")
    assert facts_of(root) is not None


@pytest.mark.parametrize("source", ["cifar10", "shapes", "no/such/folder"])
def test_without_own_pictures_the_recipe_is_baseline(source: str) -> None:
    assert load_config(data=source, env={}) == load_config("baseline", data=source, env={})


def test_own_pictures_get_the_recipe_own_fitted_to_them(class_folders: Make) -> None:
    root = class_folders(counts=(20, 2), size=(40, 40))
    config = load_config(data=root, env={})
    assert config == load_config("own", data=root, env={})
    fitted = fitted_settings(Facts(60, 6, 3, 40))
    assert config.train.batch_size == fitted["train"]["batch_size"]
    assert config.train.epochs == fitted["train"]["epochs"]
    assert config.data.image_size == fitted["data"]["image_size"]


def test_what_the_user_sets_stands_above_what_is_fitted(
    class_folders: Make, tmp_path: Path
) -> None:
    root = class_folders()
    file = tmp_path / "mine.yaml"
    file.write_text("train: {epochs: 3}\n")
    config = load_config(
        config_file=file, overrides=["train.batch_size=5"], data=root,
        env={"CIFAR_RESNET_DATA__IMAGE_SIZE": "56"},
    )  # fmt: skip
    assert (config.train.epochs, config.train.batch_size) == (3, 5)
    assert config.data.image_size == 56


def test_epochs_follow_an_image_size_of_the_users(class_folders: Make) -> None:
    root = class_folders(counts=(300, 1))
    sizes = {n: load_config(settings={"data.image_size": n}, data=root, env={}) for n in (32, 128)}
    assert sizes[32].train.epochs > 2 * sizes[128].train.epochs
    assert sizes[128].data.image_size == 128


def test_a_recipe_that_extends_own_is_fitted_and_stands_above_it(
    class_folders: Make, tmp_path: Path
) -> None:
    root, file = class_folders(counts=(200, 2)), tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"extends": "own", "train": {"epochs": 2}}))
    config = load_config(file, data=root, env={})
    assert config.train.epochs == 2
    assert config.train.batch_size == load_config(data=root, env={}).train.batch_size


@given(
    st.integers(1, 10**7),
    st.integers(1, 10**6),
    st.integers(2, 5000),
    st.none() | st.integers(1, 60_000),
)
def test_fitted_settings_are_within_their_bounds(
    images: int, held_out: int, classes: int, side: int | None
) -> None:
    fitted = fitted_settings(Facts(images, held_out, classes, side))
    config = load_config("own", settings={
        f"{section}.{key}": value for section, inner in fitted.items()
        for key, value in inner.items()
    }, env={}, data="shapes")  # fmt: skip
    assert 32 <= config.data.image_size <= 128
    assert config.data.image_size % 8 == 0
    assert 10 <= config.train.epochs <= 200
    assert 16 <= config.train.batch_size <= 512


@given(st.integers(1, 10**6), st.integers(8, 4000))
def test_more_images_never_mean_larger_ones_or_smaller_batches(images: int, side: int) -> None:
    few, many = (fitted_settings(Facts(n, 100, 5, side)) for n in (images, 2 * images))
    assert many["data"]["image_size"] <= few["data"]["image_size"]
    assert many["train"]["batch_size"] >= few["train"]["batch_size"]


def test_the_start_says_which_recipe_was_taken_and_why(cli: Cli, class_folders: Make) -> None:
    root = class_folders(counts=(6, 2))
    answer = cli("summary", "--data", str(root))
    assert "Recipe own, since the pictures are your own" in answer.err
    assert "18 training images of 3 classes" in answer.err
    assert "--recipe" not in cli("summary", "--data", str(root), "--recipe", "own").err
    assert "Recipe" not in cli("summary", "--data", str(root), "--recipe", "baseline").err
    assert cli("summary", "--data", str(root), "--quiet").err == ""


def test_settings_that_own_has_not_lead_to_baseline(cli: Cli, class_folders: Make) -> None:
    root = class_folders()
    config = load_config(overrides=["model.width=8"], data=root, env={})
    assert config == load_config("baseline", overrides=["model.width=8"], data=root, env={})
    answer = cli("summary", "--data", str(root), "--set", "model.width=8")
    assert answer.code == 0
    assert "Recipe baseline, as these settings do not go with own" in answer.err
    assert "model.width has no effect with model.name speed_resnet" in answer.err
    answer = cli("summary", "--data", str(root), "--set", "model.breadth=8")
    assert (answer.code, answer.err.count("\n")) == (2, 1)


def test_a_run_with_own_pictures_keeps_its_numbers(
    cli: Cli, class_folders: Make, in_tmp: Path
) -> None:
    root = class_folders(counts=(8, 2))
    sets = ["--set", "model.widths=[8,8,8]", "--epochs", "2"]
    answer = cli("train", "--data", str(root), "--name", "mine", "--json", *sets)
    assert answer.code == 0, answer.err
    kept = yaml.safe_load((in_tmp / "runs/mine/config.yaml").read_text())
    assert kept["train"]["batch_size"] == load_config(data=root, env={}).train.batch_size
    assert isinstance(kept["data"]["mean"], list)
    # Fitting the recipe again comes to the same numbers.
    for recipe in ([], ["--recipe", "own", "--data", str(root), *sets]):
        answer = cli("train", "--resume", "--name", "mine", "--json", *recipe)
        assert json.loads(answer.out)["epochs_completed"] == 2, answer.err


def test_recipes_list_says_for_what_own_is(cli: Cli) -> None:
    rows = {row["name"]: row for row in cli("recipes", "list", "--json").json["recipes"]}
    assert set(rows) == set(recipe_names())
    assert rows["own"]["data"] == "your own"
