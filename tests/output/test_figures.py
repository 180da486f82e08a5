"""Figures: drawn for any sensible input, whole, without a display, repeatable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pytest
from conftest import random_images
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from cifar_cli.analysis.metrics import class_figures
from cifar_cli.output.figures import lettering
from cifar_cli.output.figures.curves import (
    RunCurves,
    centred_mean,
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
from cifar_cli.output.figures.lettering import drawable, families, fitted, text_width
from cifar_cli.output.figures.matrix import class_accuracy, confusion
from cifar_cli.output.figures.speed import accuracy_against_seconds
from cifar_cli.output.figures.style import about_line, new_figure
from cifar_cli.rundir import EpochRecord, StepRecord

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def curves(name: str = "a", epochs: int = 5) -> RunCurves:
    records = [
        EpochRecord(e, 2 / e, 1 - 0.8 / e, 2.1 / e, 1 - 0.9 / e, 0.01, 9.0, 8.0)
        for e in range(1, epochs + 1)
    ]
    steps = [StepRecord(s, 0.01, 2 / (s + 1)) for s in range(epochs * 10)]
    return RunCurves(name, records, steps)


class Drawn(NamedTuple):
    """A figure, and the boxes of the texts that were drawn into it, in pixels.

    Boxes of slanted texts say little about where the texts are; these are left out.
    """

    figure: Figure
    texts: list[tuple[str, Bbox]]

    def overlapping(self) -> list[tuple[str, str]]:
        """Pairs of texts whose boxes meet."""
        boxes = [(text, box.padded(-1)) for text, box in self.texts]
        return [
            (one, two)
            for i, (one, box) in enumerate(boxes)
            for two, other in boxes[i + 1 :]
            if box.overlaps(other)
        ]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Drawn]:
    """Everything that is drawn while the test runs."""
    figures: list[Drawn] = []
    texts: dict[int, tuple[str, Bbox]] = {}  # constrained layout draws everything twice
    save, draw = Figure.savefig, Text.draw

    def keep_text(self: Text, renderer: Any, *rest: Any, **options: Any) -> None:
        draw(self, renderer, *rest, **options)
        if self.get_visible() and self.get_text().strip() and self.get_rotation() % 90 == 0:
            texts[id(self)] = (self.get_text(), self.get_window_extent(renderer))

    def keep_figure(self: Figure, *arguments: Any, **options: Any) -> None:
        texts.clear()
        save(self, *arguments, **options)
        figures.append(Drawn(self, list(texts.values())))

    monkeypatch.setattr(Text, "draw", keep_text)
    monkeypatch.setattr(Figure, "savefig", keep_figure)
    return figures


FOOTER = about_line("a-run", "shapes", "val", 1000)
HARD_NAMES = {
    "long": tuple(f"a-very-long-name-of-a-class-{'that-never-ends-' * 5}number-{i}" for i in "abc"),
    "cjk": ("猫", "動物園の犬", "ある日の US$ 鳥" * 9),
    "unsafe": ("\x1b[31mred", "a\nb", "\u202egnp"),
}


def draw_names(folder: Path, name: str, names: tuple[str, ...]) -> Path:
    """Galleries of one to three images; more pictures would repeat what these show."""
    images = random_images(3).images.numpy()
    captions = [Caption(names[0], names[1], 0.99, f"{n}/0001.png") for n in names]
    title = "312 of 1,000 images misclassified; 3 shown, highest loss first"
    for count in (1, 2):
        file = folder / f"{name}{count}.png"
        mistake_gallery(file, images[:count], captions[:count], title, FOOTER)
    return mistake_gallery(folder / f"{name}.png", images, captions, title, FOOTER)


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
            {"middle": lrs[52], "steepest": lrs[40], "valley": lrs[45], "minimum/10": lrs[50]},
            (lrs[50], lrs[54]),
        ),
        sample_grid(folder / "samples.png", images[:20], "Samples"),
        sample_grid(folder / "labels.png", images, "Samples", [NAMES[i % 10] for i in range(40)]),
        augmentation_grid(
            folder / "augs.png", [images[:1], images[:8]], ["original", "as trained\non"], "A"
        ),
        mistake_gallery(folder / "wrong.png", images[:10], [caption] * 10, "10 of 99 images"),
        confusion(folder / "confusion.png", counts, NAMES, "Confusion: 50.00% of 1,000", FOOTER),
        class_accuracy(folder / "classes.png", class_figures(counts, NAMES), "By class", FOOTER),
        *(draw_names(folder, name, names) for name, names in HARD_NAMES.items()),
    ]


def test_no_texts_overlap_and_none_is_cut_off(tmp_path: Path, drawn: list[Drawn]) -> None:
    draw_all(tmp_path)
    assert len(drawn) == 12 + 3 * len(HARD_NAMES)
    for figure, texts in drawn:
        found, file = Drawn(figure, texts), Path(str(texts[0][0]))
        assert len(texts) >= 1, file.name
        assert found.overlapping() == [], file.name
        for text, box in texts:
            assert box.x0 > -2, (file.name, text)
            assert box.y0 > -2, (file.name, text)
            assert box.x1 < figure.bbox.width + 2, (file.name, text)
            assert box.y1 < figure.bbox.height + 2, (file.name, text)


def test_curves_show_each_epochs_figures(tmp_path: Path, drawn: list[Drawn]) -> None:
    run = curves()
    loss_and_accuracy(tmp_path / "a.png", [run])
    for axis, scale, name in zip(drawn[0].figure.axes, (1, 100), ("loss", "accuracy"), strict=True):
        for line, split in zip(axis.lines, ("train", "val"), strict=True):
            assert str(line.get_label()).startswith(split)
            expected = [scale * getattr(record, f"{split}_{name}") for record in run.epochs]
            assert list(line.get_xdata()) == [record.epoch for record in run.epochs]
            assert list(line.get_ydata()) == pytest.approx(expected)


def test_a_matrix_has_true_classes_in_rows_and_classes_have_their_bars(
    tmp_path: Path, drawn: list[Drawn]
) -> None:
    confusion(tmp_path / "a.png", [[8, 2], [0, 5]], ("cat", "dog"), "t")
    axis = drawn[0].figure.axes[0]
    errors, correct = axis.images
    assert np.array_equal(correct.get_array().filled(-1), [[80, -1], [-1, 100]])
    assert np.array_equal(errors.get_array().filled(-1), [[-1, 20], [0, -1]])
    assert (correct.get_clim(), errors.get_clim()) == ((0, 100), (0, 20))
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")
    shown = {text.get_position(): text.get_text() for text in axis.texts}
    assert shown == {(0, 0): "80", (1, 0): "20", (1, 1): "100"}
    figures = class_figures([[2, 1, 1], [0, 0, 0], [3, 0, 1]], ("a", "b", "c"))
    class_accuracy(tmp_path / "b.png", figures, "t")
    axis = drawn[1].figure.axes[0]
    bars = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axis.patches}
    places = zip(axis.get_yticks(), axis.get_yticklabels(), strict=True)
    assert {name.get_text(): bars[round(at)] for at, name in places} == {"a": 50, "c": 25}


def test_accuracy_against_seconds_shows_each_run_and_the_mean(
    tmp_path: Path, drawn: list[Drawn]
) -> None:
    two = [[(60.0, 0.5), (120.0, 0.8)], [(80.0, 0.52), (160.0, 0.84)]]
    one = [[(400.0, 0.6), (900.0, 0.9)]]
    accuracy_against_seconds(tmp_path / "a.png", {"a": two, "b": one})
    lines = drawn[0].figure.axes[0].lines
    assert len(lines) == 2 + 1 + 1 + 1  # each recipe's runs, and their mean
    assert np.allclose(lines[0].get_xydata(), [[1, 50], [2, 80]])
    assert np.allclose(lines[2].get_xydata(), [[70 / 60, 51], [140 / 60, 82]])
    assert lines[2].get_label() == "a (2 runs): 82.00% after 2 min 20 s"


def test_the_check_for_overlaps_finds_one(tmp_path: Path, drawn: list[Drawn]) -> None:
    with new_figure(tmp_path / "x.png", 3, 3) as figure:
        figure.text(0.5, 0.5, "one")
        figure.text(0.5, 0.5, "two")
    assert drawn[0].overlapping() == [("one", "two")]


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


@pytest.mark.parametrize("classes", [2, 3, 25, 100, 300])
def test_any_number_of_classes_makes_a_matrix(
    tmp_path: Path, drawn: list[Drawn], classes: int
) -> None:
    names = [f"class {i}" for i in range(classes)]
    counts = np.eye(classes, dtype=int) * 9
    confusion(tmp_path / "m.png", counts.tolist(), names, "Confusion")
    class_accuracy(tmp_path / "c.png", class_figures(counts.tolist(), tuple(names)), "Classes")
    # Colour bars, axes and ticks included, nothing collides.
    assert [found.overlapping() for found in drawn] == [[], []]
    assert bool(drawn[0].figure.axes[0].texts) == (classes <= 40)
    assert len(drawn[1].figure.axes[0].patches) == min(classes, 25)


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
@pytest.mark.parametrize("names", HARD_NAMES.values(), ids=HARD_NAMES)
def test_any_names_are_drawn_in_every_format_and_the_same_each_time(
    tmp_path: Path, form: str, names: tuple[str, ...]
) -> None:
    images, seen = random_images(3).images.numpy(), []
    for number in range(2):
        file = tmp_path / f"{number}.{form}"
        sample_grid(file, images, "Samples of " + names[2], names, FOOTER)
        seen.append(file.read_bytes())
    assert seen[0] == seen[1]
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[form]
    assert seen[0].startswith(start)
    assert b"cifar-resnet" in seen[0]


def test_text_is_wrapped_at_words_and_shortened_in_its_middle() -> None:
    assert fitted("cat", 100, 9) == "cat"
    wrapped = fitted("a rather long name of a class", 70, 9, lines=4)
    assert " ".join(wrapped.split("\n")) == "a rather long name of a class"
    shortened = fitted("photos/birds/" * 9 + "0001.png", 90, 9)
    assert shortened.startswith("photos/")
    assert shortened.endswith("01.png")
    assert "…" in shortened
    for text in (*wrapped.split("\n"), shortened):
        assert text_width(text, 9) <= 90


def test_characters_without_a_font_become_code_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_font_of", lambda _: None)
    assert drawable("a猫犬b") == "a‹732B 72AC›b"
    assert families("猫") == ["DejaVu Sans"]
    monkeypatch.setattr(lettering, "_font_of", {"猫": "Some CJK"}.get)
    assert drawable("猫犬") == "猫‹72AC›"
    assert families("a猫") == ["DejaVu Sans", "Some CJK"]


def test_a_font_that_has_the_characters_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another font of Matplotlib's stands for one with Chinese characters."""
    monkeypatch.setattr(lettering, "_usual", lambda: frozenset("abc"))
    assert drawable("abcd") == "abcd"
    assert len(families("abcd")) == 2


