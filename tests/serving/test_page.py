"""The page of `serve` in a real browser, with names that would do harm as markup."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_config
from PIL import Image
from served import picture, serving

from cifar_cli import load_model, train

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = "<img src=x onerror=document.title='harmed'>"
DROP = """([name, content, kind]) => {
    const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name));
    const event = kind === "paste"
        ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
        : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
    document.getElementById("drop").dispatchEvent(event);
}"""


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as found:
        yield found.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


def test_the_page_classifies_pictures_one_after_the_other(
    in_tmp: Path, class_folders: Callable[..., Path], browser: Any
) -> None:
    folder = class_folders(classes=(HOSTILE, "dog", "owl"))
    config = tiny_config(
        data__source=str(folder), data__limit_train=None, data__limit_val=None,
        train__epochs=1, train__batch_size=4,
    )  # fmt: skip
    model = load_model(train(config, "runs/own").run_dir)
    files = {f"<b onclick=x>{n}</b>.png": picture(50, seed=n) for n in range(3)}
    expected = [model.predict(Image.open(io.BytesIO(content))) for content in files.values()]
    with serving(in_tmp, "own") as server:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        own = f"http://127.0.0.1:{server.port}/"
        page.goto(own)
        page.get_by_text("knows 3 classes").wait_for()

        def result(number: int) -> None:
            name, found = list(files)[number], expected[number]
            text = f"{name}: {found.class_name}, {100 * found.probability:.1f}%."
            status = page.get_by_role("status").filter(has_text=text)
            status.wait_for(state="attached")
            heading = f"{found.class_name} {100 * found.probability:.1f}%"
            assert page.get_by_role("region", name=heading).is_visible()
            bars = page.get_by_role("list", name="Likeliest classes").get_by_role("listitem")
            assert [one.locator("bdi").inner_text() for one in bars.all()] == list(
                found.probabilities
            )
            widths = bars.locator(".fill").evaluate_all("all => all.map(one => one.style.width)")
            shares = [float(width.removesuffix("%")) / 100 for width in widths]
            assert shares == pytest.approx(list(found.probabilities.values()), abs=1e-3)
            assert page.get_by_role("img", name=f"The picture {name}").is_visible()
            for image in page.locator("#view img:not([hidden])").all():
                assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0

        def give(number: int) -> dict[str, Any]:
            name, content = list(files.items())[number]
            return {"name": name, "mimeType": "image/png", "buffer": content}

        for number, key in enumerate(("Enter", "Space")):  # with the keyboard alone
            while page.evaluate("document.activeElement.id") != "drop":
                page.keyboard.press("Tab")
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            assert page.evaluate(outline) == "solid"
            with page.expect_file_chooser() as chooser:
                page.keyboard.press(key)
            chooser.value.set_files(give(number))
            result(number)
        for number, kind in ((2, "drop"), (0, "paste")):
            name, content = list(files.items())[number]
            page.evaluate(DROP, [name, base64.b64encode(content).decode(), kind])
            result(number)
        if page.locator("#nomap").is_hidden():
            page.get_by_label("Show where the network finds the class").uncheck()
            assert page.locator("#map").is_hidden()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert complaints == []

        # A format that the browser cannot show: what the network sees is shown.
        tiff = io.BytesIO()
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tiff, "TIFF")
        page.evaluate(DROP, ["a.tif", base64.b64encode(tiff.getvalue()).decode(), "drop"])
        page.locator("#picture.pixels").wait_for()

        page.evaluate(DROP, ["notes.txt", base64.b64encode(b"no picture").decode(), "drop"])
        alert = page.get_by_role("alert").filter(has_text="cannot be read")
        alert.wait_for()
        assert page.locator("#result").is_hidden()
        complaints = [text for text in complaints if "415" not in text]
        server.running.kill()
        server.running.process.join()
        page.evaluate(DROP, [name, base64.b64encode(content).decode(), "drop"])
        page.get_by_role("alert").filter(has_text="does not answer").wait_for()
        complaints = [text for text in complaints if "ERR_CONNECTION" not in text]

        assert complaints == []
        assert page.title() == "Classify a picture"
        pattern = re.compile(rf"{re.escape(own)}|(data|blob):")
        assert [url for url in asked if not pattern.match(url)] == []
