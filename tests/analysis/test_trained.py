"""`load_model`: pictures in, classes and probabilities out, prepared as those of training."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Answer, rows, tiny_config
from PIL import Image

from cifar_cli import evaluate, load_model, train
from cifar_cli.analysis.trained import Trained
from cifar_cli.data.sources.load import load_dataset
from cifar_cli.errors import ConfigError, DataError, DivergedError

COLOURS = {"green": (30, 160, 60), "pink": (230, 120, 150), "sky": (90, 160, 240)}


def draw_folder(root: Path) -> Path:
    """Class folders of colours that a small network learns, in files of all kinds."""
    rng = np.random.default_rng(3)
    for split, count in (("train", 24), ("val", 8)):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for n in range(count):
                side = (40 + n, 64, 3)
                pixels = np.clip(rng.normal(colour, 60, side), 0, 255).astype(np.uint8)
                image = Image.fromarray(pixels)
                if n % 4 == 1:  # turned, as a phone stores it
                    exif = Image.Exif()
                    exif[0x0112] = 6
                    image.save(folder / f"{n}.jpg", exif=exif)
                elif n % 4 == 2:
                    image.putalpha(Image.new("L", image.size, 200))
                    image.save(folder / f"{n}.png")
                else:
                    image.save(folder / f"{n}.{'bmp' if n % 4 else 'webp'}")
    return root


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of pictures, and a run that was trained on it."""
    root = tmp_path_factory.mktemp("own")
    config = tiny_config(
        data__source=str(draw_folder(root / "pictures")), data__limit_train=None,
        data__limit_val=None, data__dir=str(root / "cache"), data__mean="auto", data__std="auto",
        data__resize="pad", train__epochs=8, train__batch_size=8,
    )  # fmt: skip
    return root / "pictures", train(config, root / "run").run_dir


def test_files_get_exactly_the_probabilities_that_evaluation_lists(
    own: tuple[Path, Path], cli: Callable[..., Answer]
) -> None:
    folder, run = own
    assert cli("evaluate", run, "--device", "cpu", "--out", "out").code == 0
    listed = rows(Path("out/val_last_predictions.csv"))
    found = load_model(run).predict([folder / row["file"] for row in listed])
    assert len(found) == 24
    for row, one in zip(listed, found, strict=True):
        assert one.class_name == row["predicted"]
        ranked = {name: f"{round(p, 6)}" for name, p in one.probabilities.items()}
        assert ranked == {row[f"class_{n}"]: row[f"probability_{n}"] for n in (1, 2, 3)}


def test_the_natural_five_lines_reach_the_accuracy_of_the_run(own: tuple[Path, Path]) -> None:
    folder, run = own
    model = load_model(run)
    files = sorted((folder / "val").rglob("*.*"))
    correct = sum(model.predict(file).class_name == file.parent.name for file in files)
    assert correct / len(files) == evaluate(run, device="cpu").accuracy > 0.8
    opened = model.predict([Image.open(file) for file in files])
    assert [one.class_name for one in opened] == [model.predict(f).class_name for f in files]


def test_images_arrays_and_tensors_of_one_picture_all_give_the_same(trained: Path) -> None:
    model = load_model(trained)
    images = load_dataset(model.config.data).train.images[:3]
    expected = model.predict(images)
    assert [one.probability for one in expected] == pytest.approx(
        model.logits(images).double().softmax(1).amax(1).tolist()
    )
    array = images.numpy()
    forms = [
        array,
        list(array),
        [Image.fromarray(one) for one in array],
        images.permute(0, 3, 1, 2),
        images.permute(0, 3, 1, 2) / 255,
        array.astype(np.float64) / 255,
        (one for one in images),
        np.concatenate([array, np.full_like(array[..., :1], 255)], axis=3),
    ]
    for form in forms:
        assert model.predict(form) == expected
    assert model.predict(array[1]).class_name == expected[1].class_name
    assert model.predict(array[0, :, :, 0]) == model.predict(np.repeat(array[0, :, :, :1], 3, 2))
    assert model.predict(array[0, :, :, :1]) == model.predict(array[0, :, :, 0])
    assert model.predict([]) == []
    total = expected[0].probabilities
    assert sum(total.values()) == pytest.approx(1)
    assert list(total.values()) == sorted(total.values(), reverse=True)
    assert set(total) == set(model.class_names)


def test_what_is_no_picture_is_refused_with_the_reason(trained: Path, tmp_path: Path) -> None:
    model = load_model(trained)
    (tmp_path / "text.png").write_text("no picture")
    for picture, reason in (
        (tmp_path / "text.png", "text.png cannot be read as an image: it is not an image"),
        (tmp_path / "none.png", "Cannot read .*none.png: No such file"),
        (np.zeros((6, 5, 2), np.uint8), "its shape is 6 x 5 x 2"),
        (np.zeros((0, 5, 3), np.uint8), "it has no pixels"),
        (np.zeros((4, 5, 3), np.int64), "its pixels are int64"),
        (torch.randn(3, 32, 32), "floats from -.*Normalised images are for the network"),
        (torch.full((3, 32, 32), float("nan")), "floats from nan"),
        (Image.new("F", (9, 9)), "32-bit pixels"),
    ):
        with pytest.raises(DataError, match=reason):
            model.predict(picture)


def test_the_network_is_reached_by_itself_and_through_the_model(trained: Path) -> None:
    model = load_model(trained)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(images), model.network(images))
        assert torch.equal(
            model(torch.zeros(1, 3, 32, 32)), model.network(torch.zeros(1, 3, 32, 32))
        )
    assert model.state_dict().keys() == model.network.state_dict().keys()
    assert not model.training
    assert model.eval() is model.network
    assert model.classifier is model.network.classifier
    with pytest.raises(AttributeError, match="nothing_of_it"):
        _ = model.nothing_of_it
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(copied, Trained)
        assert copied.predict(np.zeros((9, 9), np.uint8)) == model.predict(
            np.zeros((9, 9), np.uint8)
        )


def test_the_network_refuses_pictures_and_warns_of_pixels_that_are_not_normalised(
    trained: Path,
) -> None:
    model = load_model(trained)
    for images in (torch.zeros(1, 32, 32, 3, dtype=torch.uint8), "a.png"):
        with pytest.raises(DataError, match=r"Give images.*to \.predict"):
            model(images)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match=r"Give images to \.predict"):
        assert model(torch.rand(1, 3, 32, 32)).shape == (1, 10)


def test_half_precision_is_taken_and_what_is_no_image_refused(trained: Path) -> None:
    model = load_model(trained)
    image = torch.rand(3, 40, 30).bfloat16()
    assert model.predict(image) == model.predict(image.float())
    with pytest.raises(DataError, match="NoneType is no image"):
        model.predict(None)  # type: ignore[call-overload]


def test_a_model_says_in_a_line_what_it_is(trained: Path) -> None:
    text = repr(load_model(trained))
    path = trained / "checkpoints" / "last.pt"
    assert text == f"Trained(CustomResnet, 10 classes, 32 x 32 pixels, {str(path)!r})"


def test_outputs_that_are_not_finite_are_an_error(trained: Path) -> None:
    model = load_model(trained)
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="not numbers"):
        model.predict(np.zeros((32, 32, 3), np.uint8))


def test_a_device_that_is_not_there_is_refused(trained: Path) -> None:
    with pytest.raises(ConfigError, match="cuda"):
        load_model(trained, device="cuda")
