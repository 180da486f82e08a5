"""One list of formats decides what a `data.source` is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cifar_cli.config import DataConfig
from cifar_cli.data.sources import load
from cifar_cli.data.sources.format import Format, Request
from cifar_cli.data.sources.load import FORMATS, count_classes, load_dataset, needs_download
from cifar_cli.data.sources.shapes import load_shapes


def test_a_new_format_is_one_line_in_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = replace(load_shapes(20, 10), class_names=("dark", "light"))
    table = Format(
        "a list of images",
        load=lambda request: images,
        count_classes=lambda request: 2,
        recognises=lambda path: path.suffix == ".json",
    )
    monkeypatch.setattr(load, "FORMATS", (table, *FORMATS))
    (tmp_path / "images.json").touch()
    config = DataConfig(source=str(tmp_path / "images.json"))
    assert load_dataset(config) is images
    assert (count_classes(config), needs_download(config)) == (2, False)


def test_each_layout_is_read_by_one_format(tmp_path: Path) -> None:
    (tmp_path / "batches" / "cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / "folders" / "train").mkdir(parents=True)
    (tmp_path / "archive.tar.gz").touch()
    (tmp_path / "images.csv").touch()
    (tmp_path / "cifar-10-python.tar.gz").touch()
    expected = {
        "cifar-10-python.tar.gz": "CIFAR-10",
        "archive.tar.gz": "an archive of class folders",
        "batches": "CIFAR-10",
        "folders": "class folders",
        "images.csv": "a CSV file of paths and labels",
    }
    for name, title in expected.items():
        request = Request(DataConfig(source=str(tmp_path / name)))
        assert next(f.title for f in FORMATS if f.matches(request)) == title


def test_cifar10_needs_a_download_until_it_is_in_its_folder(tmp_path: Path) -> None:
    config = DataConfig(dir=str(tmp_path))
    assert needs_download(config)
    (tmp_path / "cifar-10-python.tar.gz").touch()
    assert not needs_download(config)
