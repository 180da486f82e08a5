"""`evaluate`, `misclassified`, `plot`, `preview-augs`, `summary`, `recipes`, end to end."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK_FLAGS, TINY_FLAGS, Answer, rows, tree
from forked import ForkedPython
from PIL import Image

from cifar_cli.config import recipe_names, recipe_text
from cifar_cli.models import build_model
from cifar_cli.output.console import Screen
from cifar_cli.training.checkpoint import load_checkpoint, save_checkpoint
from cifar_cli.training.optim import build_optimizer
from cifar_cli.training.state import TrainState

Cli = Callable[..., Answer]


def is_picture(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
        pixels = np.asarray(image.convert("RGB"))
        return image.format == "PNG" and min(image.size) > 200 and bool(pixels.std() > 5)


def test_summary_shows_the_course_projects_counts(cli: Cli) -> None:
    answer = cli("summary")
    assert answer.code == 0
    assert "Total params: 6,573,120" in answer.out
    assert "Total mult-adds (M): 379.31" in answer.out
    for column in ("Kernel Shape", "Input Shape", "Output Shape", "Param #", "Mult-Adds"):
        assert column in answer.out
    assert "[1, 512, 4, 4]" in answer.out


def test_summary_as_json_follows_depth_width_and_classes(
    cli: Cli, class_folders: Callable[..., Path]
) -> None:
    shallow = cli("summary", "--depth", 1, "--json").json
    assert shallow["total_params"] == shallow["trainable_params"] == 6_573_120
    assert round(shallow["total_mult_adds"] / 1e6, 2) == 379.31
    assert {layer["depth"] for layer in shallow["layers"]} == {0, 1}
    three = cli("summary", "--json", "--set", "model.width=8", "--data", class_folders()).json
    assert three["layers"][0]["output"] == [1, 3]


@pytest.mark.parametrize("width", [80, 116, 117, 200])
def test_the_layer_table_is_whole_at_any_width(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr("cifar_cli.output.console.results", lambda: Screen(sys.stdout, width))
    answer = cli("summary")
    assert "…" not in answer.out
    assert "75,497,472" in answer.out
    assert max(map(len, answer.out.splitlines())) <= width


@pytest.mark.parametrize("group", [[], ["recipes"]], ids=["app", "group"])
def test_without_a_command_the_help_is_shown_and_nothing_else(cli: Cli, group: list[str]) -> None:
    answer = cli(*group)
    assert answer.code == 2
    assert "Usage" in answer.out + answer.err
    assert "Error" not in answer.err


def test_names_in_square_brackets_are_shown_as_they_are(
    cli: Cli, class_folders: Callable[..., Path]
) -> None:
    data = class_folders(classes=("[cat]", "US$ [b]", "$^$"), counts=(12, 6))
    trained = cli("train", *TINY_FLAGS, "--data", data, "--run-dir", "r[/a]", "--epochs", 1)
    assert trained.code == 0, trained.err
    assert "Run directory: r[/a]" in trained.out
    assert "run directory r[/a]" in trained.err
    for command in ("evaluate", "misclassified"):
        answer = cli(command, "r[/a]")
        assert answer.code == 0, answer.err
        assert "[cat]" in answer.out
        assert "r[/a]/" in answer.out


@pytest.mark.fault(29)
def test_a_network_that_gives_no_numbers_is_not_evaluated(
    cli: Cli, trained: Path, in_tmp: Path
) -> None:
    found = load_checkpoint(trained / "checkpoints/last.pt")
    config = found.config
    model = build_model(config.model, 10, config.data.image_size)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    state = TrainState(model, build_optimizer(model, config.optim, 0.1))
    save_checkpoint(in_tmp / "broken.pt", state, config, found.class_names, "", weights_only=True)
    answer = cli("evaluate", "--checkpoint", "broken.pt")
    assert answer.code == 5
    assert "diverged" in answer.err
    assert tree(in_tmp) == ["broken.pt"]


@pytest.mark.fault(32)
@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_that_has_seen_enough_causes_no_complaint(forked_python: ForkedPython) -> None:
    command = [forked_python.command, "summary"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.fault(32)
@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_progress_that_cannot_be_printed_never_ends_training(
    forked_python: ForkedPython, in_tmp: Path
) -> None:
    command = [forked_python.command, "train", *TINY_FLAGS, "--json", "--run-dir", "r"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.close()
        result = json.loads(process.stdout.read())
    assert process.returncode == 0
    assert result["epochs_completed"] == len(rows(in_tmp / "r" / "metrics.csv")) == 2


def test_evaluate_prints_figures_and_leaves_pictures(cli: Cli, trained: Path, in_tmp: Path) -> None:
    answer = cli("evaluate", trained, "--out", "o")
    assert answer.code == 0
    assert "95% interval" in answer.out
    assert "hourglass" in answer.out
    assert tree(in_tmp) == [
        f"o/val_last{end}"
        for end in (".json", "_classes.png", "_confusion.png", "_predictions.csv")
    ]
    for text in ("Recall %", "Precision %", "Balanced accuracy", "macro F1", "top-5", "Most conf"):
        assert text in answer.out
    found = rows(in_tmp / "o/val_last_predictions.csv")
    assert len(found) == 50
    assert all(row["predicted"] == row["class_1"] for row in found)
    assert all(float(row["probability_1"]) >= float(row["probability_5"]) > 0 for row in found)
    report = json.loads((in_tmp / "o/val_last.json").read_text())
    assert sum(row["true"] == row["predicted"] for row in found) == report["correct"]
    losses = [float(row["loss"]) for row in found]
    assert np.mean(losses) == pytest.approx(report["loss"], abs=1e-5)
    assert is_picture(in_tmp / "o/val_last_confusion.png")
    assert is_picture(in_tmp / "o/val_last_classes.png")


def test_results_of_other_images_never_replace_the_full_ones(
    cli: Cli, trained: Path, in_tmp: Path
) -> None:
    flags = ("--out", "o", "--quiet")
    best = trained / "checkpoints/best.pt"
    (in_tmp / "weights.pt").write_bytes(best.read_bytes())
    for options in (
        ["--limit-val", 20],
        ["--split", "test"],
        ["--tta", "flip"],
        ["--checkpoint", best],
        ["--checkpoint", "weights.pt"],
        [],
    ):
        for command in ("evaluate", "misclassified"):
            if command == "evaluate" or "--tta" not in options:
                assert cli(command, trained, *flags, *options).code == 0
    stems = {name.name.removesuffix(".json") for name in (in_tmp / "o").glob("*.json")}
    (of_file,) = (stem for stem in stems if "weights" in stem)
    assert re.fullmatch(r"val_weights-[0-9a-f]{6}", of_file)
    others = {"val_last", "val_last_n20", "test_last", "val_last_flip", "val_best"}
    assert stems - {of_file} == others
    galleries = {path.stem for path in (in_tmp / "o").glob("gallery*")}
    tags = {f"_{stem}" for stem in stems} - {"_val_last", "_val_last_flip"} | {""}
    assert galleries == {f"gallery{tag}" for tag in tags}


def test_earlier_results_are_replaced_with_a_word_and_other_files_never(
    cli: Cli, trained: Path, in_tmp: Path
) -> None:
    commands: dict[str, tuple[object, ...]] = {
        "evaluate": (trained,),
        "misclassified": (trained,),
        "plot": (trained,),
        "preview-augs": ("--data", "shapes", "--n", 4),
        "find-lr": (*QUICK_FLAGS, "--num-iter", 18, "--start-lr", "1e-5", "--end-lr", 0.1),
    }
    for command, arguments in commands.items():
        first = cli(command, *arguments, "--out", command, "--json")
        assert first.code == 0, first.err
        assert "Replacing" not in first.err
        again = cli(command, *arguments, "--out", command, "--json")
        assert again.code == 0, again.err
        assert f"Replacing results of an earlier {command} in {command}: " in again.err
        (in_tmp / again.json["files"][0]).write_bytes(b"a picture of my own")
        refused = cli(command, *arguments, "--out", command)
        assert refused.code == 2
        assert "cifar-resnet has not written it" in refused.err
        assert (in_tmp / first.json["files"][0]).read_bytes() == b"a picture of my own"


@pytest.mark.parametrize("form", ["svg", "pdf"])
def test_figures_are_written_in_the_format_that_is_asked_for(
    cli: Cli, trained: Path, in_tmp: Path, form: str
) -> None:
    for command in ("evaluate", "misclassified", "plot"):
        for _ in range(2):
            answer = cli(command, trained, "--out", "o", "--format", form, "--json")
            assert answer.code == 0, answer.err
        assert any(file.endswith(f".{form}") for file in answer.json["files"])
        assert not any(file.endswith(".png") for file in answer.json["files"])
    assert cli("plot", trained, "--format", "bmp").code == 2


def test_evaluate_as_json(cli: Cli, trained: Path) -> None:
    answer = cli("evaluate", trained, "--json", "--quiet", "--tta", "flip", "--out", "o")
    report = answer.json
    assert {
        "accuracy",
        "interval",
        "loss",
        "correct",
        "num_images",
        "per_class",
        "confusion",
    } <= report.keys()
    assert report["accuracy"] == report["correct"] / report["num_images"]
    assert len(report["per_class"]) == len(report["confusion"]) == 10
    assert answer.err == ""
    assert json.loads(Path("o/val_last_flip.json").read_text()) == report


def test_evaluate_a_file_without_a_run_leaves_nothing(
    cli: Cli, trained: Path, in_tmp: Path
) -> None:
    answer = cli("evaluate", "--checkpoint", trained / "checkpoints/best.pt", "--json")
    assert answer.json["num_images"] == 50
    assert answer.json["files"] == []
    assert tree(in_tmp) == []


@pytest.mark.parametrize("sort", ["loss", "confidence", "index"])
def test_misclassified_leaves_a_gallery_and_a_table(
    cli: Cli, trained: Path, in_tmp: Path, sort: str
) -> None:
    answer = cli("misclassified", trained, "--n", 10, "--sort", sort, "--out", "o", "--json")
    report = answer.json
    assert report["count"] == len(report["images"]) == 10
    assert set(report["images"][0]) == {"index", "true", "predicted", "confidence", "loss"}
    assert all(image["true"] != image["predicted"] for image in report["images"])
    values = [image[sort] for image in report["images"]]
    assert values == sorted(values, reverse=sort != "index")
    assert report["files"] == ["o/gallery.png", "o/misclassified.csv"]
    assert is_picture(in_tmp / "o/gallery.png")
    found = rows(in_tmp / "o/misclassified.csv")
    assert [int(row["index"]) for row in found] == [image["index"] for image in report["images"]]


def test_misclassified_prints_a_table_of_the_newest_run(cli: Cli, in_tmp: Path) -> None:
    assert cli("train", *TINY_FLAGS, "--quiet", "--name", "a").code == 0
    answer = cli("misclassified", "--n", 10)
    assert answer.code == 0
    assert "Predicted class" in answer.out
    assert (in_tmp / "runs/a/misclassified/gallery.png").is_file()
    assert cli("plot").code == 0
    assert tree(in_tmp / "runs/a/plots") == [
        "learning_rate.png",
        "loss_accuracy.png",
        "step_loss.png",
    ]


def test_more_mistakes_than_there_are_shows_all(cli: Cli, trained: Path) -> None:
    report = cli("misclassified", trained, "--n", 5000, "--out", "o", "--json").json
    assert report["count"] == report["total"] <= 50


def test_plot_overlays_runs(cli: Cli, trained: Path, in_tmp: Path) -> None:
    answer = cli("plot", trained, trained, "--json")
    assert answer.json["files"] == [
        f"comparison/{name}.png" for name in ("loss_accuracy", "learning_rate", "step_loss")
    ]
    assert all(is_picture(in_tmp / file) for file in answer.json["files"])


def test_preview_augs_shows_exactly_what_training_sees(cli: Cli, in_tmp: Path) -> None:
    answer = cli("preview-augs", *TINY_FLAGS, "--n", 12, "--epoch", 4, "--index", 7, "--json")
    assert answer.json["files"] == [
        "preview/samples.png",
        "preview/samples_labelled.png",
        "preview/augmentations.png",
        "preview/image_7_epoch_4.png",
    ]
    assert all(is_picture(in_tmp / file) for file in answer.json["files"][:3])
    import torch
    from conftest import tiny_config

    from cifar_cli.data.keyed import epoch_order
    from cifar_cli.data.loader import TrainLoader
    from cifar_cli.data.sources.load import load_dataset

    config = tiny_config(data__limit_train=None)
    loader = TrainLoader(load_dataset(config.data).train, config, torch.device("cpu"))
    place = epoch_order(1, 4, 5000).tolist().index(7)
    seen = torch.cat([pixels for pixels, _ in loader.epoch(4)])[place]
    shown = torch.from_numpy(np.array(Image.open(in_tmp / "preview/image_7_epoch_4.png")))
    assert torch.equal(loader.normalise(shown[None])[0], seen)


def test_recipes_are_listed_shown_and_copied(cli: Cli, in_tmp: Path) -> None:
    listed = cli("recipes", "list").out
    as_json = cli("recipes", "list", "--json").json["recipes"]
    assert [r["name"] for r in as_json] == recipe_names()
    assert all(r["about"].endswith(".") for r in as_json)  # a sentence, and not its beginning
    widths = {r["name"]: r["widths"] for r in as_json}
    assert (widths["baseline"], widths["fast92"]) == ([64], [64, 192, 256])
    for name in recipe_names():
        assert name in listed
        assert cli("recipes", "show", name).out == recipe_text(name)
    assert cli("recipes", "copy", "demo", "mine.yaml").code == 0
    assert (in_tmp / "mine.yaml").read_text() == recipe_text("demo")
    again = cli("recipes", "copy", "demo", "mine.yaml")
    assert again.code == 2
    assert "exists already" in again.err
    (in_tmp / "link.yaml").symlink_to("nowhere")
    assert "exists already" in cli("recipes", "copy", "demo", "link.yaml").err
    assert (in_tmp / "link.yaml").is_symlink()
    assert shlex.split(cli("recipes", "copy", "demo", "my own.yaml").out)[-1] == "my own.yaml"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["evaluate"], 4, "Train one first"),
        (["evaluate", "nothing"], 4, "No run 'nothing'"),
        (["evaluate", "--checkpoint", "x.pt"], 4, "x.pt"),
        (["misclassified", "--n", "10"], 4, "Train one first"),
        (["misclassified", "--n", "0"], 2, "--n"),
        (["misclassified", "--sort", "size"], 2, "size"),
        (["plot", "nothing"], 4, "No run 'nothing'"),
        (["preview-augs", "--data", "shapes", "--index", "5000"], 2, "0 to 4999"),
        (["preview-augs", "--data", "nowhere"], 3, "nowhere"),
        (["summary", "--depth", "0"], 2, "--depth"),
        (["summary", "--data", "nowhere"], 3, "nowhere"),
        (["summary", "--data", "."], 3, "no images in class folders"),
        (["--debug", "recipes", "show", "dmo"], 2, "did you mean 'demo'"),
        (["recipes", "show", "dmo"], 2, "did you mean 'demo'"),
        (["sumary"], 2, "summary"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_bad_input_ends_with_one_message_and_leaves_nothing(
    cli: Cli, in_tmp: Path, arguments: list[str], code: int, word: str
) -> None:
    answer = cli(*arguments)
    assert answer.code == code, answer.err
    assert answer.out == ""
    lines = answer.err.splitlines()
    assert len(lines) == 1 or "--debug" in arguments
    assert word in lines[-1]
    assert tree(in_tmp) == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--split", "valid"], "did you mean 'val'"),
        (["--tta", "flp"], "did you mean 'flip'"),
        (["--device", "tpu"], "tpu"),
        (["--limit-val", "0"], "0"),
    ],
)
def test_evaluate_refuses_wrong_values(
    cli: Cli, trained: Path, options: list[str], word: str
) -> None:
    before = tree(trained)
    answer = cli("evaluate", trained, *options)
    assert answer.code == 2, answer.err
    assert word in answer.err
    assert tree(trained) == before


def test_a_fault_of_the_program_is_named_as_one(
    cli: Cli, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("cifar_cli.analysis.evaluate.summarise_predictions", broken)
    answer = cli("evaluate", trained)
    assert answer.code == 1
    assert "Internal error: ZeroDivisionError: oh" in answer.err
    assert "Traceback" not in answer.err
    again = cli("--debug", "evaluate", trained)
    assert again.code == 1
    assert "Traceback" in again.err
    assert "in broken" in again.err
