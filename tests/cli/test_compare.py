"""`compare` end to end: what follows from two runs, and which are refused."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Answer, rows, tiny_config, tree
from PIL import Image

from cifar_cli import evaluate, train
from cifar_cli.analysis.compare import compare
from cifar_cli.analysis.matching import match_images
from cifar_cli.analysis.significance import mcnemar, tango_interval, welch
from cifar_cli.data.types import ImageSet
from cifar_cli.output.figures.differences import ranked
from cifar_cli.storage import write_json

Cli = Callable[..., Answer]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of the same images, of other images, and of pictures."""
    folder = tmp_path_factory.mktemp("compared")
    runs = folder / "runs"
    train(tiny_config(train__epochs=1, data__limit_val=200), runs / "first")
    train(tiny_config(train__epochs=4, data__limit_val=200, model__width=6), runs / "second")
    train(tiny_config(train__epochs=1, seed=2), runs / "other")
    rng = np.random.default_rng(0)
    for name in ("photos", "copy"):
        for split, count in (("train", 6), ("val", 4)):
            for label in ("cat", "dog"):
                (folder / name / split / label).mkdir(parents=True)
                for number in range(count):
                    pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                    file = folder / name / split / label / f"{number}.png"
                    source = folder / "photos" / split / label / f"{number}.png"
                    if name == "photos":
                        Image.fromarray(pixels).save(file)
                    else:  # the same files under other names, in another order
                        shutil.copy(source, file.with_name(f"{9 - number}-copy.png"))
    for name, size in (("photos", 32), ("copy", 40)):
        small = {"data__limit_train": None, "data__limit_val": None, "train__batch_size": 4}
        config = tiny_config(
            data__source=str(folder / name), data__image_size=size, train__epochs=1, **small
        )
        train(config, runs / f"own-{name}")
    return folder


@pytest.fixture
def here(made: Path, in_tmp: Path) -> Path:
    """A copy of the runs in the current folder."""
    shutil.copytree(made / "runs", in_tmp / "runs")
    return in_tmp


def test_two_runs_are_compared_and_everything_is_written(cli: Cli, here: Path) -> None:
    answer = cli("compare", "first", "second", "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    before, after = (evaluate(f"runs/{name}") for name in ("first", "second"))
    assert [run["accuracy"] for run in found["runs"]] == [before.accuracy, after.accuracy]
    assert found["difference"] == pytest.approx(after.accuracy - before.accuracy)
    labels = before.predictions.images.labels
    right = [one.predictions.logits.argmax(1) == labels for one in (before, after)]
    gained, lost = int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())
    assert found["p_value"] == found["p_value_holm"] == mcnemar(gained, lost)
    assert found["interval"] == list(tango_interval(gained, lost, 200))
    (pair,) = found["comparisons"]
    assert (pair["gained"], pair["lost"]) == (gained, lost)
    assert len(found["flipped"]) == gained + lost == len(pair["flipped"])
    assert sum(one["gained"] for one in pair["per_class"]) == gained
    assert {entry["key"]: entry["values"] for entry in found["settings"]} == {
        "model.width": [4, 6], "train.epochs": [1, 4],
    }  # fmt: skip
    indices = before.predictions.images.indices.tolist()
    for entry in found["flipped"]:
        row = indices.index(entry["index"])
        is_gain = entry["change"] == "wrong to right"
        assert (bool(right[0][row]), bool(right[1][row])) == (not is_gain, is_gain)
        assert (entry["after"] == entry["true"]) == is_gain
    folder = here / "runs/second/compare/first"
    assert sorted(tree(folder)) == [
        "classes.png", "comparison.json", "flipped.csv", "flipped.png", "loss_accuracy.png",
    ]  # fmt: skip
    assert sorted(found["files"]) == [f"runs/second/compare/first/{n}" for n in tree(folder)]
    assert json.loads((folder / "comparison.json").read_text()) == found
    assert [int(row["index"]) for row in rows(folder / "flipped.csv")] == [
        entry["index"] for entry in found["flipped"]
    ]
    again = cli("compare", "first", "second")
    assert again.code == 0
    assert "Replacing results of an earlier compare" in again.err
    for text in ("second", "(McNemar's exact test)", "Settings that differ", "model.width"):
        assert text in again.out


def test_several_runs_are_compared_with_the_first_and_corrected(cli: Cli, here: Path) -> None:
    shutil.copytree("runs/second", "runs/third")
    files = ("--limit-val", 100, "--split", "test", "--format", "svg")
    answer = cli("compare", "first@last", "second@best", "runs/third", *files)
    assert answer.code == 0, answer.err
    assert "corrected for 2 comparisons (Holm). The intervals are not." in answer.out
    folder = Path("runs/third/compare/first_second@best")
    found = json.loads((folder / "comparison_test_last_n100.json").read_text())
    assert [run["name"] for run in found["runs"]] == ["first", "second@best", "third"]
    assert found["num_images"] == 100
    same = evaluate("runs/first", split="test", limit=100)  # the same draw of images
    assert found["runs"][0]["accuracy"] == same.accuracy
    raw = [pair["p_value"] for pair in found["comparisons"]]
    assert min(pair["p_value_holm"] for pair in found["comparisons"]) == min(1, 2 * min(raw))
    assert sorted(found["files"]) == sorted(map(str, folder.iterdir()))
    assert "flipped_1_second@best_test_last_n100.csv" in tree(folder)


