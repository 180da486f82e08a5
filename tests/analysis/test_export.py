"""Exported files: pixels in, the network's own predictions out."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from conftest import Answer, tiny_config
from PIL import Image
from torch import Tensor, nn

from cifar_cli import evaluate, load_model, train
from cifar_cli.analysis.export import count_different, plan_export
from cifar_cli.analysis.formats import FORMATS, format_of
from cifar_cli.analysis.pixel_network import PixelNetwork
from cifar_cli.analysis.trained import build_network, find_checkpoint
from cifar_cli.cli.export import export
from cifar_cli.data.sources.pixels import Rules, square
from cifar_cli.errors import CheckpointError, ConfigError

Call = Callable[..., Answer]
HERE = [
    pytest.param(name, marks=pytest.mark.skipif(
        any(importlib.util.find_spec(package) is None for package in row.packages),
        reason=f"needs {', '.join(row.packages)}",
    ))
    for name, row in FORMATS.items()
]  # fmt: skip


@pytest.fixture
def run(trained: Path, in_tmp: Path) -> Path:
    """A run that a test may change."""
    return Path(shutil.copytree(trained, in_tmp / "runs" / "tiny"))


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_the_graph_resizes_as_pillow_does(resize: str) -> None:
    data = tiny_config(data__resize=resize).data
    network = PixelNetwork(nn.Identity(), data)
    rng = np.random.default_rng(1)

    def by_graph(pixels: np.ndarray) -> np.ndarray:
        found = network.resized(torch.tensor(pixels)[None].float())[0].numpy()
        assert np.array_equal(found, found.round())
        return found

    differing = []
    sides = [(32, 32), (1, 1), (5, 9), (32, 33), (64, 64), (401, 600), (640, 480), (20, 190)]
    sides += [tuple(map(int, rng.integers(8, 260, 2))) for _ in range(40)]
    for height, width in sides:
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = square(Image.fromarray(pixels), Rules.of(data)).pixels.astype(float)
        # Some versions of Pillow resize some upright images down before across.
        both = [by_graph(pixels), by_graph(pixels.swapaxes(0, 1)).swapaxes(0, 1)]
        nearest = min(both, key=lambda found: float(abs(found - expected).sum()))
        assert height > width or nearest is both[0] or np.array_equal(*both)
        assert abs(nearest - expected).max() <= 1
        differing.append(np.mean(nearest != expected))
    assert np.mean(differing) < 0.001


@pytest.mark.parametrize("name", HERE)
def test_an_exported_file_predicts_what_the_network_does(
    run: Path, cli: Call, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = cli("export", "tiny", "--format", name, "--json", "--quiet")
    assert answer.code == 0, answer.err
    document = answer.json
    file = f"runs/tiny/export/tiny_last{FORMATS[name].suffix}"
    assert (document["file"], document["format"]) == (file, name)
    assert (document["num_images"], document["num_different"]) == (50, 0)
    assert 0 <= document["max_difference"] < 1e-4
    card = Path(document["model_card"]).read_text()
    assert f"{document['accuracy']:.2%}" in card
    assert "0 of 50" in card
    assert "torch " in card
    # Its example works as printed.
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(picture).save(Path(file).with_name("photo.jpg"))
    expected = load_model("tiny").predict(picture).probabilities
    one = load_model("tiny").predict(Path(file).with_name("photo.jpg"))
    with contextlib.chdir(Path(file).parent):
        capsys.readouterr()
        exec(card.partition("```python\n")[2].partition("```")[0], {})
    assert capsys.readouterr().out.strip() == one.class_name
    # Evaluated by itself, and used for pictures of any size, one and several.
    own = evaluate("tiny", device="cpu")
    found = evaluate(checkpoint=file, device="cpu")
    assert found.accuracy == own.accuracy
    torch.testing.assert_close(found.predictions.logits, own.predictions.logits)
    model = load_model(checkpoint=file)
    assert "10 classes, 32 x 32 pixels" in repr(model)
    assert model.predict(picture).probabilities == pytest.approx(expected, abs=1e-5)
    assert model.class_names == load_model("tiny").class_names
    if FORMATS[name].has_graph:
        batch = torch.from_numpy(np.stack([picture] * 3))
        logits = model(batch)
        assert logits.shape == (3, 10)
        torch.testing.assert_close(logits[0].double().softmax(0).max().item(),
                                   max(expected.values()), atol=1e-5, rtol=0)  # fmt: skip
        with pytest.raises(ConfigError, match="--tta flip"):
            evaluate(checkpoint=file, tta="flip")
        with pytest.raises(ConfigError, match="exported already"):
            plan_export(checkpoint=file, format_name="torch-export")
    predicted = cli("predict", "--checkpoint", file, save(picture), "--json")
    assert predicted.code == 0, predicted.err
    assert predicted.json["images"][0]["unlike"] is not None
    if name != "onnx":  # its own files are replaced, and that is said
        again = cli("export", "tiny", "--out", file)
        assert again.code == 0, again.err
        assert "Replacing results of an earlier export" in again.err


def save(pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save("picture.png")
    return Path("picture.png")


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs onnxruntime")
def test_a_network_of_the_speed_recipes_is_exported_with_its_own_size(
    in_tmp: Path, cli: Call
) -> None:
    config = tiny_config(
        model__name="speed_resnet", model__width=None, model__widths=[4, 6, 8],
        train__resolutions=[[0.5, 16], [1.0, 24]], train__epochs=1, data__resize="pad",
    )  # fmt: skip
    train(config, "runs/speed")
    assert cli("export", "--out", "a.onnx", "--quiet", "--json").json["num_different"] == 0
    import onnxruntime

    session = onnxruntime.InferenceSession("a.onnx")
    texts = session.get_modelmeta().custom_metadata_map
    assert json.loads(texts["class_names"]) == list(load_model("runs/speed").class_names)
    assert (texts["image_size"], texts["resize"]) == ("32", "pad")
    assert json.loads(texts["mean"]) == list(config.data.mean)
    picture = np.random.default_rng(0).integers(0, 256, (2, 77, 41, 3), dtype=np.uint8)
    (logits,) = session.run(["logits"], {"images": picture})
    expected = load_model("runs/speed").predict(picture)[1].probabilities
    found = torch.from_numpy(logits[1]).softmax(0).max().item()
    assert found == pytest.approx(max(expected.values()), abs=1e-5)


class Mirrored(nn.Module):
    """A graph that sees every picture upside down."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.flip(1))
        return -logits


