"""The page of a report, in a real browser: what it shows, its filters, and hostile names."""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_FLAGS, Answer, random_images
from PIL import Image

from cifar_cli import load_model
from cifar_cli.analysis.evaluate import Evaluation, Predictions, summarise_predictions
from cifar_cli.analysis.report import Report, RunWarning, make_report
from cifar_cli.models import build_model
from cifar_cli.output.report.charts import training_charts
from cifar_cli.output.report.page import report_page
from cifar_cli.rundir import EpochRecord, RunDir
from cifar_cli.text import printable

Cli = Callable[..., Answer]
HOSTILE = (
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=2>",
    '"onmouseover="window.hacked=3',
    "'autofocus onfocus='window.hacked=4",
    "]]></style></title><svg onload=window.hacked=5>",
    "{{ 7*7 }}{% raw %}",
    "\u202egnp.exe\u200f\u2066",
    "control \x00\x07\x1b[31m\x85",
    "surrogate \udce9\ud800",
    "</textarea><!--<base href=http://127.0.0.1:9>",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium without a window."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


class Opened:
    """A page from the disk, and everything that went wrong in it."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.problems: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        self.page.on("request", self._requested)
        self.page.goto(file.resolve().as_uri())

    def _requested(self, request: Any) -> None:
        if request.url.split(":")[0] not in ("file", "data"):
            self.problems.append(request.url)

    def shown(self) -> list[int]:
        """Positions of the images that the gallery shows, in order."""
        cards = self.page.locator("#gallery > li:visible")
        return [int(card.get_attribute("data-index")) for card in cards.all()]

    def close(self) -> None:
        self.page.close()


def evaluation_of(
    run: Path, names: tuple[str, ...] = (), files: tuple[str, ...] = (), count: int = 40
) -> Evaluation:
    """Of noise; `names` in the place of those of the classes."""
    trained, images = load_model(run), random_images(count)
    trained = replace(trained, class_names=names or trained.class_names)
    noise = torch.randn(count, 10, generator=torch.Generator().manual_seed(0))
    logits = trained.logits(images.images) + 3 * noise
    return summarise_predictions(
        Predictions(trained, RunDir(run), images, logits, 0.0, (), "noise", files)
    )


def written(folder: Path, report: Report) -> Path:
    file = folder / "report.html"
    file.write_text(report_page(report), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def example(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    files = tuple(f"{'ab'[n % 2]}/Picture_{n:03}.png" for n in range(40))
    report = make_report(evaluation_of(trained, files=files), n=30)
    return report, written(tmp_path_factory.mktemp("page"), report)


def test_the_gallery_is_filtered_and_sorted_by_keyboard_and_says_how_many_it_shows(
    browser: Any, example: tuple[Report, Path]
) -> None:
    report, file = example
    mistakes = [shown.mistake for shown in report.mistakes]
    with closing(Opened(browser, file)) as opened:
        page, count = opened.page, opened.page.locator("#count")
        assert count.get_attribute("aria-live") == "polite"
        assert opened.shown() == [m.index for m in mistakes]
        assert count.inner_text() == "30 images shown"

        page.get_by_label("Sort by").focus()
        page.keyboard.press("ArrowDown")
        by_confidence = sorted(mistakes, key=lambda m: (-m.confidence, m.index))
        assert opened.shown() == [m.index for m in by_confidence]
        page.keyboard.press("ArrowDown")
        assert opened.shown() == sorted(m.index for m in mistakes)

        wanted = mistakes[0]
        page.get_by_label("True class").focus()
        page.keyboard.type(report.evaluation.class_names[wanted.true])
        same_class = sorted(m.index for m in mistakes if m.true == wanted.true)
        assert opened.shown() == same_class
        shown = count.inner_text()
        assert shown == f"{len(same_class)} of 30 images shown"
        page.get_by_label("Predicted class").select_option(str(wanted.predicted))
        both = [
            m.index for m in mistakes if (m.true, m.predicted) == (wanted.true, wanted.predicted)
        ]
        assert opened.shown() == sorted(both)

        page.get_by_role("button", name="Clear filters").press("Enter")
        page.wait_for_function("document.getElementById('count').innerText == '30 images shown'")
        assert opened.shown() == [m.index for m in mistakes]
        page.get_by_label("File name").press_sequentially("A/PICT")
        assert opened.shown() == [m.index for m in mistakes if m.index % 2 == 0]
        page.get_by_label("File name").fill("nowhere")
        assert opened.shown() == []
        assert count.inner_text() == "No image fits these filters"
        assert opened.problems == []


def test_activation_maps_are_switched_on_by_keyboard_and_lie_over_the_images(
    browser: Any, example: tuple[Report, Path]
) -> None:
    with closing(Opened(browser, example[1])) as opened:
        maps = opened.page.locator("#gallery .map")
        assert maps.count() == 30
        assert not maps.first.is_visible()
        opened.page.get_by_label("Show activation maps").press("Space")
        assert maps.first.is_visible()
        assert opened.page.evaluate(
            """() => [...document.querySelectorAll("#gallery .picture")].every(picture => {
              const [image, map] = [...picture.children].map(e => e.getBoundingClientRect());
              return image.x === map.x && image.y === map.y && image.width === map.width;
            })"""
        )
        assert opened.page.evaluate(
            "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
        )
        assert opened.problems == []


def test_without_javascript_the_page_is_a_plain_gallery_with_maps(
    browser: Any, example: tuple[Report, Path]
) -> None:
    with closing(Opened(browser, example[1], java_script_enabled=False)) as opened:
        page = opened.page
        assert page.locator("#gallery > li:visible").count() == 30
        assert not page.locator("#filters").is_visible()
        page.get_by_label("Show activation maps").check()
        assert page.locator("#gallery .map").first.is_visible()


def test_every_control_and_picture_is_labelled_and_headings_do_not_skip_a_level(
    browser: Any, example: tuple[Report, Path]
) -> None:
    with closing(Opened(browser, example[1])) as opened:
        assert opened.page.evaluate(
            """() => [
              [...document.querySelectorAll("input, select")].filter(e => !e.labels.length).length,
              [...document.querySelectorAll("img:not([alt]), svg:not([aria-label], [aria-hidden],"
                + "[aria-hidden] svg)")].length,
              [...document.querySelectorAll("th:not([scope], [aria-hidden])")].length,
            ]"""
        ) == [0, 0, 0]
        levels = opened.page.evaluate(
            "[...document.querySelectorAll('h1,h2,h3')].map(e => Number(e.tagName[1]))"
        )
        assert levels[:2] == [1, 2]
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_text_can_be_read_in_light_and_dark_and_nothing_is_wider_than_the_screen(
    browser: Any, example: tuple[Report, Path], scheme: str, width: int
) -> None:
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with closing(Opened(browser, example[1], **options)) as opened:
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert opened.page.evaluate(wide) == 0
        page = luminance(opened.page, "document.body", "backgroundColor")
        assert page > 0.9 if scheme == "light" else page < 0.05
        for selector, colour in [
            ("main p", "color"), (".number", "color"), (".figures dt", "color"),
            (".chart text", "fill"), (".chart polyline.main", "stroke"), ("nav a", "color"),
        ]:  # fmt: skip
            text = luminance(opened.page, f"document.querySelector('{selector}')", colour)
            low, high = sorted((text, page))
            assert (high + 0.05) / (low + 0.05) >= 4.5, selector
        assert opened.problems == []


def luminance(page: Any, element: str, colour: str) -> float:
    """Relative luminance of a colour (WCAG 2)."""
    text = page.evaluate(f"getComputedStyle({element}).{colour}")
    shares = [int(part) / 255 for part in re.findall(r"\d+", text)[:3]]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.fault(103)
def test_hostile_names_and_settings_stand_as_text_and_run_nothing(
    browser: Any, trained: Path, tmp_path: Path
) -> None:
    evaluation = evaluation_of(trained, HOSTILE, HOSTILE * 4)
    evaluation = replace(
        evaluation, predictions=replace(evaluation.predictions, data=HOSTILE[0], notes=HOSTILE)
    )
    report = make_report(evaluation, n=40, commands=[HOSTILE])
    assert report.run
    run = replace(
        report.run,
        name=HOSTILE[0],
        warnings=tuple(RunWarning(text, text) for text in HOSTILE),
        damaged=HOSTILE,
        environment={text: {text: text} for text in HOSTILE},
    )
    report = replace(
        report,
        run=run,
        configuration="\n".join(HOSTILE),
        no_maps=HOSTILE[1],
        not_examined=HOSTILE[2],
        num_suspects=None,
    )
    file = written(tmp_path, report)
    with closing(Opened(browser, file)) as opened:
        page = opened.page
        for _ in range(3):
            page.get_by_label("True class").select_option(index=2)
            page.get_by_label("File name").fill("<script>")
            page.mouse.wheel(0, 4000)
            page.locator("h1").hover()
        for element in page.locator("summary").all():
            element.click()
        assert page.evaluate("window.hacked") is None
        assert opened.problems == []
        assert page.locator("h1").inner_text() == HOSTILE[0]
        assert page.locator("script").count() == 1
        events = page.evaluate(
            "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes]).filter("
            "a => a.name.startsWith('on') || a.name === 'autofocus' || a.name === 'style').length"
        )
        assert events == 0
        assert page.evaluate("document.querySelectorAll('base, iframe, object').length") == 0
        names = page.locator("#classes tbody th").all_inner_texts()
        squeezed = {re.sub(r"\s+", " ", printable(name)).strip() for name in HOSTILE}
        assert set(names) == squeezed
    text = file.read_text(encoding="utf-8")
    assert not re.search(
        "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", text
    )


@pytest.mark.fault(103)
def test_own_pictures_with_hostile_labels_and_files_give_a_harmless_report(
    browser: Any, cli: Cli, in_tmp: Path
) -> None:
    rng, rows = np.random.default_rng(1), []
    labels = [HOSTILE[0], HOSTILE[1], HOSTILE[4], "עברית"]
    for split, number in itertools.product(("train", "test"), range(40)):
        name = f"{split}{number} <img src=x onerror=window.hacked=6>'\".png"
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(in_tmp / name)
        cells = name.replace('"', '""'), labels[number % 4], split
        rows.append('"{}","{}",{}'.format(*cells))
    (in_tmp / "pictures.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    flags = ["--data", "pictures.csv", "--epochs", 1, "--run-dir", "a<b>&'c", "--quiet"]
    assert cli("train", *TINY_FLAGS, *flags).code == 0
    answer = cli("report", "a<b>&'c", "--json")
    assert answer.code == 0, answer.err
    with closing(Opened(browser, Path(answer.json["file"]))) as opened:
        assert opened.page.locator("h1").inner_text() == "a<b>&'c"
        assert opened.page.evaluate("window.hacked") is None
        opened.page.get_by_label("File name").fill("ONERROR")
        assert len(opened.shown()) == answer.json["num_misclassified"]
        assert opened.problems == []


def test_the_page_names_a_policy_that_lets_nothing_in_but_its_own_parts(
    example: tuple[Report, Path],
) -> None:
    text = example[1].read_text(encoding="utf-8")
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.split(" ", 1) for rule in policy.replace("&#39;", "'").split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind in ("style-src", "script-src"):
        assert re.fullmatch("'sha256-[A-Za-z0-9+/]{43}='", rules[kind])
    assert re.findall(r"https?:|@import|url\(|src=\"(?!data:)|<link (?!rel=.icon)", text) == []


def test_ten_thousand_images_stay_within_size_and_time(trained: Path) -> None:
    evaluation = evaluation_of(trained, count=10_000)
    started = time.perf_counter()
    report = make_report(evaluation)
    size = len(report_page(report).encode())
    seconds = time.perf_counter() - started
    print(f"{size:,} bytes, {seconds:.1f} s beyond the forward pass")
    assert len(report.mistakes) == 60
    assert size < 3_000_000
    assert seconds < 30


@pytest.mark.parametrize(("classes", "marks"), [(20, "<table class=\"matrix\">"),
                                                (300, "<img class=\"matrix\""),
                                                (400, "too large to draw")])  # fmt: skip
def test_many_classes_have_the_worst_and_the_best_and_a_matrix_without_numbers(
    trained: Path, classes: int, marks: str
) -> None:
    model, images = load_model(trained), random_images(3 * classes, classes=classes)
    network = build_model(model.config.model, classes, 32).eval()
    names = tuple(f"class {number}" for number in range(classes))
    model = replace(model, class_names=names, network=network)
    logits = model.logits(images.images)
    evaluation = summarise_predictions(Predictions(model, None, images, logits, 0.0, ()))
    page = report_page(make_report(evaluation, n=1))
    assert marks in page
    table = page[page.index('<table class="classes">') :].split("</table>")[0]
    assert table.count('<th scope="row">') == (20 if classes == 20 else 25)
    assert len(page.encode()) < 600_000


def test_a_loss_that_dwarfs_the_others_is_drawn_on_a_logarithmic_axis() -> None:
    losses = [1e6, 2.0, 1.0, 0.5, 0.0]
    epochs = [EpochRecord(n + 1, x, 0.5, x, 0.5, 0.1, 1, 1) for n, x in enumerate(losses)]
    loss, accuracy, rate = training_charts(epochs, [])
    assert loss.title == "Loss (log scale)"
    heights = [float(pair.split(",")[1]) for pair in loss.lines[1].points.split()]
    assert heights == sorted(heights)
    assert heights[2] - heights[1] > 5
    assert [tick.text for tick in accuracy.y_ticks][-1] == "100%"
    assert rate.x_label == "epoch"
