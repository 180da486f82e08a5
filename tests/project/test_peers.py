"""The harness that runs another system's script beside the recipes, on a script of our own."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import CHILDREN_TOO, ForkedPython
from PIL import Image

from cifar_cli.data.sources.shapes import load_shapes

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"

# A script as peers write them: it cannot run without a GPU, and prints a table.
SCRIPT = """
import torch
from torch import nn

@torch.compile(mode="max-autotune")
def double(x):
    y = x.bfloat16()
    y *= 2  # must not change x
    return y

data = torch.load("cifar10/train.pt", map_location=torch.device("cuda"))
images = data["images"].half() / 255
model = nn.Linear(3, 10).cuda().half()
model.compile(mode="max-autotune")
starter, ender = (torch.cuda.Event(enable_timing=True) for _ in range(2))
starter.record()
weight = torch.ones(3, 3, device="cuda", dtype=torch.float16)
outputs = model(double(images.reshape(-1, 3) @ weight))
ender.record()
torch.cuda.synchronize()
seconds = starter.elapsed_time(ender) / 1000
assert torch.equal(weight, torch.ones(3, 3)) and images.max() <= 1
for epoch in range(8):
    print(f"|  {epoch}  |  0.5000  |  0.{epoch + 1}000  |    |  {seconds + epoch:.4f}  |")
print(f"|  end  |  {len(images) / 10000:.4f}  |  {outputs.dtype}  {outputs.device}")
"""
PEER = r"""
name: pretended
data: train_test_pt
epochs: 8
replace:
  - ["range(8)", "range({epochs})"]