def test_one_huge_loss_makes_the_axis_logarithmic(tmp_path: Path, drawn: list[Drawn]) -> None:
    run = curves()
    huge = [replace(run.epochs[0], val_loss=118_282_813.0), *run.epochs[1:]]
    loss_and_accuracy(tmp_path / "a.png", [replace(run, epochs=huge)])
    loss_and_accuracy(tmp_path / "b.png", [run])
    step_losses(tmp_path / "c.png", [replace(run, steps=[*run.steps, StepRecord(50, 0.1, 1e6)])])
    scales = [found.figure.axes[0].get_yscale() for found in drawn]
    assert scales == ["log", "linear", "log"]
    assert drawn[0].overlapping() == []


def test_smoothing_is_centred() -> None:
    values = np.array([0.0, 3.0, 6.0, 9.0, 3.0])
    assert centred_mean(values, 3).tolist() == [1.5, 3, 6, 6, 6]
    assert centred_mean(values, 1).tolist() == values.tolist()


def test_figures_say_what_they_show_and_mark_chance(tmp_path: Path, drawn: list[Drawn]) -> None:
    assert FOOTER == "run a-run · data shapes · split val · n = 1,000"
    confusion(tmp_path / "a.png", [[8, 2], [0, 5]], ("cat", "dog"), "t", FOOTER)
    class_accuracy(tmp_path / "b.png", class_figures([[8, 2], [0, 5]], ("a", "b")), "t", FOOTER)
    loss_and_accuracy(tmp_path / "c.png", [replace(curves(), num_classes=10, about="data shapes")])
    texts = [[text for text, _ in found.texts] for found in drawn]
    assert FOOTER in texts[0]
    assert FOOTER in texts[1]
    assert {"mean 90.0%", "chance 50%", "95% interval (Wilson)"} <= set(texts[1])
    assert {"run a · data shapes", "chance, 10%"} <= set(texts[2])


def test_the_callers_matplotlib_settings_stay(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    with new_figure(tmp_path / "x.png", 3, 3) as figure:
        figure.subplots()
    assert dict(mpl.rcParams) == before
