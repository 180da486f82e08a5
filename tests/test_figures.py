"""Figures: drawn for any sensible input, whole, without a display, repeatable."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from conftest import random_images
from matplotlib.figure import Figure
from PIL import Image

from cifar_cli.output.figures.curves import (
    RunCurves,
    learning_rates,
    loss_and_accuracy,
    lr_range,
    step_losses,
)
from cifar_cli.output.figures.images import (
    Caption,
    augmentation_grid,
    mistake_gallery,
    sample_grid,
)
from cifar_cli.output.figures.matrix import class_accuracy, confusion
from cifar_cli.output.figures.style import new_figure
from cifar_cli.rundir import EpochRecord, StepRecord

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def curves(name: str = "a", epochs: int = 5) -> RunCurves:
    records = [
        EpochRecord(e, 2 / e, 1 - 0.8 / e, 2.1 / e, 1 - 0.9 / e, 0.01, 9.0)
        for e in range(1, epochs + 1)
    ]
    steps = [StepRecord(s, 0.01, 2 / (s + 1)) for s in range(epochs * 10)]
    return RunCurves(name, records, steps)


def texts_overlap(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts of a drawn figure whose boxes meet."""
    from matplotlib.text import Text

    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    boxes = [(t.get_text(), t.get_window_extent(renderer).padded(-1)) for t in shown]
    return [
        (one, two)
        for i, (one, box) in enumerate(boxes)
        for two, other in boxes[i + 1 :]
        if box.overlaps(other)
    ]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is drawn, as an object."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *arguments: object, **options: object) -> None:
        save(self, *arguments, **options)  # type: ignore[arg-type]
        figures.append(self)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def draw_all(folder: Path) -> list[Path]:
    images = random_images(40).images.numpy()
    counts = np.random.default_rng(0).integers(1, 99, (10, 10)).tolist()
    lrs = np.geomspace(1e-7, 10, 80).tolist()
    losses = [2.4 - 0.02 * i if i < 60 else 1.2 + 0.3 * (i - 60) for i in range(80)]
    caption = Caption("automobile", "airplane", 0.87)
    return [
        loss_and_accuracy(folder / "one.png", [curves()]),
        loss_and_accuracy(folder / "short.png", [curves(epochs=1)]),
        loss_and_accuracy(folder / "many.png", [curves(n) for n in ("first", "second", "third")]),
        learning_rates(folder / "lr.png", [curves("first"), curves("second")]),
        step_losses(folder / "steps.png", [curves("first"), curves("second")]),
        lr_range(
            folder / "range.png",
            lrs,
            losses,
            {"steepest": lrs[40], "valley": lrs[45], "minimum/10": lrs[50]},
        ),
        sample_grid(folder / "samples.png", images[:20], "Samples"),
        sample_grid(folder / "labels.png", images, "Samples", [NAMES[i % 10] for i in range(40)]),
        augmentation_grid(
            folder / "augs.png", [images[:1], images[:8]], ["original", "as trained\non"], "A"
        ),
        mistake_gallery(folder / "wrong.png", images[:10], [caption] * 10, "10 of 99 images"),
        confusion(folder / "confusion.png", counts, NAMES, "Confusion: 50.00 % of 1,000 images"),
        class_accuracy(folder / "classes.png", NAMES, [0.1 * i for i in range(10)], "By class"),
    ]


def test_no_texts_overlap_in_any_figure(tmp_path: Path, drawn: list[Figure]) -> None:
    files = draw_all(tmp_path)
    assert len(drawn) == len(files)
    for file, figure in zip(files, drawn, strict=True):
        assert texts_overlap(figure) == [], file.name


def test_texts_lie_within_their_figure(tmp_path: Path, drawn: list[Figure]) -> None:
    from matplotlib.text import Text

    for file, _ in zip(draw_all(tmp_path), range(99), strict=False):
        assert file.is_file()
    for figure in drawn:
        renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        for text in figure.findobj(Text):
            if text.get_visible() and text.get_text().strip():
                box = text.get_window_extent(renderer)
                assert box.x0 > -2, text
                assert box.y0 > -2, text
                assert box.x1 < figure.bbox.width + 2, text
                assert box.y1 < figure.bbox.height + 2, text


def test_the_check_for_overlaps_finds_one() -> None:
    figure = Figure()
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    figure.text(0.5, 0.5, "one")
    figure.text(0.5, 0.5, "two")
    figure.canvas.draw()
    assert texts_overlap(figure) == [("one", "two")]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    one = loss_and_accuracy(tmp_path / "a.png", [curves()]).read_bytes()
    assert loss_and_accuracy(tmp_path / "b.png", [curves()]).read_bytes() == one


def test_images_are_shown_pixel_by_pixel(tmp_path: Path) -> None:
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, 10, 20] = (255, 0, 0)
    path = sample_grid(tmp_path / "x.png", image, "One pixel")
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 50)
    rows, columns = np.nonzero(red)
    # A square of one colour, not a smoothed spot.
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1) > 4
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 1


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_any_number_of_mistakes_makes_a_gallery(tmp_path: Path, count: int) -> None:
    images = random_images(max(count, 1)).images.numpy()[:count]
    caption = Caption("a-very-long-name-of-a-class", "b", 0.5)
    assert mistake_gallery(tmp_path / "x.png", images, [caption] * count, "T").is_file()


@pytest.mark.parametrize("classes", [2, 3, 25, 100])
def test_any_number_of_classes_makes_a_matrix(
    tmp_path: Path, drawn: list[Figure], classes: int
) -> None:
    names = [f"class {i}" for i in range(classes)]
    counts = np.eye(classes, dtype=int) * 9
    confusion(tmp_path / "m.png", counts.tolist(), names, "Confusion")
    class_accuracy(tmp_path / "c.png", names, [None, *[0.5] * (classes - 1)], "Classes")
    # Colour bar, axes and ticks included, nothing collides.
    assert all(texts_overlap(figure) == [] for figure in drawn)


def test_the_callers_matplotlib_settings_stay(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    with new_figure(tmp_path / "x.png", 3, 3) as figure:
        figure.subplots()
    assert dict(mpl.rcParams) == before