def test_a_difference_in_class_is_exit_code_5(
    run: Path, cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = FORMATS["torch-export"]
    spoiled = row._replace(write=lambda network, texts: row.write(Mirrored(network), texts))  # type: ignore[arg-type]
    monkeypatch.setitem(FORMATS, row.name, spoiled)
    answer = cli("export", "tiny", "--out", "a.pt2", "--json")
    assert answer.code == 5
    assert answer.json["num_different"] > 0
    assert "get another class from a.pt2" in answer.err
    assert f"{answer.json['num_different']:,} of 50" in Path("a.pt2.md").read_text()


def test_what_is_missing_or_does_not_fit_is_said_before_anything_is_written(
    run: Path, cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = cli("export", "tiny", "--out", "a.bin")
    assert answer.code == 2
    assert "ends with .onnx" in answer.err
    answer = cli("export", "tiny", "--format", "torch-export", "--out", "a.onnx")
    assert answer.code == 2
    assert "ends with .pt2" in answer.err
    missing = FORMATS["onnx"]._replace(packages=("no_such_package",))
    monkeypatch.setitem(FORMATS, "onnx", missing)
    answer = cli("export", "tiny")
    assert answer.code == 2
    assert "needs no_such_package, which is not installed" in answer.err
    assert "pip install '.[onnx]'" in answer.err
    assert not (run / "export").exists()


def test_a_run_without_a_checkpoint_cannot_be_exported(run: Path, cli: Call) -> None:
    shutil.rmtree(run / "checkpoints")
    answer = cli("export", "tiny", "--format", "torch-export")
    assert (answer.code, answer.out) == (4, "")
    assert "There is no checkpoint" in answer.err


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that takes no time."""
    row = FORMATS["torch-export"]
    monkeypatch.setitem(FORMATS, row.name, row._replace(write=lambda *_: b"x" * 5000))


@pytest.mark.usefixtures("quick")
def test_a_full_disk_leaves_the_file_that_was_there(run: Path, cli: Call) -> None:
    Path("a.pt2").write_bytes(b"of cifar-resnet")
    assert cli("evaluate", "tiny", "--out", "eval", "--quiet").code == 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        answer = cli("export", "tiny", "--out", "a.pt2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert answer.code == 7
    assert "Cannot write a.pt2 (5,000 bytes)" in answer.err
    assert Path("a.pt2").read_bytes() == b"of cifar-resnet"
    assert not [path for path in Path().iterdir() if path.suffix == ".tmp"]


@pytest.mark.usefixtures("quick")
def test_a_file_of_another_program_is_not_replaced(run: Path, cli: Call) -> None:
    for name in ("a.pt2", "a.pt2.md"):
        Path(name).write_text("mine")
        answer = cli("export", "tiny", "--out", "a.pt2")
        assert answer.code == 2
        assert f"{name} exists already" in answer.err
        assert Path(name).read_text() == "mine"
        Path(name).unlink()


def test_images_that_are_not_there_end_an_export(in_tmp: Path, cli: Call, trained: Path) -> None:
    answer = cli("export", trained, "--data", "none", "--out", "a.pt2")
    assert answer.code == 3
    assert not Path("a.pt2").exists()


@pytest.mark.parametrize("name", HERE)
def test_damaged_files_are_refused(in_tmp: Path, name: str) -> None:
    file = Path(f"a{FORMATS[name].suffix}")
    for content in (b"", b"nonsense" * 100, b"\x10" + b"\0" * 7 + b'{"__metadata__":1}'):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match="not a file that cifar-resnet has exported"):
            load_model(checkpoint=file)


def test_a_damaged_file_causes_one_message_alone(run: Path, cli: Call) -> None:
    assert cli("export", run, "--format", "torch-export", "--out", "a.pt2").code == 0
    Path("cut.pt2").write_bytes(Path("a.pt2").read_bytes()[:3000])
    answer = cli("predict", "--checkpoint", "cut.pt2", "a.png")
    assert (answer.code, answer.out, answer.err.count("\n")) == (4, "", 1)


def test_classes_that_are_equally_likely_are_no_difference() -> None:
    expected = torch.tensor([[0.0, 1e-6], [0.0, 1.0], [3.0, 0.0]])
    found = torch.tensor([[1e-6, 0.0], [1.0, 0.0], [3.0, 0.0]])
    assert count_different(found, expected) == 1
    assert count_different(expected, expected) == 0


def test_the_command_knows_every_format() -> None:
    hints = get_type_hints(export)["format_"]
    assert set(get_args(get_args(hints)[0])) == set(FORMATS)
    assert {row.suffix for row in FORMATS.values()} == {".onnx", ".pt2", ".safetensors"}
    assert format_of(Path("a.ONNX")) is FORMATS["onnx"]
    assert format_of(Path("a.pt")) is None


def test_the_exported_network_is_the_plain_one(trained: Path) -> None:
    model = load_model(trained)
    plain = build_network(find_checkpoint(trained, "last")[1]).eval()
    pixels = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        logits = PixelNetwork(plain, model.config.data)(pixels)
    torch.testing.assert_close(logits, model.logits(pixels), atol=1e-4, rtol=1e-4)
