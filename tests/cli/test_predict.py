"""`predict`: pictures in, classes out, whatever the files are."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Answer, rows, tiny_config
from PIL import Image

from cifar_cli import load_model, train
from cifar_cli.analysis.predict import classify_files
from cifar_cli.analysis.unlike import QUANTILE, unlike_scores
from cifar_cli.data.finding import MAX_PATH_BYTES, Found, find_pictures, paths_of
from cifar_cli.data.sources.load import load_dataset
from cifar_cli.data.splits import choose_splits

Call = Callable[..., Answer]


@pytest.fixture
def run(trained: Path, in_tmp: Path) -> Path:
    """A run that a test may change."""
    return Path(shutil.copytree(trained, in_tmp / "runs" / "tiny"))


def draw(path: str, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    """A picture of noise."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def test_files_folders_and_patterns_are_classified_in_order(run: Path, cli: Call) -> None:
    for n, name in enumerate(("b/2.png", "b/1.jpg", "b/deep/er/3.bmp", "c/x.webp", "a.png")):
        draw(name, seed=n)
    draw("b/.hidden/4.png")
    Path("b/notes.txt").write_text("no picture")
    answer = cli("predict", "tiny", "a.png", "b", "c/*.we?p", "--json")
    assert answer.code == 0, answer.err
    document = answer.json
    files = ["a.png", "b/1.jpg", "b/2.png", "b/deep/er/3.bmp", "c/x.webp"]
    assert [image["file"] for image in document["images"]] == files
    assert (document["num_images"], document["num_errors"]) == (5, 0)
    expected = load_model(run).predict(files)
    for image, one in zip(document["images"], expected, strict=True):
        assert set(image) == {"file", "predictions", "unlike", "error"}
        assert image["error"] is None
        assert isinstance(image["unlike"], bool)
        found = {each["class"]: each["probability"] for each in image["predictions"]}
        assert list(found) == list(one.probabilities)[:5]
        assert found == pytest.approx({name: one.probabilities[name] for name in found})


def test_one_bad_file_among_many_gets_its_reason(run: Path, cli: Call) -> None:
    draw("good.png")
    Path("bad.png").write_bytes(draw("good.png").read_bytes()[:200])
    Path("empty.jpg").touch()
    os.mkfifo("pipe.png")
    names = "bad.png", "good.png", "none.png", "empty.jpg", "pipe.png", "*.gif"
    answer = cli("predict", run, *names, "--json", "--out", "out.csv")
    assert answer.code == 0, answer.err
    errors = {image["file"]: image["error"] for image in answer.json["images"]}
    assert errors.pop("good.png") is None
    assert "truncated" in errors["bad.png"]
    assert "No such file" in errors["none.png"]
    assert "empty" in errors["empty.jpg"]
    assert "not a regular file" in errors["pipe.png"]
    assert "no file matches" in errors["*.gif"]
    assert (answer.json["num_images"], answer.json["num_errors"]) == (6, 5)
    listed = rows(Path("out.csv"))
    assert [row["file"] for row in listed][:2] == ["bad.png", "good.png"]
    assert (listed[0]["predicted"], listed[0]["unlike"]) == ("", "")
    assert listed[1]["predicted"] == listed[1]["class_1"]
    assert listed[1]["error"] == ""
    assert float(listed[1]["probability_1"]) >= float(listed[1]["probability_2"])


def test_pictures_of_any_mode_are_classified(run: Path, cli: Call) -> None:
    Path("all").mkdir()
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        Image.new(mode, (7, 90)).save(f"all/{mode.replace(';', '')}.png")
    Image.new("CMYK", (300, 2)).save("all/cmyk.jpg")
    answer = cli("predict", run, "all", "--json")
    assert answer.code == 0, answer.err
    assert (answer.json["num_images"], answer.json["num_errors"]) == (8, 0)


def test_only_where_nothing_can_be_read_is_the_exit_code_3(run: Path, cli: Call) -> None:
    Path("bad.png").write_text("no picture")
    Path("empty").mkdir()
    answer = cli("predict", run, "bad.png", "none.png", "--json")
    assert answer.code == 3
    assert "None of 2 files can be read" in answer.err
    assert answer.json["num_errors"] == 2
    answer = cli("predict", run, "empty")
    assert (answer.code, answer.out) == (3, "")
    assert "There are no images in empty" in answer.err
    answer = cli("predict", run)
    assert answer.code == 2
    assert "No pictures are named" in answer.err