def test_a_run_is_not_better_than_itself(cli: Cli, here: Path) -> None:
    last = "runs/first/checkpoints/last.pt"
    answer = cli("compare", "first", "first")
    assert answer.code == 0, answer.err
    assert "first (2) is the same network as first (1): there is no difference." in answer.out
    found = cli("compare", "first", last, "--json").json
    assert (found["difference"], found["interval"], found["p_value"]) == (0, [0, 0], 1)
    assert (found["flipped"], found["better"]) == ([], None)
    assert found["files"] == ["compare/comparison.json"]  # a file is in no run


def test_images_are_matched_by_their_files_whatever_their_names_order_and_size(
    cli: Cli, here: Path
) -> None:
    found = compare(["own-photos", "own-copy"])
    ours, theirs = (evaluate(f"runs/own-{name}") for name in ("photos", "copy"))
    assert [run.accuracy for run in found.runs] == [ours.accuracy, theirs.accuracy]
    assert len(found.images) == 8
    assert found.files == ours.predictions.files
    said = dict(zip(theirs.predictions.files, theirs.predictions.logits.argmax(1), strict=True))
    for file, predicted in zip(found.files, found.runs[1].predicted, strict=True):
        folder, name = file.rsplit("/", 1)
        assert said[f"{folder}/{9 - int(name[0])}-copy.png"] == predicted


def test_classes_in_another_order_are_matched_by_name(cli: Cli, here: Path) -> None:
    path = Path("runs/second/checkpoints/last.pt")
    content = torch.load(path, weights_only=True)
    turned = [*range(9, -1, -1)]
    content["class_names"] = [content["class_names"][number] for number in turned]
    name = next(n for n in content["weights"] if n.startswith("classifier"))
    content["weights"][name] = content["weights"][name][turned]
    (expected,) = compare(["first", "second"]).pairs
    torch.save(content, path)
    found = compare(["first", "second"])
    assert found.pairs[0].difference == expected.difference
    assert expected.difference.difference != 0
    assert found.pairs[0].per_class == expected.per_class
    assert found.runs[1].accuracy == evaluate("runs/second").accuracy


@pytest.mark.fault(114)
def test_other_images_or_classes_are_refused_with_what_to_do(cli: Cli, here: Path) -> None:
    answer = cli("compare", "first", "other")
    assert answer.code == 3
    assert "have different images (--split val): of 200 and 50, both have" in answer.err
    assert "Use --split test, or name the same images for all with --data." in answer.err
    assert len(compare(["first", "other"], split="test").images) == 1000
    answer = cli("compare", "first", "own-photos")
    assert answer.code == 3
    assert "have different classes: only first has circle, ring" in answer.err
    assert "only own-photos has cat, dog" in answer.err
    assert not Path("runs/own-photos/compare").exists()


def test_images_without_files_are_matched_by_their_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (6, 4, 4, 3), dtype=torch.uint8, generator=generator)
    pixels[5] = pixels[4]  # a copy
    one = ImageSet(pixels, torch.arange(6) % 2, torch.arange(6))
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    found = match_images(one, one.subset(order))
    assert found
    assert found.is_complete
    assert torch.equal(order[found.rows], torch.arange(6))
    changed = ImageSet(pixels, 1 - one.labels, one.indices)
    found = match_images(one, changed)
    assert found
    assert not found.is_complete
    assert found.other_labels == 4  # of the copies each has the other's label
    assert match_images(one, ImageSet(pixels[:, :3, :3], one.labels, one.indices)) is None


@pytest.mark.fault(115)
def test_a_damaged_run_or_one_without_a_checkpoint_is_named_before_anything_is_evaluated(
    cli: Cli, here: Path
) -> None:
    last = here / "runs/second/checkpoints/last.pt"
    last.write_bytes(last.read_bytes()[:-1000])
    answer = cli("compare", "first", "second")
    assert answer.code == 4
    assert "runs/second/checkpoints/last.pt" in answer.err
    last.unlink()
    answer = cli("compare", "first", "second")
    assert answer.code == 4
    assert "There is no checkpoint runs/second/checkpoints/last.pt." in answer.err
    answer = cli("compare", "first", "secnd")
    assert (answer.code, "did you mean 'second'?" in answer.err) == (4, True)
    (here / "runs/first/metrics.csv").write_text("damaged\n")
    answer = cli("compare", "first", "second@best")
    assert answer.code == 0, answer.err
    assert "No curves are drawn: Cannot read runs/first/metrics.csv" in answer.err


