"""Faults of images in class folders, through the real command line."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_FLAGS, Answer, rows, tree
from PIL import Image

from cifar_cli.config import DataConfig
from cifar_cli.data.sources import load_dataset

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
        "find-lr": ["find-lr", *data, "--num-iter", "20"],
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
        "Skipped 4 files and 2 folders that are no images: "
        "._0000.png, .ipynb_checkpoints, README, Thumbs.db, more, notes.txt."
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
        assert "(it is no image)" in answer.err
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
KINDS: dict[str, tuple[str, Image.Image | bytes, tuple[int, int, int]]] = {
    "16-bit gray PNG": ("png", Image.fromarray(FLAT16), (0xAB,) * 3),
    "16-bit gray TIFF": ("tif", Image.fromarray(FLAT16), (0xAB,) * 3),
    "16-bit gray TIFF, big-endian": ("tif", Image.fromarray(FLAT16.astype(">u2")), (0xAB,) * 3),
    "16-bit white PNG": ("png", Image.fromarray(FLAT16 | 0xFFFF), (255,) * 3),
    "16-bit RGB PNG": ("png", raw_png(32, 32, 16, 2, zlib.compress(DEEP_ROWS)), (0x12, 0x80, 255)),
    "16-bit PPM": ("ppm", b"P5 32 32 65535\n" + FLAT16.astype(">u2").tobytes(), (0xAB,) * 3),
    "gray": ("png", Image.new("L", (32, 32), 77), (77, 77, 77)),
    "gray with alpha": ("png", Image.new("LA", (32, 32), (77, 9)), (77, 77, 77)),
    "black and white": ("png", Image.new("1", (32, 32), 1), (255, 255, 255)),
    "RGBA, alpha dropped": ("png", Image.new("RGBA", (32, 32), (9, 8, 7, 0)), (9, 8, 7)),
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
    assert "arning" not in answer.err
    images = load_dataset(DataConfig(source=str(root))).train.images
    for name, pixels, (_, _, expected) in zip(KINDS, images, KINDS.values(), strict=False):
        assert pixels.reshape(-1, 3).unique(dim=0).tolist() == [list(expected)], name


@pytest.mark.fault(41)
def test_32_bit_pixels_have_no_white_and_are_refused(cli: Cli, class_folders: Make) -> None:
    root = class_folders()
    Image.new("F", (32, 32), 0.5).save(root / "train" / "cat" / "0000.tif")
    answer = cli(*TRAIN, "--data", root)
    assert answer.code == 3
    assert "train/cat/0000.tif (its pixels have 32 bits" in answer.err


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
    middle = dataset.train.images[0, 16, :, 0].numpy()
    assert np.abs(middle - np.linspace(2, 253, 32)).max() < 3
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
