"""What trained and was saved before must give the same figures ever after.

`pytest tests/test_golden.py --overwrite-golden` writes the losses anew. The runs in `golden/` were
made by version 0.1.0, before its configuration had a schema version, and are never made again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from stopped import Stop

from cifar_cli import evaluate, load_config, train
from cifar_cli.errors import Interrupted
from cifar_cli.rundir import RunDir
from cifar_cli.training.checkpoint import load_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
LOSSES = GOLDEN / "losses.json"
STEPS, BATCH = 20, 16
# Rounding differs from one processor to the next, and its effect grows from step to step.
TOLERANCES = [1e-4] * 2 + [2e-2] * 4 + [0.15] * (STEPS - 6)


@pytest.mark.parametrize("recipe", ["baseline", "demo", "fast90"])
def test_twenty_steps_of_a_recipe_have_the_losses_that_they_had(
    recipe: str, in_tmp: Path, request: pytest.FixtureRequest
) -> None:
    short = {"train.batch_size": BATCH, "data.limit_train": 98 * BATCH, "data.limit_val": BATCH}
    fixed = {"device": "cpu", "runtime.threads": 1}
    config = load_config(recipe, data="shapes", env={}, settings={**short, **fixed})
    with pytest.raises(Interrupted):
        train(config, "run", observer=Stop(1, STEPS))
    training = load_checkpoint(RunDir(Path("run")).last).training
    assert training
    losses = [round(float(loss), 6) for loss in training.losses]
    golden = json.loads(LOSSES.read_text(encoding="utf-8")) if LOSSES.exists() else {}
    if request.config.getoption("--overwrite-golden"):
        golden[recipe] = losses
        LOSSES.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    assert len(losses) == STEPS
    for step, (loss, before, close) in enumerate(
        zip(losses, golden[recipe], TOLERANCES, strict=True)
    ):
        assert loss == pytest.approx(before, rel=close), f"step {step}"


@pytest.mark.parametrize("name", ["custom_resnet", "speed_resnet"])
def test_an_old_run_evaluates_and_resumes_to_the_figures_that_it_had(
    name: str, in_tmp: Path
) -> None:
    expected: dict[str, Any] = json.loads((GOLDEN / name / "expected.json").read_text())
    shutil.copytree(GOLDEN / name / "run", "run")
    report = evaluate("run", checkpoint="last")
    assert report.loss == pytest.approx(expected["evaluate"]["loss"], rel=1e-4)
    assert report.correct == pytest.approx(expected["evaluate"]["correct"], abs=1)
    alone = evaluate(checkpoint=Path("run/checkpoints/last.pt"))
    assert (alone.loss, alone.correct) == (report.loss, report.correct)
    config = RunDir(Path("run")).read_config()
    history = train(config, "run", resume=True).history
    figures = [[record.train_loss, record.val_loss] for record in history]
    assert figures == [pytest.approx(pair, rel=1e-2) for pair in expected["history"]]