epoch: '\|\s*\d+\s*\|\s*[\d.]+\s*\|\s*(?P<accuracy>[\d.]+)\s*\|\s*\|\s*(?P<train_seconds>[\d.]+)'
end: '\|\s*end\s*\|\s*(?P<accuracy_six_views>[\d.]+)\s*\|\s*torch.float32  cpu'
"""


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, PEERS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def compare() -> Any:
    return loaded("compare")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_the_sides_take_turns_until_both_have_had_their_runs(compare: Any) -> None:
    a, b, peer = "a", "b", "peer"
    assert compare.interleaved({a: 2, peer: 2}) == [(a, 0), (peer, 0), (peer, 1), (a, 1)]
    two = [(a, 0), (b, 0), (peer, 0), (b, 1), (a, 1), (a, 2), (b, 2)]
    assert compare.interleaved({a: 3, b: 3, peer: 1}) == two


def test_a_peer_gets_images_and_labels_together_and_not_class_by_class(
    compare: Any, tmp_path: Path
) -> None:
    shapes = load_shapes(60, 20)
    by_class = [images.subset(images.labels.argsort()) for images in (shapes.train, shapes.test)]
    compare.train_test_pt(replace(shapes, train=by_class[0], test=by_class[1]), tmp_path)
    for name, images in zip(("train", "test"), by_class, strict=True):
        written = torch.load(tmp_path / "cifar10" / f"{name}.pt")
        assert len(written["labels"][:10].unique()) > 3
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        assert torch.equal(written["images"], images.images[order])
        assert torch.equal(written["labels"], images.labels[order])


def test_a_gpu_script_runs_on_the_cpu_beside_a_recipe(
    script: Path, tmp_path: Path, forked_python: ForkedPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHILDREN_TOO, "1")
    peer = tmp_path / "pretended.yaml"
    peer.write_text(PEER)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        "augment: {form: tensor}\nmodel: {name: speed_resnet, widths: [4, 4, 4]}\n"
        "optim: {name: muon}\nschedule: {name: linear}\n"
        "data: {limit_train: 64, limit_val: 20}\ntrain: {epochs: 1, batch_size: 32}\n"
    )
    command = [forked_python.path, PEERS / "compare.py", peer, "--script", script]
    command += ["--data", "shapes", "--recipe", recipe, "--runs", "1"]
    command += ["--peer-epochs", "3", "1", "--out", tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # On a busy machine the pretended 2 seconds and something take longer.
    assert "pretended, 1 epochs: 10.00% single view" in done.stdout
    told = r"pretended, 3 epochs: 30\.00% single view, 50\.00% six views, ([2-9]|\d\d)\.\d s "
    assert re.search(told, done.stdout)
    ours, theirs, _ = json.loads((tmp_path / "out" / "tiny-pretended-3_1.json").read_text())
    assert ours["accuracy"]["n"] == theirs["accuracy"]["n"] == 1
    assert [accuracy for _, accuracy in theirs["runs"][0]["curve"]] == [0.1, 0.2, 0.3]
    assert ours["train_seconds"]["mean"] > 0
    script.write_text(SCRIPT + "# another one")
    again = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert "pretended-3-2-1.json is of another script; give another --out" in again.stderr
    (tmp_path / "out" / "a-b-pretended-3.json").write_text("[]")  # a report of two recipes
    command = [forked_python.path, PEERS / "frontier.py", "--out", tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^tiny: .* n = 1$", done.stdout, re.MULTILINE)
    assert re.search(r"^pretended, 3 epochs: .* 30\.00% single view", done.stdout, re.MULTILINE)
    with Image.open(tmp_path / "out" / "frontier.png") as picture:
        assert picture.size == (1200, 675)


def test_a_replacement_that_does_not_occur_is_refused(script: Path) -> None:
    command = [
        sys.executable,
        PEERS / "cuda_on_cpu.py",
        script,
        "--replace",
        "range(9)",
        "range(1)",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "'range(9)' does not occur in the script" in done.stderr


def test_no_replacement_is_made_in_what_another_one_wrote() -> None:
    edited = loaded("cuda_on_cpu").edited
    source = "ceil(8 * n); ceil(3 * n)"
    assert edited(source, [("ceil(8 *", "ceil(3 *"), ("ceil(3 *", "ceil(1 *")]) == (
        "ceil(3 * n); ceil(1 * n)"
    )
    assert edited(source, []) == source


def test_a_peer_that_takes_other_epochs_than_it_was_told_is_no_result(
    compare: Any, tmp_path: Path
) -> None:
    peer = {"name": "pretended", "epoch": r"(?P<accuracy>\.\d) (?P<train_seconds>\d)",
            "end": "end (?P<accuracy_six_views>.+)"}  # fmt: skip
    command = [sys.executable, "-c", "print('.5 1'); print('.6 2'); print('end .7')"]
    assert compare.run_peer(peer, command, tmp_path, 1.5)["accuracy"] == 0.6
    with pytest.raises(SystemExit, match="pretended took 2 epochs, not 3"):
        compare.run_peer(peer, command, tmp_path, 3)


def test_output_without_results_is_no_result(compare: Any) -> None:
    peer = {"name": "pretended", "epoch": r"(?P<accuracy>\d)", "end": "end"}
    with pytest.raises(ValueError, match="no results in the output of pretended"):
        compare.read_output(peer, "nothing")


def test_only_what_is_ready_within_a_time_counts() -> None:
    frontier = loaded("frontier")
    quick, slow, poor = (
        frontier.Point(name, 1, seconds, accuracy, 0.9)
        for name, seconds, accuracy in (("quick", 10, 0.5), ("slow", 30, 0.7), ("poor", 20, 0.4))
    )
    points = [slow, poor, quick]
    assert [frontier.best_within(points, s) for s in (9, 10, 29, 30)] == [None, quick, quick, slow]
    assert frontier.columns(points) == ([10 / 60, 20 / 60, 30 / 60], [50, 40, 70])
    means = frontier.point("both", [(10.0, 0.5, 0.6), (20.0, 0.7, 0.8)])
    assert means == ("both", 2, 15.0, 0.6, 0.7)
