"""Figures of a report: calibration by hand, planted label errors, and what is there of a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Answer, random_images

from cifar_cli import errors, evaluate, load_model
from cifar_cli.analysis.calibration import calibrate
from cifar_cli.analysis.evaluate import Evaluation, Predictions, summarise_predictions
from cifar_cli.analysis.label_errors import suspected_rows
from cifar_cli.analysis.report import make_report
from cifar_cli.analysis.trained import Exported
from cifar_cli.rundir import RunDir

Cli = Callable[..., Answer]


def test_calibration_error_is_that_worked_out_by_hand() -> None:
    """Bins of a quarter: (0, .25] has one image, (.5, .75] two, (.75, 1] three; edges are low."""
    confidence = torch.tensor([0.25, 0.60, 0.75, 0.80, 0.90, 1.00])
    is_correct = torch.tensor([True, False, True, True, True, False])
    found = calibrate(confidence, is_correct, 4)
    assert [one.num_images for one in found.bins] == [1, 0, 2, 3]
    assert found.bins[1].accuracy is None
    assert found.bins[2].accuracy == pytest.approx(1 / 2)
    assert found.bins[3].confidence == pytest.approx(0.9)
    by_hand = 1 / 6 * abs(1 - 0.25) + 2 / 6 * abs(1 / 2 - 0.675) + 3 / 6 * abs(2 / 3 - 0.9)
    assert found.error == pytest.approx(by_hand)
    assert found.confidence == pytest.approx(4.3 / 6)
    assert found.accuracy == pytest.approx(4 / 6)


def test_a_network_as_confident_as_accurate_has_no_calibration_error() -> None:
    is_correct = torch.arange(100) % 5 != 0
    assert calibrate(torch.full((100,), 0.8), is_correct).error == pytest.approx(0, abs=1e-7)
    assert calibrate(torch.ones(3), torch.zeros(3, dtype=torch.bool)).error == 1


def test_planted_label_errors_are_found_the_least_probable_first() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(200) % 4
    logits = 6 * torch.nn.functional.one_hot(labels, 4) + torch.rand(200, 4, generator=generator)
    planted = [10, 51, 120]
    wrong = labels.clone()
    wrong[planted] = (labels[planted] + 1) % 4
    logits[51] *= 2  # the most confident that the label is wrong
    found = suspected_rows(logits, wrong)
    assert set(found) == set(planted)
    assert found[0] == 51


@pytest.mark.parametrize(("images", "classes", "labelled"), [(1, 10, 1), (4, 2, 2), (30, 300, 20)])
def test_few_images_and_classes_without_any_are_no_obstacle(
    images: int, classes: int, labelled: int
) -> None:
    labels = torch.arange(images) % labelled
    logits = torch.randn(images, classes, generator=torch.Generator().manual_seed(1))
    assert set(suspected_rows(logits, labels)) <= set(range(images))


def evaluation_of(run: Path, count: int = 40) -> Evaluation:
    """Of noise, which a network gets wrong."""
    trained, images = load_model(run), random_images(count)
    return summarise_predictions(
        Predictions(trained, RunDir(run), images, trained.logits(images.images), 0.0, (), "noise")
    )


def test_a_report_has_the_figures_of_the_run_and_the_worst_mistakes(trained: Path) -> None:
    evaluation = evaluate(trained)
    wrong = evaluation.num_images - evaluation.correct
    report = make_report(evaluation, n=5)
    losses = [shown.mistake.loss for shown in report.mistakes]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == min(5, wrong)
    for shown in report.mistakes:
        assert shown.image.equal(evaluation.predictions.images.images[shown.mistake.row])
        assert shown.activation is not None
        assert shown.activation.shape == (32, 32)
    assert report.run
    assert (report.run.state, len(report.run.epochs)) == ("completed", 3)
    assert report.run.epochs[-1].val_accuracy == pytest.approx(evaluation.accuracy)
    assert report.run.environment["device"] == "cpu"
    assert "width: 4" in report.configuration


def test_a_run_with_damaged_files_gives_a_report_of_the_rest(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "metrics.csv").write_text("epoch\nnone\n")
    (run / "env.json").write_text("[")
    warning = '{"event": "warning", "what": "Few.", "remedy": "More."}\n'
    (run / "events.jsonl").write_text(f'{{"event": 1}}\n\x00[\n{warning}{warning}{{"ev')
    report = make_report(evaluation_of(run), n=2)
    assert report.run
    assert report.run.epochs == ()
    assert report.run.steps
    assert report.run.damaged[0].startswith(f"Cannot read {run}/metrics.csv: the line")
    assert report.run.environment == {}
    assert report.run.warnings == (("Few.", "More."),)


@pytest.mark.fault(104)
@pytest.mark.parametrize("missing", ["captum", "cleanlab"])
def test_a_missing_package_of_the_extra_leaves_its_part_out_and_says_how_to_get_it(
    cli: Cli, trained: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    find = errors.importlib.util.find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == missing else find(name)
    )
    answer = cli("report", trained, "--out", "report.html", "--json")
    assert answer.code == 0, answer.err
    assert f"needs {missing}, which is not installed" in answer.err
    assert "pip install '.[report]'" in answer.err
    page = Path("report.html").read_text(encoding="utf-8")
    assert f"needs {missing}, which is not installed" in page
    assert answer.json["has_maps"] is (missing != "captum")
    assert (answer.json["num_suspects"] is None) is (missing == "cleanlab")


def test_an_exported_file_has_no_maps_and_the_report_says_so(trained: Path) -> None:
    evaluation = evaluation_of(trained)
    model = evaluation.predictions.trained
    graph = Exported(model.network, model.class_names, model.config, model.runtime, Path("a.onnx"))
    predictions = replace(evaluation.predictions, trained=graph, run=None)
    report = make_report(replace(evaluation, predictions=predictions), n=2)
    assert report.no_maps.startswith("a.onnx is an exported file, which has no activation maps.")
    assert [shown.activation for shown in report.mistakes] == [None, None]
    assert report.run is None


def test_a_perfect_result_has_nothing_to_show(trained: Path) -> None:
    evaluation = evaluation_of(trained)
    predictions = evaluation.predictions
    logits = 9.0 * torch.nn.functional.one_hot(predictions.images.labels, 10)
    report = make_report(summarise_predictions(replace(predictions, logits=logits)))
    assert (report.mistakes, report.suspects, report.num_suspects) == ((), (), 0)
