"""Figures over predictions, against values worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cifar_cli import evaluate, load_model
from cifar_cli.analysis.evaluate import summarise_predictions
from cifar_cli.analysis.metrics import (
    ConfusedPair,
    class_figures,
    confused_pairs,
    confusion_matrix,
    mean_of,
    top_k_accuracy,
    wilson_interval,
    worst_and_best,
)
from cifar_cli.analysis.mistakes import find_mistakes, prediction_rows
from cifar_cli.analysis.tta import tta_forward
from cifar_cli.data.sources.load import load_dataset
from cifar_cli.data.splits import choose_splits
from cifar_cli.data.types import ImageSet
from cifar_cli.errors import CheckpointError, ConfigError, DataError


def test_wilson_intervals_from_the_literature() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for correct, total, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_share_and_stays_within_bounds(counts: tuple[int, int]) -> None:
    correct, total = counts
    low, high = wilson_interval(correct, total)
    assert 0 <= low <= correct / total + 1e-12
    assert correct / total - 1e-12 <= high <= 1
    assert low < high


def test_confusion_and_class_figures_by_hand() -> None:
    labels, predicted = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 1, 1, 1])
    matrix = confusion_matrix(labels, predicted, 3)
    assert matrix == [[1, 2, 0], [0, 2, 0], [0, 0, 0]]
    a, b, c = class_figures(matrix, ("a", "b", "c"))
    assert (a.num_images, a.correct, a.accuracy, a.precision) == (3, 1, 1 / 3, 1.0)
    assert (b.num_images, b.correct, b.accuracy, b.precision) == (2, 2, 1.0, 0.5)
    assert (c.num_images, c.correct, c.accuracy, c.precision) == (0, 0, None, None)
    assert (a.num_predicted, b.num_predicted, c.num_predicted) == (1, 4, 0)
    assert (a.f1, b.f1, c.f1) == (pytest.approx(0.5), pytest.approx(2 / 3), None)
    assert mean_of([a.accuracy, b.accuracy, c.accuracy]) == pytest.approx(2 / 3)
    assert mean_of([None]) is None
    assert confused_pairs(matrix, ("a", "b", "c")) == (ConfusedPair("a", "b", 2, 2 / 3),)


def test_pairs_are_ranked_by_count_then_by_share() -> None:
    matrix = [[5, 2, 0], [3, 1, 2], [0, 2, 0]]
    pairs = confused_pairs(matrix, ("a", "b", "c"), 3)
    assert [(p.true, p.predicted, p.count) for p in pairs] == [
        ("b", "a", 3),
        ("c", "b", 2),
        ("b", "c", 2),
    ]


def test_top_k_counts_a_class_among_the_likeliest() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    labels = torch.tensor([1, 2, 1])
    assert top_k_accuracy(logits, labels, 1) == pytest.approx(1 / 3)
    assert top_k_accuracy(logits, labels, 2) == pytest.approx(2 / 3)
    assert top_k_accuracy(logits, labels, 5) == 1.0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60),
)
def test_macro_f1_is_that_of_its_definition(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = (torch.tensor(column) for column in zip(*pairs, strict=True))
    figures = class_figures(confusion_matrix(labels, predicted, 4), tuple("abcd"))
    for one in figures:
        if one.accuracy is None:
            assert one.f1 is None
        elif not one.precision or not one.accuracy:
            assert one.f1 == 0
        else:
            mean = 2 / (1 / one.precision + 1 / one.accuracy)
            assert one.f1 == pytest.approx(mean)


def test_mistakes_are_ranked_by_loss_confidence_or_index() -> None:
    logits = torch.tensor([[0.0, 1.0, -9.0], [3.0, 0.0, 0.0], [0.0, 0.0, 9.0], [9.0, 0.0, 0.0]])
    labels, indices = torch.tensor([0, 1, 1, 0]), torch.tensor([40, 30, 20, 10])
    by_loss = find_mistakes(logits, labels, indices, "loss")
    assert [m.index for m in by_loss] == [20, 30, 40]
    assert [m.index for m in find_mistakes(logits, labels, indices, "index")] == [20, 30, 40]
    first = by_loss[0]
    assert (first.row, first.true, first.predicted) == (2, 1, 2)
    assert first.loss == pytest.approx(math.log(2 + math.exp(9)))
    assert first.confidence == pytest.approx(math.exp(9) / (2 + math.exp(9)))


def test_predictions_are_listed_image_by_image() -> None:
    logits = torch.tensor([[0.0, 1.0, -9.0], [3.0, 0.0, 0.0]])
    pixels = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    images = ImageSet(pixels, torch.tensor([0, 0]), torch.tensor([7, 5]))
    first, second = prediction_rows(logits, images, ("a", "b", "c"), ("x/1.png", "x/2.png"))
    assert list(first)[:4] == ["index", "file", "true", "predicted"]
    assert (first["index"], first["file"], first["true"], first["predicted"]) == (
        7, "x/1.png", "a", "b",
    )  # fmt: skip
    assert first["probability_1"] == pytest.approx(math.e / (1 + math.e), abs=1e-4)
    assert second["class_1"] == "a"
    assert sum(second[f"probability_{n}"] for n in (1, 2, 3)) == pytest.approx(1, abs=1e-5)
    assert second["loss"] == pytest.approx(math.log(1 + 2 * math.exp(-3)), abs=1e-5)
    assert "file" not in prediction_rows(logits, images, ("a", "b", "c"))[0]


def test_of_many_classes_the_worst_and_the_best_are_chosen() -> None:
    classes = class_figures(torch.eye(9, dtype=int).tolist(), tuple("abcdefghi"))
    assert worst_and_best(classes) == (list(classes), [])
    matrix = [[0] * 300 for _ in range(300)]
    for number, row in enumerate(matrix):
        row[number], row[number - 1] = 300 - number, number
    worst, best = worst_and_best(class_figures(matrix, tuple(map(str, range(300)))))
    assert [one.name for one in worst] == [str(n) for n in range(299, 279, -1)]
    assert [one.name for one in best] == ["4", "3", "2", "1", "0"]


def test_ranking_by_confidence_differs_from_ranking_by_loss() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.1, -5.0]])
    labels, indices = torch.tensor([1, 2]), torch.tensor([0, 1])
    assert [m.index for m in find_mistakes(logits, labels, indices, "confidence")] == [0, 1]
    assert [m.index for m in find_mistakes(logits, labels, indices, "loss")] == [1, 0]


class Corner(nn.Module):
    """The top left pixel as the logit."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, 0, 0]


