"""Layouts of own images: folders, archives and tables, and what is validated on in each."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Answer
from PIL import Image

from cifar_cli.config import DataConfig
from cifar_cli.data.sources.load import count_classes, load_dataset
from cifar_cli.data.splits import choose_splits
from cifar_cli.data.types import Dataset, SplitName
from cifar_cli.errors import DataError

Cli = Callable[..., Answer]
Make = Callable[..., Path]
Layout = Callable[[Path], Path]


def load(source: Path) -> Dataset:
    return load_dataset(DataConfig(source=str(source)))


def as_it_is(root: Path) -> Path:
    return root


def in_capitals(root: Path) -> Path:
    (root / "train").rename(root / "Train")
    (root / "test").rename(root / "TEST")
    return root


def nested(root: Path) -> Path:
    """Each image in folders of its own, below its class."""
    for path in list(root.rglob("*.png")):
        folder = path.parent / path.stem / "day 1"
        folder.mkdir(parents=True)
        path.rename(folder / path.name)
    return root


def wrapped(root: Path) -> Path:
    outer = root.parent / "outer"
    outer.mkdir()
    root.rename(outer / "photos")
    return outer


def zipped(root: Path, prefix: str = "", separator: str = "/") -> Path:
    path = root.parent / "photos.ZIP"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*.png"), reverse=True):
            name = file.relative_to(root).as_posix().replace("/", separator)
            archive.write(file, f"{prefix}{name}")
            archive.writestr(f"__MACOSX/{prefix}{name}", b"a fork")
    shutil.rmtree(root)
    return path


def tarred(root: Path, mode: str, ending: str, prefix: str = "") -> Path:
    path = root.parent / f"photos{ending}"
    with tarfile.open(path, f"w:{mode}") as archive:  # type: ignore[call-overload]
        for file in sorted(root.rglob("*.png"), reverse=True):
            archive.add(file, f"{prefix}{file.relative_to(root).as_posix()}")
    shutil.rmtree(root)
    return path


def table(root: Path, header: str = "") -> Path:
    rows = [
        f'"{f.relative_to(root.parent).as_posix()}",{f.parent.name},{f.parts[-3]}'
        for f in root.rglob("*.png")
    ]
    path = root.parent / "images.csv"
    path.write_text("\n".join([*([header] if header else []), *rows]) + "\n", encoding="utf-8")
    return path


LAYOUTS: dict[str, Layout] = {
    "train/ and test/": as_it_is,
    "in capitals": in_capitals,
    "nested": nested,
    "in one folder": wrapped,
    "zip": zipped,
    "zip with a top folder": lambda root: zipped(root, "photos/"),
    "zip of Windows": lambda root: zipped(root, "photos\\", "\\"),
    "tar": lambda root: tarred(root, "", ".tar"),
    "tar.gz": lambda root: tarred(root, "gz", ".tar.gz", "./"),
    "tgz": lambda root: tarred(root, "gz", ".tgz", "photos/"),
    "tar.xz": lambda root: tarred(root, "xz", ".tar.xz", "a/b/"),
    "tar.bz2": lambda root: tarred(root, "bz2", ".tar.bz2"),
    "CSV": table,
    "CSV with a header": lambda root: table(root, "\ufeffPath,Label,Split"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images(class_folders: Make, layout: str) -> None:
    expected = load(class_folders(name="plain"))
    source = LAYOUTS[layout](class_folders())
    before = sorted(source.parent.rglob("*"))
    for dataset in (load(source), load(source)):  # decoded, and from the cache
        assert dataset.class_names == expected.class_names
        assert set(dataset.splits) == {"train", "test"}
        for split, images in expected.splits.items():
            own = dataset.splits[split]
            assert torch.equal(own.images, images.images)
            assert torch.equal(own.labels, images.labels)
            assert own.keys is not None
            assert torch.equal(own.keys, images.keys)
            assert [name.rpartition("/")[2] for name in dataset.files[split]] == [
                name.rpartition("/")[2] for name in expected.files[split]
            ]
        assert dataset.notes[0] == "Found 12 training and 6 test images of 3 classes."
    assert count_classes(DataConfig(source=str(source))) == 3
    assert sorted(source.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
@pytest.mark.parametrize("has_test", [True, False])
def test_the_validation_split_validates_and_the_test_split_is_kept(
    class_folders: Make, name: str, has_test: bool
) -> None:
    root = class_folders(splits=("train", name))
    if has_test:
        shutil.copytree(root / name, root / "test")
        (root / "test" / "cat" / "0001.png").unlink()
    splits = choose_splits(load(root), DataConfig(), seed=1)
    assert (splits.val_from, splits.val_is_test) == ("val", False)
    assert (len(splits.train), len(splits.val)) == (12, 6)
    assert splits.file_names("val")[0] == f"{name}/cat/0000.png"
    assert len(splits.test or ()) == (5 if has_test else 0)
    assert len(splits.file_names("test")) == (5 if has_test else 0)


def only_train(root: Path) -> Path:
    shutil.rmtree(root / "test")
    return root


def flat(root: Path) -> Path:
    return only_train(root) / "train"


@pytest.mark.parametrize("layout", [only_train, flat])
def test_without_other_images_a_fifth_is_held_out_by_content(
    class_folders: Make, layout: Layout
) -> None:
    root = layout(class_folders(counts=(10, 1)))

    def held_out(seed: int) -> set[int]:
        splits = choose_splits(load(root), DataConfig(), seed)
        assert splits.val_from == "train"
        assert torch.bincount(splits.val.labels).tolist() == [2, 2, 2]
        assert splits.test is None
        assert splits.val.keys is not None
        assert not set(splits.val.keys.tolist()) & set(splits.train.keys.tolist())  # type: ignore[union-attr]
        return set(splits.val.keys.tolist())

    first = held_out(1)
    names = choose_splits(load(root), DataConfig(), 1).file_names("val")
    assert all((root / name).is_file() for name in names)
    for number, path in enumerate(sorted(root.rglob("*.png"))):  # other names, another order
        path.rename(path.with_name(f"{999 - number}.png"))
    assert held_out(2) == first


def test_a_share_that_is_asked_for_is_drawn_by_seed_and_leaves_both_splits(
    class_folders: Make,
) -> None:
    root = class_folders(counts=(10, 2))
    shutil.copytree(root / "test", root / "val")
    config = DataConfig(val_fraction=0.3)
    first, second = (choose_splits(load(root), config, seed) for seed in (1, 2))
    assert first.val_from == "train"
    assert len(first.val) == 9
    assert not torch.equal(first.val.indices, second.val.indices)
    assert len(first.test or ()) == 6


def test_the_start_says_what_was_found_and_what_is_validated_on(
    cli: Cli, class_folders: Make
) -> None:
    root = class_folders(counts=(10, 2))
    (root / "test").rename(root / "val")
    flags = ["--set", "model.width=4", "--set", "augment.form=tensor", "--epochs", "1"]
    answer = cli("train", "--data", root, "--batch-size", 8, *flags, "--name", "a")
    assert answer.code == 0, answer.err
    assert "Found 30 training and 6 validation images of 3 classes." in answer.err
    assert "Validating on the 6 images of the validation split." in answer.err
    answer = cli("evaluate", "a", "--split", "test")
    assert answer.code == 3
    assert "has no test split, only train and val" in answer.err
    assert cli("evaluate", "a", "--json", "--quiet").json["num_images"] == 6
    shutil.rmtree(root / "val")
    answer = cli("train", "--data", root / "train", "--batch-size", 8, *flags)
    assert answer.code == 0, answer.err
    assert "Found 30 training images of 3 classes." in answer.err
    assert "Validating on 6 images held out of 30 training images, of each class." in answer.err


def test_a_class_of_one_image_says_what_it_needs(class_folders: Make) -> None:
    root = only_train(class_folders())
    for path in sorted((root / "train" / "owl").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match=r"Class owl has one training image.*20% of the images"):
        choose_splits(load(root), DataConfig(), seed=1)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_names_of_files_follow_the_images(class_folders: Make, split: SplitName) -> None:
    root = class_folders(counts=(10, 4))
    (root / "train" / "cat" / "0003.png").write_bytes(b"")
    shutil.copytree(root / "test", root / "val")
    config = DataConfig(source=str(root), skip_bad_images=True, limit_train=7, limit_val=5)
    splits = choose_splits(load_dataset(config), config, seed=3)
    images = {"train": splits.train, "val": splits.val, "test": splits.test}[split]
    names = splits.file_names(split)
    assert images is not None
    assert len(names) == len(images)
    for name, pixels in zip(names, images.images, strict=True):
        assert np.array_equal(np.asarray(Image.open(root / name)), pixels.numpy())