def test_a_folder_with_the_name_of_a_run_is_taken_for_pictures_if_it_is_all(
    run: Path, cli: Call
) -> None:
    """As after `train --data tiny --name tiny`."""
    draw("tiny/a.png")
    assert cli("predict", "tiny", "--json").json["images"][0]["file"] == "tiny/a.png"
    assert cli("predict", "tiny", "tiny", "--json").json["num_images"] == 1
    assert "No pictures are named" in cli("predict", run).err


def test_the_newest_run_is_taken_where_none_is_named(run: Path, cli: Call) -> None:
    draw("a.png")
    draw("b.png")
    assert cli("predict", "a.png", "--json").json["num_images"] == 1
    assert cli("predict", "none.png", "b.png", "--json").json["num_errors"] == 1
    answer = cli("predict", "tyni", "a.png")  # not a picture that is not there, but a run
    assert answer.code == 4
    assert "did you mean 'tiny'" in answer.err
    assert cli("predict", "a.png", "--checkpoint", run / "checkpoints/best.pt").code == 0


def test_a_run_without_a_checkpoint_is_refused(run: Path, cli: Call) -> None:
    shutil.rmtree(run / "checkpoints")
    draw("a.png")
    answer = cli("predict", "tiny", "a.png")
    assert (answer.code, answer.out) == (4, "")
    assert "There is no checkpoint" in answer.err


def test_the_table_fits_80_columns_and_names_the_likeliest(
    run: Path, cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    draw(f"{'long' * 20}/\x1b[31m{'name' * 10}.png")
    draw("a.png")
    answer = cli("predict", "tiny", ".", "none.png", "--top", "2")
    assert answer.code == 0
    assert max(map(len, answer.out.splitlines())) <= 80
    assert "\x1b" not in answer.out
    one = load_model(run).predict("a.png")
    assert f"{100 * one.probability:.1f}" in answer.out
    assert "Classified 2 of 3 files; 1 cannot be read" in answer.out


def test_a_long_table_ends_and_says_so(
    run: Path, cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cifar_cli.cli.predict.MOST_ROWS", 3)
    for n in range(5):
        draw(f"many/{n}.png")
    answer = cli("predict", run, "many", "--out", "all.csv")
    assert "2 more are not shown" in answer.out
    assert len(rows(Path("all.csv"))) == 5
    assert answer.out.splitlines()[-1] == "all.csv"


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"])
def test_paths_are_read_from_standard_input(
    run: Path, cli: Call, monkeypatch: pytest.MonkeyPatch, separator: str
) -> None:
    names = ["a b.png", "\u00e9.png", "c/d.png", *(["e\nf.png"] if separator == "\0" else [])]
    for name in names:
        draw(name)
    text = separator.join(names) + separator * 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(os.fsencode(text))))
    answer = cli("predict", run, "-", "--json")
    assert answer.code == 0, answer.err
    assert [image["file"] for image in answer.json["images"]] == names


def test_long_lists_of_paths_are_read_in_parts() -> None:
    names = [f"{n:05}/{'x' * 90}.png" for n in range(3000)]
    assert list(paths_of(io.BytesIO("\n".join(names).encode()))) == names
    assert len(next(paths_of(io.BytesIO(b"x" * 10**6)))) <= 2 * MAX_PATH_BYTES
    assert list(paths_of(io.BytesIO(b"\xff.png\n"))) == ["\udcff.png"]