class Inner(nn.Module):
    """A pixel away from the border as the logit."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, 2, 1]


def test_six_views_are_the_image_and_it_moved_two_ways_each_with_its_mirror_image() -> None:
    image = torch.zeros(1, 1, 5, 6, requires_grad=True)
    tta_forward(Inner(), "flip-translate")(image).sum().backward()
    weights = torch.zeros(5, 6)
    weights[2, [1, 4]] = 1 / 4
    weights[1, [0, 3]] = weights[3, [2, 5]] = 1 / 8
    assert image.grad is not None
    assert torch.equal(image.grad[0, 0], weights)


def test_the_views_border_is_reflected() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    model = Corner()
    assert tta_forward(model, "none")(image).item() == 0
    assert tta_forward(model, "flip")(image).item() == (0 + 3) / 2
    # Reflected border: up-left shows pixel (1, 1) in its corner, down-right pixel (1, 1) too.
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="reflect")[0, 0]
    up_left = (padded[0, 0] + padded[0, 3]) / 2
    down_right = (padded[2, 2] + padded[2, 5]) / 2
    expected = (0 + 3) / 2 / 2 + (up_left + down_right) / 4
    assert tta_forward(model, "flip-translate")(image).item() == pytest.approx(expected.item())


def test_the_mean_of_views_is_taken_in_fp32() -> None:
    """Also of logits in bf16, as in mixed precision, where there is no 257 and no 514."""
    image = torch.full((1, 1, 4, 4), 256.0, dtype=torch.bfloat16)
    image[..., 0] = 258
    assert tta_forward(Corner(), "flip")(image).item() == 257


def test_views_leave_a_constant_image_alone() -> None:
    image = torch.full((2, 3, 8, 8), 0.7)
    for kind in ("flip", "flip-translate"):
        torch.testing.assert_close(tta_forward(Corner(), kind)(image), Corner()(image))


def test_evaluation_repeats_the_figures_of_training(trained: Path) -> None:
    result = evaluate(trained)
    from cifar_cli.rundir import RunDir

    last = RunDir(trained).read_metrics()[-1]
    assert result.accuracy == pytest.approx(last.val_accuracy)
    assert result.loss == pytest.approx(last.val_loss, rel=1e-5)
    assert result.num_images == 50
    assert sum(map(sum, result.confusion)) == 50
    assert sum(row[i] for i, row in enumerate(result.confusion)) == result.correct
    assert result.interval[0] < result.accuracy < result.interval[1]


def test_the_loaded_model_predicts_what_evaluation_counts(trained: Path) -> None:
    model = load_model(trained)
    assert not model.training
    found = evaluate(trained).predictions
    config = found.trained.config
    splits = choose_splits(load_dataset(config.data), config.data, config.seed)
    mean, std = torch.tensor(config.data.mean), torch.tensor(config.data.std)
    pixels = ((splits.val.images / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        torch.testing.assert_close(model(pixels), found.logits, atol=1e-4, rtol=1e-4)


def test_splits_and_limits_choose_the_images(trained: Path) -> None:
    assert evaluate(trained, split="test").num_images == 1000
    assert evaluate(trained, split="train").num_images == 100
    assert evaluate(trained, limit=20).num_images == 20
    assert evaluate(trained, split="test", limit=30).num_images == 30


def test_best_and_a_file_outside_of_a_run_are_evaluated(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "weights.pt"
    copy.write_bytes((trained / "checkpoints" / "best.pt").read_bytes())
    assert evaluate(checkpoint=copy).accuracy == evaluate(trained, checkpoint="best").accuracy


def test_more_views_give_other_logits_and_still_a_sane_result(trained: Path) -> None:
    plain, flipped = (evaluate(trained, tta=kind).predictions for kind in ("none", "flip"))
    assert not torch.equal(plain.logits, flipped.logits)
    assert summarise_predictions(flipped).num_images == 50


def test_wrong_names_are_refused_with_the_right_ones(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--split 'valid' "):
        evaluate(trained, split="valid")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--tta"):
        evaluate(trained, tta="mirror")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="not last or best"):
        evaluate(trained, checkpoint="lst")
    with pytest.raises(CheckpointError, match="No run"):
        evaluate(tmp_path / "nothing")


def test_images_of_other_classes_are_refused(trained: Path, class_folders: object) -> None:
    folder = class_folders()  # type: ignore[operator]
    with pytest.raises(DataError, match="cat, dog, owl"):
        evaluate(trained, data=str(folder))