@pytest.mark.fault(117)
def test_a_full_disk_is_told_and_no_half_file_is_left(cli: Cli, here: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        answer = cli("compare", "first", "second", "--json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert answer.code == 7
    assert "Cannot write runs/second/compare/first/classes.png" in answer.err
    assert tree(here / "runs/second/compare") == []


def test_nothing_is_written_through_a_link_or_over_a_strangers_file(cli: Cli, here: Path) -> None:
    (here / "elsewhere").mkdir()
    (here / "runs/second/compare").symlink_to(here / "elsewhere")
    answer = cli("compare", "first", "second")
    assert (answer.code, "compare is a link" in answer.err) == (7, True)
    Path("mine").mkdir()
    Path("mine/flipped.csv").write_text("a,b\n1,2\n")
    assert cli("compare", "first", "second", "--out", "mine").code == 2
    assert tree(here / "elsewhere") == []


def test_a_wrong_use_says_what_to_write(cli: Cli, here: Path) -> None:
    cases = {
        ("first",): "Two runs are needed. For example: cifar-resnet compare first second",
        ("first", "second", "--split", "tset"): "did you mean 'test'?",
        ("first", "second", "--checkpoint", "x.pt"): "choose last or best",
        ("--bench", "bench"): "There is no bench.json in bench",
        ("--bench", "bench", "--limit-val", 5): "--limit-val has no meaning with --bench",
    }
    for words, text in cases.items():
        answer = cli("compare", *words)
        assert answer.code in (2, 4)
        assert text in answer.err


def bench_folder(accuracies: dict[str, list[float]], **changes: object) -> None:
    """What `bench` leaves, as far as `compare` reads it."""
    runs = [
        {"recipe": name, "seed": seed, "accuracy": value}
        for name, values in accuracies.items()
        for seed, value in enumerate(values, start=1)
    ]
    for number, name in enumerate(accuracies):
        config = tiny_config(**(changes if number else {}))
        folder = Path(f"bench/{name}-1")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    write_json(Path("bench/bench.json"), {"schema_version": 1, "runs": runs})


def test_recipes_of_a_bench_are_compared_over_their_seeds(cli: Cli, in_tmp: Path) -> None:
    accuracies = {"fast90": [0.90, 0.91, 0.905], "fast92": [0.92, 0.925, 0.93], "x": [0.9, 0.9]}
    bench_folder(accuracies)
    answer = cli("compare", "--bench", "bench", "fast90", "fast92", "--json")
    assert answer.code == 0, answer.err
    expected = welch(accuracies["fast90"], accuracies["fast92"])
    assert answer.json["difference"] == pytest.approx(0.02)
    assert answer.json["interval"] == pytest.approx(list(expected.interval))
    assert answer.json["p_value"] == expected.p_value
    assert [run["num_runs"] for run in answer.json["runs"]] == [3, 3]
    printed = cli("compare", "--bench", "bench").out
    assert "fast92 is better than fast90 by 2.00 points of accuracy" in printed
    assert "Welch's test, 3 and 3 seeds" in printed
    assert "No clear difference: x has 0.50 points less accuracy than fast90" in printed
    assert "corrected for 2 comparisons" in printed
    answer = cli("compare", "bench")
    assert "Compare its recipes: cifar-resnet compare --bench bench" in answer.err


def test_one_seed_other_images_and_damaged_results_of_a_bench_are_refused(
    cli: Cli, in_tmp: Path
) -> None:
    bench_folder({"fast90": [0.9, 0.91], "fast92": [0.92]})
    answer = cli("compare", "--bench", "bench")
    assert answer.code == 2
    assert "fast92 has a single run in bench." in answer.err
    answer = cli("compare", "--bench", "bench", "fast90", "fast93")
    assert (answer.code, "did you mean 'fast92'?" in answer.err) == (2, True)
    bench_folder({"fast90": [0.9, 0.91], "fast92": [0.92, 0.9]}, data__limit_val=60)
    answer = cli("compare", "--bench", "bench")
    assert answer.code == 2
    assert "validated on different images: data.limit_val 50 and 60." in answer.err
    bench_folder({"fast90": [0.9, 1.91], "fast92": [0.92, 0.9]})
    answer = cli("compare", "--bench", "bench")
    assert (answer.code, "an entry of runs is wrong" in answer.err) == (4, True)


def test_of_many_classes_the_ends_are_shown() -> None:
    from cifar_cli.analysis.paired import ClassDifference

    classes = [ClassDifference(str(n), 9, 0, 0, 0, 0, n / 100, (-1, 1)) for n in range(100)]
    shown, left_out = ranked([*classes, ClassDifference("none", 0, 0, 0, 0, 0, None, (-1, 1))])
    assert (len(shown), left_out) == (40, 60)
    assert (shown[0].name, shown[-1].name) == ("0", "99")