def test_a_folder_that_is_closed_or_linked_in_a_circle_is_no_trap(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw("a/1.png")
    Path("a/loop").symlink_to("..")
    Path("a/link.png").symlink_to("1.png")
    assert [one.file for one in find_pictures(["a"])] == ["a/1.png", "a/link.png"]

    def closed(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", closed)
    assert list(find_pictures(["a"])) == [Found("a", "it cannot be listed: Permission denied")]


def test_files_are_taken_as_they_are_needed(trained: Path, in_tmp: Path) -> None:
    file, taken = str(draw("a.png")), 0

    def endless() -> Iterator[Found]:
        nonlocal taken
        while True:
            taken += 1
            yield Found(file)

    results = classify_files(load_model(trained), endless(), batch_size=64)
    for _ in range(200):
        assert next(results).predictions
    assert taken < 64 * 7
    results.close()


def test_a_csv_file_of_another_program_stays(run: Path, cli: Call) -> None:
    draw("a.png")
    Path("own.csv").write_text("mine\n1\n")
    answer = cli("predict", run, "a.png", "--out", "own.csv")
    assert answer.code == 2
    assert Path("own.csv").read_text() == "mine\n1\n"
    assert cli("predict", run, "a.png", "--out", "new.csv").code == 0
    again = cli("predict", run, "a.png", "--out", "new.csv")
    assert again.code == 0
    assert "Replacing results of an earlier predict" in again.err


def test_a_full_disk_leaves_no_part_of_a_csv_file(run: Path, cli: Call) -> None:
    assert cli("predict", run, draw("a.png"), "--quiet").code == 0  # keeps the threshold
    size, before = 100, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        answer = cli("predict", run, "a.png", "--out", "out.csv", "--json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert answer.code == 7
    assert "Cannot write out.csv" in answer.err
    assert [path.name for path in Path().iterdir() if "out" in path.name] == []


def test_one_in_twenty_validation_images_is_called_unlike_the_others(run: Path, cli: Call) -> None:
    model = load_model(run)
    images = choose_splits(load_dataset(model.config.data), model.config.data, 1).val.images
    for n, pixels in enumerate(images.numpy()):
        Path("val").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(f"val/{n:03}.png")
    document = cli("predict", "tiny", "val", "--json").json
    assert document["num_unlike"] == round(QUANTILE * 50) + 1 == 3
    kept = json.loads((run / "eval" / "unlike_last.json").read_text())
    scores = unlike_scores(model.logits(images))
    assert kept["threshold"] == pytest.approx(float(scores.quantile(QUANTILE)))
    assert [image["unlike"] for image in document["images"]] == (
        scores < kept["threshold"]
    ).tolist()
    # The kept one is used, as long as it is of that checkpoint.
    file = run / "eval" / "unlike_last.json"
    file.write_text(json.dumps(kept | {"threshold": 1e9}))
    assert cli("predict", "tiny", "val", "--json").json["num_unlike"] == 50
    file.write_text(json.dumps(kept | {"threshold": 1e9, "checkpoint_sha256": "0"}))
    assert cli("predict", "tiny", "val", "--json").json["num_unlike"] == 3
    file.write_text("[" * 9)
    assert cli("predict", "tiny", "val", "--json").json["num_unlike"] == 3


def test_without_the_training_images_nobody_knows_what_is_unlike_them(
    in_tmp: Path, cli: Call, class_folders: Callable[..., Path]
) -> None:
    folder = class_folders()
    config = tiny_config(
        data__source=str(folder), data__limit_train=None, data__limit_val=None,
        train__epochs=1, train__batch_size=4,
    )  # fmt: skip
    train(config, "runs/own")
    picture = str(folder / "test" / "cat" / "0000.png")
    assert cli("predict", picture, "--json").json["images"][0]["unlike"] is not None
    draw(str(folder / "test" / "cat" / "new.png"))
    shutil.rmtree("runs/own/eval")
    changed = cli("predict", picture, "--json")
    assert changed.json["images"][0]["unlike"] is None
    assert changed.json["num_unlike"] is None
    assert "holds other images than the run's" in changed.err
    Path("a.png").write_bytes(Path(picture).read_bytes())
    shutil.rmtree(folder)
    gone = cli("predict", "a.png", "--json")
    assert gone.code == 0
    assert gone.json["images"][0]["unlike"] is None
    assert len(gone.err.splitlines()) == 1
    assert "Not known which pictures are unlike" in gone.err


def test_nothing_is_downloaded_to_know_it(run: Path, cli: Call, monkeypatch: object) -> None:
    from cifar_cli.analysis.trained import find_checkpoint
    from cifar_cli.analysis.unlike import _validation_images
    from cifar_cli.errors import DataError

    found = find_checkpoint(run, "last")[1]
    config = tiny_config(data__source="cifar10")
    with pytest.raises(DataError, match="cifar10 is not here"):
        _validation_images(found.__class__(**{**vars(found), "config": config}), None, None)
