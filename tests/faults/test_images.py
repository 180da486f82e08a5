"""Faults of images in class folders, through the real command line."""

from __future__ import annotations

import ast
import io
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_FLAGS, Answer, rows, tree
from PIL import EpsImagePlugin, Image, UnidentifiedImageError

import cifar_cli
from cifar_cli.config import DataConfig
from cifar_cli.data.sources.decode import EXTENSIONS, FORMATS, NoImageError, decode_image
from cifar_cli.data.sources.folder import list_folders
from cifar_cli.data.sources.listing import Listing
from cifar_cli.data.sources.load import load_dataset
from cifar_cli.data.sources.pixels import Rules
from cifar_cli.errors import DataError

FLAGS = [*TINY_FLAGS, "--set", "runtime.threads=1"]
Cli = Callable[..., Answer]
Make = Callable[..., Path]
TRAIN = ["train", *FLAGS, "--epochs", "1"]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def raw_png(width: int, height: int, depth: int, colour: int, compressed: bytes) -> bytes:
    """A PNG from its parts, as no writer at hand makes it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", compressed), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def commands(root: Path, trained: str) -> dict[str, list[object]]:
    """Every command that reads images, by name."""
    data = [*FLAGS, "--data", root]
    return {
        "train": [*TRAIN, "--data", root, "--name", "b"],
        "find-lr": ["find-lr", *data, "--num-iter", "20", "--set", "train.batch_size=4"],
        "preview-augs": ["preview-augs", *data, "--n", "2"],
        "evaluate": ["evaluate", trained, "--data", root, "--device", "cpu"],
        "misclassified": ["misclassified", trained, "--data", root, "--device", "cpu"],
    }


# --- what is no image -----------------------------------------------------------------------------


@pytest.mark.fault(39)
def test_what_is_no_image_is_skipped_and_counted_once_by_every_command(
    cli: Cli, class_folders: Make
) -> None:
    root = class_folders()
    assert cli(*TRAIN, "--data", root, "--name", "clean").code == 0
    clean = rows(Path("runs/clean/metrics.csv"))
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / ".ipynb_checkpoints" / "0000.png").write_bytes(b"no image")
    (root / "test" / "cat" / "more").mkdir()
    for name in ("._0000.png", "Thumbs.db", "notes.txt"):
        (root / "train" / "cat" / name).write_bytes(b"no image")
    (root / "test" / "README").write_text("no class")
    remark = (
        "Skipped 4 files and 1 folder that are not images: "
        "._0000.png, .ipynb_checkpoints, README, Thumbs.db, notes.txt."
    )
    for name, arguments in commands(root, "clean").items():
        answer = cli(*arguments)
        assert answer.code in (0, 5), answer.err  # find-lr may see no fall of the loss
        assert answer.err.splitlines().count(remark) == 1, name
    found = rows(Path("runs/b/metrics.csv"))
    assert [r["val_loss"] for r in found] == [r["val_loss"] for r in clean]


def spoil(root: Path, count: int) -> list[str]:
    """Damage `count` images in five ways; their paths below the root, in order."""
    good = png(Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)))
    ways = [b"", good[:-700], b"<html>no image</html>", good[:40], good[:200] + bytes(900)]
    images = [
        path
        for split in ("train", "test")
        for path in sorted((root / split).rglob("*.png"))
        if path.name != "0000.png"  # so that something is left of every class
    ]
    chosen = images[:: len(images) // count][:count]
    for number, path in enumerate(chosen):
        path.write_bytes(ways[number % len(ways)])
    return [path.relative_to(root).as_posix() for path in chosen]


@pytest.mark.fault(40)
def test_all_bad_images_are_listed_before_any_work_by_every_command(
    cli: Cli, in_tmp: Path, class_folders: Make
) -> None:
    assert cli(*TRAIN, "--data", class_folders(name="good"), "--name", "a").code == 0
    root = class_folders(counts=(8, 4))
    bad = spoil(root, 12)
    before = tree(in_tmp)
    for name, arguments in commands(root, "a").items():
        answer = cli(*arguments)
        assert answer.code == 3, name
        assert answer.out == ""
        assert answer.err.startswith("Error: 12 of 36 images cannot be read: ")
        assert answer.err.count("\n") == 1
        assert [path for path in bad if path in answer.err] == bad[:10]
        assert ", and 2 more. " in answer.err
        assert f"{bad[0]} (the file is empty)" in answer.err
        assert "(it is not an image in PNG, JPEG, BMP, GIF, TIFF, WEBP, PPM" in answer.err
        assert "--skip-bad-images" in answer.err
        assert tree(in_tmp) == before
    answer = cli(*commands(root, "a")["evaluate"], "--skip-bad-images", "--json")
    assert answer.json["num_images"] == len(list((root / "test").rglob("*.png"))) - sum(
        path.startswith("test/") for path in bad
    )


@pytest.mark.fault(40)
def test_skipping_bad_images_gives_the_run_without_them_and_a_record(
    cli: Cli, in_tmp: Path, class_folders: Make
) -> None:
    root = class_folders(counts=(8, 4))
    bad = spoil(root, 4)
    # The first run decodes, the second one finds the decoded images.
    for name in ("decoded", "cached"):
        answer = cli(*TRAIN, "--data", root, "--skip-bad-images", "--name", name)
        assert answer.code == 0, answer.err
        assert answer.err.count("Skipped 4 images that cannot be read: ") == 1
        record = rows(in_tmp / "runs" / name / "skipped_images.csv")
        assert [row["path"] for row in record] == bad
        assert [row["split"] for row in record] == [row["path"].split("/")[0] for row in record]
        assert all(row["reason"] for row in record)
    # Another start without the option is not given what an earlier one skipped.
    assert cli(*TRAIN, "--data", root).code == 3
    # The other commands may be told as well, and a run knows what it was told.
    others = commands(root, "cached")
    for arguments in ([*others["preview-augs"], "--skip-bad-images"], others["misclassified"]):
        answer = cli(*arguments)
        assert answer.code == 0, answer.err
        assert answer.err.count("Skipped 4 images") == 1
    for path in bad:
        (root / path).unlink()
    answer = cli(*TRAIN, "--data", root, "--name", "without")
    assert answer.code == 0, answer.err
    assert not (in_tmp / "runs/without/skipped_images.csv").exists()
    figures = [
        [(r["train_loss"], r["val_loss"]) for r in rows(in_tmp / "runs" / n / "metrics.csv")]
        for n in ("decoded", "cached", "without")
    ]
    assert figures[0] == figures[1] == figures[2]


@pytest.mark.fault(40)
def test_a_class_of_bad_images_alone_cannot_be_skipped(cli: Cli, class_folders: Make) -> None:
    root = class_folders()
    for path in (root / "test" / "owl").iterdir():
        path.write_bytes(b"")
    answer = cli(*TRAIN, "--data", root, "--skip-bad-images")
    assert answer.code == 3
    assert "no images that can be read in test/owl" in answer.err


@pytest.mark.fault(40)
def test_a_link_that_leads_nowhere_is_named(cli: Cli, class_folders: Make) -> None:
    root = class_folders()
    (root / "train" / "cat" / "gone.png").symlink_to("nowhere.png")
    answer = cli(*TRAIN, "--data", root)
    assert answer.code == 3
    assert "gone.png: No such file or directory" in answer.err


# --- kinds of images ------------------------------------------------------------------------------

FLAT16 = np.full((32, 32), 0xABCD, np.uint16)
DEEP_ROWS = (b"\0" + struct.pack(">HHH", 0x12FF, 0x8000, 0xFFFF) * 32) * 32
PALETTE = Image.new("P", (32, 32), 1)
PALETTE.putpalette([1, 2, 3, 40, 50, 60])
CLEAR = PALETTE.copy()
CLEAR.info["transparency"] = 1
KINDS: dict[str, tuple[str, Image.Image | bytes, tuple[int, int, int]]] = {
    "16-bit gray PNG": ("png", Image.fromarray(FLAT16), (0xAB,) * 3),
    "16-bit gray TIFF": ("tif", Image.fromarray(FLAT16), (0xAB,) * 3),
    "16-bit gray TIFF, big-endian": ("tif", Image.fromarray(FLAT16.astype(">u2")), (0xAB,) * 3),
    "16-bit white PNG": ("png", Image.fromarray(FLAT16 | 0xFFFF), (255,) * 3),
    "16-bit RGB PNG": ("png", raw_png(32, 32, 16, 2, zlib.compress(DEEP_ROWS)), (0x12, 0x80, 255)),
    "16-bit PPM": ("ppm", b"P5 32 32 65535\n" + FLAT16.astype(">u2").tobytes(), (0xAB,) * 3),
    "gray": ("png", Image.new("L", (32, 32), 77), (77, 77, 77)),
    "12-bit data in a 16-bit PNG": ("png", Image.fromarray(FLAT16 >> 4), (0xAB,) * 3),
    "12-bit data in a 16-bit TIFF": ("tif", Image.fromarray(FLAT16 >> 4), (0xAB,) * 3),
    "gray with alpha": ("png", Image.new("LA", (32, 32), (77, 51)), (115, 114, 107)),
    "opaque gray with alpha": ("png", Image.new("LA", (32, 32), (77, 255)), (77, 77, 77)),
    "black and white": ("png", Image.new("1", (32, 32), 1), (255, 255, 255)),
    "RGBA, transparent": ("png", Image.new("RGBA", (32, 32), (9, 8, 7, 0)), (125, 123, 114)),
    "RGBA, half transparent": (
        "webp",
        Image.new("RGBA", (32, 32), (25, 23, 14, 51)),
        (105, 103, 94),
    ),
    "RGBA, opaque": ("png", Image.new("RGBA", (32, 32), (9, 8, 7, 255)), (9, 8, 7)),
    "transparent palette": ("png", CLEAR, (125, 123, 114)),
    "transparent GIF": ("gif", CLEAR, (125, 123, 114)),
    "palette": ("png", PALETTE, (40, 50, 60)),
    "GIF": ("gif", PALETTE, (40, 50, 60)),
    "CMYK": ("tif", Image.new("CMYK", (32, 32), (0, 51, 255, 0)), (255, 204, 0)),
    "CMYK with black": ("tif", Image.new("CMYK", (32, 32), (0, 255, 0, 155)), (100, 0, 100)),
}


@pytest.mark.fault(41)
def test_every_kind_of_image_becomes_the_rgb_that_is_meant(cli: Cli, class_folders: Make) -> None:
    root = class_folders()
    for number, (extension, image, _) in enumerate(KINDS.values()):
        path = root / "train" / "ant" / f"{number:02}.{extension}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image) if isinstance(image, bytes) else image.save(path)
    (root / "test" / "ant").mkdir()
    (root / "test" / "ant" / "0.png").write_bytes(png(Image.new("L", (32, 32))))
    answer = cli(*TRAIN, "--data", root)
    assert answer.code == 0, answer.err
    assert "Warning:" not in answer.err.replace("\nWarning:", "")  # none of Python's
    images = load_dataset(DataConfig(source=str(root))).train.images
    for name, pixels, (_, _, expected) in zip(KINDS, images, KINDS.values(), strict=False):
        assert pixels.reshape(-1, 3).unique(dim=0).tolist() == [list(expected)], name


@pytest.mark.fault(41)
def test_32_bit_pixels_have_no_white_and_are_refused(cli: Cli, class_folders: Make) -> None:
    root = class_folders()
    Image.new("F", (32, 32), 0.5).save(root / "train" / "cat" / "0000.tif")
    answer = cli(*TRAIN, "--data", root)
    assert answer.code == 3
    assert "train/cat/0000.tif (it has 32-bit pixels" in answer.err


@pytest.mark.fault(42)
def test_images_of_other_sizes_are_resized_and_that_is_said_once(
    cli: Cli, class_folders: Make
) -> None:
    root = class_folders()
    gradient = np.linspace(0, 255, 64, dtype=np.uint8)
    wide = np.broadcast_to(gradient[None, :, None], (40, 64, 3))
    Image.fromarray(wide).save(root / "train" / "cat" / "0000.png")
    Image.new("RGB", (5, 7), (1, 2, 3)).save(root / "test" / "cat" / "0001.png")
    remark = "Resized 2 of 18 images to 32 x 32 pixels."
    for name in ("a", "b"):  # decoded, and from the cache
        answer = cli(*TRAIN, "--data", root, "--name", name)
        assert answer.code == 0, answer.err
        assert answer.err.splitlines().count(remark) == 1
    assert cli(*TRAIN, "--data", root, "--quiet").err == ""
    dataset = load_dataset(DataConfig(source=str(root)))
    assert dataset.train.images.shape == (12, 32, 32, 3)
    middle = dataset.train.images[0, 16, :, 0].numpy()  # of the 40 columns in the centre
    assert np.abs(middle - np.linspace(50, 205, 32)).max() < 3
    squashed = load_dataset(DataConfig(source=str(root), resize="squash")).train.images
    assert np.abs(squashed[0, 16, :, 0].numpy() - np.linspace(2, 253, 32)).max() < 3
    assert dataset.test.images[1, 9, 9].tolist() == [1, 2, 3]


def bomb() -> bytes:
    """50,000 x 50,000 black pixels in a file of some 300 kB; decoded, they take 2.5 GB."""
    packer = zlib.compressobj(6)
    block = bytes(6251 * 500)
    parts = [packer.compress(block) for _ in range(100)]
    return raw_png(50_000, 50_000, 1, 0, b"".join([*parts, packer.flush()]))


@pytest.mark.fault(45)
@pytest.mark.parametrize("side", [8_001, 10_000])  # Pillow says nothing, or warns
def test_an_image_of_too_many_pixels_is_refused(cli: Cli, class_folders: Make, side: int) -> None:
    root = class_folders()
    (root / "train" / "cat" / "0000.png").write_bytes(raw_png(side, side, 1, 0, b""))
    answer = cli(*TRAIN, "--data", root)
    assert answer.code == 3
    assert "train/cat/0000.png (it unpacks to more than 64,000,000 pixels)" in answer.err
    assert answer.err.count("\n") == 1


# --- what is not one of the formats that are meant ------------------------------------------------

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 32 32
%%EndComments
(MARKER) (w) file closefile
showpage
%%EOF
"""


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once Ghostscript was started, which Pillow looks for anew."""
    started = tmp_path / "ghostscript was started"
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "gs"
    program.write_text(f"#!/bin/sh\ntouch '{started}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return started


@pytest.mark.fault(56)
def test_an_eps_file_named_png_is_refused_and_ghostscript_never_started(
    cli: Cli, class_folders: Make, ghostscript: Path
) -> None:
    root = class_folders()
    path = root / "train" / "cat" / "0000.png"
    path.write_bytes(EPS)
    with Image.open(path) as image, suppress(Exception):  # this Ghostscript draws nothing
        image.load()
    assert ghostscript.exists()  # so the trap works
    ghostscript.unlink()
    answer = cli("preview-augs", *FLAGS, "--data", root)
    assert answer.code == 3
    assert "train/cat/0000.png (it is not an image in PNG, " in answer.err
    answer = cli("preview-augs", *FLAGS, "--data", root, "--skip-bad-images")
    assert answer.code == 0, answer.err
    assert not ghostscript.exists()


def files_of_other_formats() -> dict[str, bytes]:
    """By format that Pillow can write and read, and that is not meant: a file of it."""
    Image.init()
    others = [name for name in Image.OPEN if name not in FORMATS]
    assert len(others) > 30
    found: dict[str, bytes] = {}
    for name in others:
        for mode in ("RGB", "P", "L", "1", "F", "RGBA"):
            buffer = io.BytesIO()
            with suppress(Exception):  # not every format takes every mode, or is written
                Image.new(mode, (32, 32)).save(buffer, name)
                found[name] = buffer.getvalue()
                break
    return found


@pytest.mark.fault(56)
def test_no_other_format_that_pillow_has_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of_other_formats()
    assert {"EPS", "TGA", "PCX", "ICO", "DDS"} < set(files)
    for name, data in files.items():
        with suppress(UnidentifiedImageError), Image.open(io.BytesIO(data)) as image:
            assert image.format in Image.OPEN, name  # Pillow itself opens it
    opened: list[str] = []

    def trap(name: str) -> Callable[..., None]:
        return lambda *_: opened.append(name)

    # Every plugin that is not meant, those without a writer too, whatever the content says.
    for name in list(Image.OPEN):
        if name not in FORMATS:
            monkeypatch.setitem(Image.OPEN, name, (trap(name), None))
    for data in (*files.values(), EPS, b"BUFR", b"GRIB", b"\x89HDF\r\n\x1a\n", b"RIFF" + bytes(99)):
        with pytest.raises(NoImageError, match="not an image in PNG"):
            decode_image(data, Rules(32))
    assert opened == []


@pytest.mark.fault(56)
def test_pictures_are_opened_in_one_place_which_names_the_formats() -> None:
    package = Path(cifar_cli.__file__).parent
    opening = [
        (path.name, ast.unparse(node))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("Image.open", "imread", "plt.imread", "mpimg.imread")
    ]
    assert opening == [("decode.py", "Image.open(file, formats=FORMATS)")]


@pytest.mark.parametrize("extension", [name.removeprefix(".") for name in EXTENSIONS])
@pytest.mark.fault(56)
def test_every_format_that_is_meant_is_read(class_folders: Make, extension: str) -> None:
    root = class_folders(size=(40, 40), extension=extension)
    assert len(load_dataset(DataConfig(source=str(root))).train) == 12


# --- files without an end, and images without bounds ----------------------------------------------


@pytest.mark.fault(66)
def test_a_file_without_end_is_refused_and_one_that_is_no_file_skipped(
    cli: Cli, class_folders: Make
) -> None:
    root = class_folders()
    folder = root / "train" / "cat"
    with (folder / "holes.png").open("wb") as file:
        file.truncate(10**12)
    answer = cli("preview-augs", *FLAGS, "--data", root)
    assert answer.code == 3
    assert "train/cat/holes.png (it has 1,000,000,000,000 bytes, at most 268,435,456" in answer.err
    (folder / "system.png").symlink_to("/proc/kmsg")
    (folder / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "fifo.png")
    os.mkfifo(root / "train" / "fifo")
    answer = cli("preview-augs", *FLAGS, "--data", root, "--skip-bad-images")
    assert answer.code == 0, answer.err
    assert "Skipped 3 files that are not images: fifo, fifo.png, zero.png." in answer.err
    assert "Skipped 2 images that cannot be read" in answer.err


@pytest.mark.fault(66)
def test_a_picture_that_becomes_a_fifo_after_it_was_listed_holds_nothing_up(
    class_folders: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders()
    path = root / "train" / "cat" / "0000.png"

    def listed(folder: Path) -> Listing:
        listing = list_folders(folder)
        path.unlink()
        os.mkfifo(path)
        return listing

    monkeypatch.setattr("cifar_cli.data.sources.folder.list_folders", listed)
    with pytest.raises(DataError, match=r"Cannot read .*0000.png: it is not a regular file"):
        load_dataset(DataConfig(source=str(root)))


@pytest.mark.fault(81)
def test_an_image_with_one_side_without_measure_is_refused(cli: Cli, class_folders: Make) -> None:
    root = class_folders()
    for number in range(4):
        for label in ("cat", "dog"):
            size = (63_999_999, 1) if number % 2 else (1, 63_999_999)
            content = zlib.compress(bytes(1000))
            (root / "train" / label / f"{number:04}.png").write_bytes(raw_png(*size, 8, 0, content))
    answer = cli("preview-augs", *FLAGS, "--data", root)
    assert answer.code == 3
    assert "8 of 18 images cannot be read" in answer.err
    assert "(one of its sides is longer than 65,535 pixels)" in answer.err


# Decodes eight images of so many pixels and prints the most memory that it ever had, in kB.
READERS = """
import re, sys, zlib
from pathlib import Path
from cifar_cli.data.cache import home
from cifar_cli.data.sources.folder import list_folders
from cifar_cli.data.sources.pictures import load_pictures
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
from cifar_cli.data.sources.pixels import Rules
dataset = load_pictures(list_folders(Path(sys.argv[1])), Rules(32), home(None))
print(len(dataset.train), peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read there")
@pytest.mark.fault(81)
def test_several_readers_at_once_keep_to_the_memory_of_one(class_folders: Make) -> None:
    root = class_folders(classes=("cat", "dog"), counts=(1, 1))
    black = zlib.compress(bytes(8001 * 7999), 1)
    for number in range(4):
        path = root / "train" / ("cat", "dog")[number % 2] / f"{number:04}.png"
        path.write_bytes(raw_png(8000, 7999, 8, 0, black))
    answer = subprocess.run(
        [sys.executable, "-c", READERS, str(root)], capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    count, peak = (int(word) for word in answer.stdout.split())
    assert count == 5
    assert peak < 600_000  # one takes 64 MB as gray and 256 MB as Pillow's RGB


# --- small files that take endless time -----------------------------------------------------------


def encoded(kind: str, side: int = 8, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (90, 120, 30)).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(*tags: tuple[int, int, int, int], order: str = "<", rest: bytes = b"") -> bytes:
    """A gray TIFF of one pixel with more tags."""
    usual = [(n, 4, 1, 1) for n in (256, 257, 277, 278, 279)]
    usual += [(258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    own = {tag[0] for tag in tags}
    chosen = sorted([*(tag for tag in usual if tag[0] not in own), *tags])
    entries = b"".join(struct.pack(f"{order}HHII", *tag) for tag in chosen)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(chosen))
    return head + entries + bytes(4) + rest


def repeated_scan(count: int) -> bytes:
    """A progressive JPEG whose last scan, of a few bytes, comes so many times more."""
    data = encoded("JPEG", 64, progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * count + data[-2:]


@pytest.mark.fault(95)
def test_files_of_endless_parts_are_refused_within_seconds() -> None:
    jpeg, gif = encoded("JPEG"), encoded("GIF")
    start, data = raw_png(8, 8, 8, 2, zlib.compress(bytes(200)))[:33], encoded("PNG")[33:]
    idat, text = struct.pack(">I", 0) + b"IDAT", struct.pack(">I", 0) + b"teXt"
    cases = {
        "scans": repeated_scan(1000),
        "scans behind a segment without length": repeated_scan(1000).replace(
            b"\xff\xda", b"\xff\x01\xff\xda"
        ),
        "fill bytes": jpeg[:2] + b"\xff" * 10_000_000 + jpeg[2:],
        "comments": jpeg[:2] + b"\xff\xfe\0\2" * 1_000_000 + jpeg[2:],
        "a comment": b"P6\n#" + b"x" * 10_000_000 + b"\n1 1\n255\n\0\0\0",
        "pixel chunks": start + (idat + struct.pack(">I", zlib.crc32(b"IDAT"))) * 1_000_000 + data,
        "text chunks": start + (text + struct.pack(">I", zlib.crc32(b"teXt"))) * 1_000_000 + data,
        "extensions": gif.replace(b",", b"!\xfe" + b"\1c" * 1_000_000 + b"\0,", 1),
        "strips": tiff((273, 4, 30_000_000, 200), rest=bytes(10_000)),
        "strips, big end first": tiff((273, 4, 30_000_000, 200), order=">"),
        "tags of the same bytes": tiff(
            *((40_000 + n, 7, 1_000_000, 1000) for n in range(300)), rest=bytes(1_100_000)
        ),
    }
    for name, content in cases.items():
        started = time.monotonic()
        with pytest.raises(NoImageError):
            decode_image(content, Rules(8))
        assert time.monotonic() - started < 10, name


@pytest.mark.fault(95)
def test_files_of_many_parts_that_cameras_and_editors_write_are_read() -> None:
    jpeg = encoded("JPEG")
    kinds = {
        "scans": repeated_scan(50),
        "colour profile": encoded("JPEG", icc_profile=bytes(3_000_000)),
        "a picture within": jpeg[:2] + b"\xff\xe1\x4e\x22" + b"\xff\xda" * 10_000 + jpeg[2:],
        "a comment": b"P6\n#" + b"x" * 10_000 + b"\n1 1\n255\n\0\0\0",
        "a large tag": tiff((700, 1, 3_000_000, 200), rest=bytes(3_000_300)),
        "strips": encoded("TIFF", 2000, strip_size=1),
        "runs": b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024)
        + struct.pack("<IiiHHIIiiII", 40, 800, 800, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1024)
        + (b"\2\1" * 400 + b"\0\0") * 800 + b"\0\1",
    }  # fmt: skip
    for name, content in kinds.items():
        assert decode_image(content, Rules(8))[0].shape == (8, 8, 3), name


@pytest.mark.fault(95)
def test_formats_whose_decoders_copy_may_have_half_the_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A canvas of 7,999 x 7,999 in 90 bytes, which would take 1 GB, was one of these.
    with pytest.raises(NoImageError, match="it unpacks to more than 32,000,000 pixels"):
        decode_image(webp_canvas(5657), Rules(8))
    monkeypatch.setattr("cifar_cli.data.sources.decode.MAX_PIXELS", 1000)
    for kind in FORMATS:
        is_copying = kind in ("WEBP", "AVIF")
        assert decode_image(encoded(kind, 20), Rules(8)).is_resized
        with pytest.raises(NoImageError) if is_copying else nullcontext():
            decode_image(encoded(kind, 30), Rules(8))


def webp_canvas(side: int) -> bytes:
    """An animation of one frame of 4 x 4 pixels on a canvas of that side."""
    frame = bytes(6) + bytes([3, 0, 0] * 2) + bytes(4) + encoded("WEBP", 4, lossless=True)[12:]
    size = struct.pack("<I", side - 1)[:3]
    chunks = b"VP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + size * 2
    chunks += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    chunks += b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


@pytest.mark.fault(73)
def test_without_threads_images_are_decoded_one_by_one(
    class_folders: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders()
    expected = load_dataset(DataConfig(source=str(root), dir=str(root.parent / "a")))
    start, left = threading.Thread.start, [0]

    def none_left(thread: threading.Thread) -> None:
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", none_left)
    for count in (0, 1):
        left[0] = count
        found = load_dataset(DataConfig(source=str(root), dir=str(root.parent / f"b{count}")))
        assert torch.equal(found.train.images, expected.train.images)


@pytest.mark.fault(82)
def test_images_that_do_not_fit_into_memory_are_named_as_what_does_not_fit(
    cli: Cli, class_folders: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders()

    def none_left(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("cifar_cli.data.sources.pictures.decode_image", none_left)
    for command in ("preview-augs", "train"):
        answer = cli(command, *FLAGS, "--data", root)
        assert answer.code == 6
        assert f"the images of {root}, decoded to 32 x 32 pixels, do not fit" in answer.err


# The command line, and then the most memory that the process ever had, in kB.
MEASURED = """
import re, sys
from pathlib import Path
from cifar_cli.cli.app import run
code = run(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""


@pytest.mark.fault(45)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read there")
def test_a_decompression_bomb_is_refused_within_bounded_memory(
    in_tmp: Path, class_folders: Make
) -> None:
    root = class_folders()
    path = root / "train" / "cat" / "0000.png"
    path.write_bytes(bomb())
    assert path.stat().st_size < 1_000_000
    answer = subprocess.run(
        [sys.executable, "-c", MEASURED, "preview-augs", *FLAGS, "--data", str(root)],
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 3
    found = "1 of 18 images cannot be read: train/cat/0000.png (it unpacks to more than 64,000,000"
    assert found in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert int(answer.stdout) < 1_000_000
