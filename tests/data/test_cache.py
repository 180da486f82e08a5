"""The cache of decoded images: whole or not there, and never trusted when damaged."""

from __future__ import annotations

import io
import json
import os
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_images
from processes import new_process

from cifar_cli.data.cache import Expected, cached, home
from cifar_cli.data.types import BadImage, Dataset

EXPECTED = Expected(("a", "b"), 32, {"train": 6, "test": 2})


def dataset(seed: int = 0) -> Dataset:
    return Dataset("noise", ("a", "b"), random_images(6, classes=2, seed=seed), random_images(2))


def never() -> Dataset:
    raise AssertionError("decoded again")


def test_what_was_stored_comes_back_equal(tmp_path: Path) -> None:
    first = cached(tmp_path, "key", EXPECTED, dataset)
    again = cached(tmp_path, "key", EXPECTED, never)
    assert again.class_names == first.class_names
    assert again.name == first.name
    for one, two in ((first.train, again.train), (first.test, again.test)):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.labels, two.labels)
        assert torch.equal(one.indices, two.indices)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "rubbish"])
def test_a_damaged_file_is_decoded_anew(tmp_path: Path, damage: str) -> None:
    expected = cached(tmp_path, "key", EXPECTED, dataset)
    (path,) = (tmp_path / "decoded").glob("*.npz")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    changed = {
        "flip": data,
        "truncate": data[: len(data) // 2],
        "empty": b"",
        "rubbish": b"rubbish" * 100,
    }[damage]
    path.write_bytes(changed)
    assert torch.equal(
        cached(tmp_path, "key", EXPECTED, dataset).train.images, expected.train.images
    )
    assert torch.equal(cached(tmp_path, "key", EXPECTED, never).train.images, expected.train.images)


def _parts() -> dict[str, Any]:
    """What a cache file holds, by array."""
    found = dataset()
    about = {"name": "noise", "class_names": ["a", "b"], "notes": ["a note"], "skipped": []}
    return {
        "about": about,
        "train_images": found.train.images.numpy(),
        "train_labels": found.train.labels.numpy(),
        "test_images": found.test.images.numpy(),
        "test_labels": found.test.labels.numpy(),
    }


def _npz(parts: dict[str, Any], **options: Any) -> bytes:
    """A cache file with a right checksum: arrays, values as JSON, or bytes as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, part in parts.items():
            if name == "about" and not isinstance(part, bytes | np.ndarray):
                part = np.frombuffer(json.dumps(part).encode(), np.uint8)
            member = io.BytesIO()
            if isinstance(part, bytes):
                member.write(part)
            else:
                np.save(member, part)
            archive.writestr(f"{name}.npy", member.getvalue())
    return buffer.getvalue()


def _header(shape: str, kind: str = "|u1") -> bytes:
    """An array of which there is a header alone."""
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def _unfit_files() -> dict[str, bytes]:
    parts = _parts()
    images, labels, about = parts["train_images"], parts["train_labels"], parts["about"]
    deep = "[" * 100_000
    changes: dict[str, dict[str, Any]] = {
        "a label too high": {"train_labels": labels + 1},
        "a label below zero": {"test_labels": parts["test_labels"] - 1},
        "labels of another type": {"train_labels": labels.astype(np.int32)},
        "labels of the other byte order": {"train_labels": labels.astype(">i8")},
        "labels that are fractions": {"train_labels": labels.astype(np.float64)},
        "labels in a square": {"train_labels": labels.reshape(2, 3)},
        "fewer labels than images": {"train_labels": labels[:5]},
        "no labels": {"train_labels": labels[:0]},
        "images of another type": {"train_images": images.astype(np.float32)},
        "images of another size": {"train_images": images[:, :16, :16]},
        "images channel first": {"train_images": images.transpose(0, 3, 1, 2)},
        "images in the other order": {"train_images": np.asfortranarray(images)},
        "fewer images than labels": {"test_images": parts["test_images"][:1]},
        "fewer of both": {"train_images": images[:4], "train_labels": labels[:4]},
        "no images": {"train_images": images[:0], "train_labels": labels[:0]},
        "one number": {"train_images": np.uint8(1)},
        "objects": {"train_labels": _header("(6,)", "|O")},
        "a header of ten billion images": {"train_images": _header("(10**10, 32, 32, 3)")},
        "ten billion images": {"train_images": _header("(10000000000, 32, 32, 3)")},
        "ten billion labels": {"train_labels": _header("(10000000000,)", "<i8")},
        "a negative shape": {"train_images": _header("(-6, 32, 32, 3)")},
        "a nested header": {"train_images": _header("(" * 5000 + ")" * 5000)},
        "no magic": {"train_images": b"no array at all"},
        "a later version": {"train_images": b"\x93NUMPY\x09\x00" + bytes(100)},
        "no classes": {"about": about | {"class_names": []}},
        "classes that are none": {"about": about | {"class_names": None}},
        "other classes": {"about": about | {"class_names": ["a", "c"]}},
        "classes that are numbers": {"about": about | {"class_names": [1, 2]}},
        "a name that is none": {"about": about | {"name": None}},
        "notes that are none": {"about": about | {"notes": "notes"}},
        "skipped that is none": {"about": about | {"skipped": 7}},
        "skipped of two words": {"about": about | {"skipped": [["train", "x"]]}},
        "skipped that does not add up": {"about": about | {"skipped": [["train", "x", "y"]]}},
        "a count that is none": {"about": about | {"composited": "7"}},
        "nothing about it": {"about": {}},
        "a list about it": {"about": []},
        "deep JSON": {"about": np.frombuffer(deep.encode(), np.uint8)},
        "no JSON": {"about": np.frombuffer(b"\xff{", np.uint8)},
        "a number of 5,000 digits": {"about": np.frombuffer(b"9" * 5000, np.uint8)},
    }
    files = {name: _npz(parts | change) for name, change in changes.items()}
    files |= {f"without {name}": _npz({n: parts[n] for n in parts if n != name}) for name in parts}
    files["compressed"] = _npz(parts, compression=zipfile.ZIP_DEFLATED)
    files["a bomb"] = _npz(
        parts | {"train_images": np.zeros((6, 3000, 3000, 3), np.uint8)},
        compression=zipfile.ZIP_DEFLATED,
    )
    return files


@pytest.mark.fault(86)
def test_content_that_does_not_fit_is_decoded_again_though_its_checksum_is_right(
    tmp_path: Path,
) -> None:
    path = tmp_path / "decoded" / "key-v2.npz"
    path.parent.mkdir()
    path.write_bytes(_npz(_parts()))
    fits = cached(tmp_path, "key", EXPECTED, never)
    assert fits.notes == ("a note",)
    for name, content in _unfit_files().items():
        path.write_bytes(content)
        decoded = []

        def decode(into: list[int] = decoded) -> Dataset:
            into.append(1)
            return dataset()

        assert torch.equal(
            cached(tmp_path, "key", EXPECTED, decode).train.images, fits.train.images
        )
        assert decoded, name
        cached(tmp_path, "key", EXPECTED, never)  # which is good again


def test_fewer_images_fit_where_their_number_is_not_known(tmp_path: Path) -> None:
    loose = Expected(("a", "b"), 32, {"train": 50, "test": 20}, exactly=False)
    cached(tmp_path, "key", loose, dataset)
    assert len(cached(tmp_path, "key", loose, never).train) == 6
    fewer = Expected(("a", "b"), 32, {"train": 5, "test": 20}, exactly=False)
    with pytest.raises(AssertionError, match="decoded again"):
        cached(tmp_path, "key", fewer, never)


def test_what_was_skipped_comes_back_too(tmp_path: Path) -> None:
    bad = (BadImage("train", "train/a/x.png", "the file is empty"),)
    found = Dataset("noise", ("a", "b"), random_images(5, classes=2), random_images(2), (), bad)
    cached(tmp_path, "key", EXPECTED, lambda: found)
    assert cached(tmp_path, "key", EXPECTED, never).skipped == bad


@pytest.mark.parametrize("kind", ["fifo", "device", "link", "folder", "holes"])
@pytest.mark.fault(66)
def test_what_is_in_the_place_of_a_cache_file_neither_holds_up_nor_is_lost(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "decoded" / "key-v2.npz"
    path.parent.mkdir()
    (tmp_path / "victim").write_text("precious")
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "holes":
            with path.open("wb") as file:
                file.truncate(2**40)
        case _:
            path.symlink_to("/dev/zero" if kind == "device" else tmp_path / "victim")
    before = path.lstat().st_mode
    for _ in range(2):
        found = cached(tmp_path, "key", EXPECTED, dataset)
        assert torch.equal(found.train.images, dataset().train.images)
    if kind == "holes":  # a regular file under the program's own name, which is a cache again
        cached(tmp_path, "key", EXPECTED, never)
    else:
        assert path.lstat().st_mode == before
    assert (tmp_path / "victim").read_text() == "precious"


def test_what_a_killed_writer_left_is_cleared_away_a_day_later(tmp_path: Path) -> None:
    folder = tmp_path / "decoded"
    folder.mkdir()
    old, new = (folder / f".x-v2.npz.{token * 8}.tmp" for token in ("ab", "cd"))
    theirs = folder / ".mine.2020.tmp"
    for path in (old, new, theirs):
        path.write_text("half")
    for path in (old, theirs):
        os.utime(path, (0, 0))
    cached(tmp_path, "key", EXPECTED, dataset)
    assert [path.exists() for path in (old, new, theirs)] == [False, True, True]


@pytest.mark.fault(62)
def test_containers_with_equal_process_numbers_share_a_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    meet = threading.Barrier(4)

    def decode() -> Dataset:
        meet.wait(30)
        return dataset()

    faults: list[BaseException] = []

    def store() -> None:
        try:
            cached(tmp_path, "key", EXPECTED, decode)
        except BaseException as error:
            faults.append(error)

    for _ in range(5):
        threads = [threading.Thread(target=store) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        assert [p.name for p in (tmp_path / "decoded").iterdir()] == ["key-v2.npz"]
        cached(tmp_path, "key", EXPECTED, never)
        (tmp_path / "decoded" / "key-v2.npz").unlink()


def test_an_error_while_decoding_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        cached(tmp_path, "key", EXPECTED, never)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def _store(folder: str) -> None:
    cached(Path(folder), "key", EXPECTED, dataset)


@pytest.mark.fault(62)
def test_processes_that_write_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    workers = [new_process(_store, str(tmp_path)) for _ in range(3)]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert [p.name for p in (tmp_path / "decoded").iterdir()] == ["key-v2.npz"]
    cached(tmp_path, "key", EXPECTED, never)


def test_the_folder_is_the_options_then_the_variables_then_the_platforms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CIFAR_RESNET_HOME", str(tmp_path / "home"))
    assert home(str(tmp_path / "mine")) == tmp_path / "mine"
    assert home(None) == tmp_path / "home"
    monkeypatch.delenv("CIFAR_RESNET_HOME")
    assert home(None).name == "cifar-resnet"
