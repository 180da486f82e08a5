"""Kill one run again and again, and compare what it becomes with a run that was never killed.

    python tests/soak.py [--kills 60] [--seed 1] [--out FILE.json]

Every process is the real command with --resume, and gets a real SIGKILL: at a random moment, or
while a checkpoint is being written. Then a run of two epochs is killed at every single call that
makes, renames, syncs or removes something, and the same with a disk that is full just then. Ends
with exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from conftest import rows
from kills import count_calls, sweep
from processes import Running
from stopped import FLAGS as TINY
from stopped import same_run

from cifar_cli.rundir import RunDir
from cifar_cli.training.checkpoint import load_checkpoint, load_newest

EPOCHS = 100
FLAGS = [*TINY, "--epochs", EPOCHS, "--quiet"]


def position(run: RunDir) -> tuple[int, int]:
    """Epoch and step of the newest checkpoint; it must load, and the best one too."""
    newest = load_newest(run.last)
    assert not run.best.exists() or load_checkpoint(run.best).weights
    return (newest.training.epoch, newest.training.step) if newest and newest.training else (0, 0)


def kill_once(folder: Path, run: RunDir, chance: random.Random) -> bool:
    """Start or resume the run and kill it; whether a checkpoint was being written just then."""
    # Some save at every step, and some at the ends of epochs only.
    minutes = chance.choice(["1e-9", "5"])
    flags = [*FLAGS, "--set", f"train.save_minutes={minutes}", "--run-dir", run.path, "--resume"]
    process = Running(folder, "train", *flags)
    if chance.random() < 0.5:
        process.wait_for(lambda: any(run.last.parent.glob(".*.tmp")))
    else:
        process.process.join(chance.uniform(0, 1.5))
    process.kill()
    code = process.end()
    assert code == 137, f"exit code {code}: {process.text()}"
    return any(run.last.parent.glob(".*.tmp"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CIFAR_RESNET_HOME"] = str(folder / "home")
        started = time.monotonic()
        whole, run = RunDir(folder / "whole"), RunDir(folder / "killed")
        assert Running(folder, "train", *FLAGS, "--run-dir", whole.path).end(600) == 0
        during_a_save, reached = 0, (0, 0)
        for number in range(1, arguments.kills + 1):
            during_a_save += kill_once(folder, run, chance)
            before, reached = reached, position(run)
            assert reached >= before, f"went back from {before} to {reached}"
            print(f"kill {number}: epoch {reached[0]}, step {reached[1]}", flush=True)
        process = Running(folder, "train", *FLAGS, "--run-dir", run.path, "--resume")
        assert process.end(600) == 0, process.text()
        calls, two_epochs = count_calls(folder / "two")
        faults = [
            fault
            for how in ("kill", "full")
            for fault in sweep(folder, how, range(1, calls + 1), two_epochs)
        ]
        epochs = [int(row["epoch"]) for row in rows(run.path / "metrics.csv")]
        figures = {
            "kills": arguments.kills,
            "during_a_save": during_a_save,
            "epochs": EPOCHS,
            "reached_by_the_last_kill": list(reached),
            "equal": same_run(whole, run),
            "each_epoch_once": epochs == list(range(1, EPOCHS + 1)),
            "calls": calls,
            "faults_at_calls": faults,
            "seconds": round(time.monotonic() - started, 1),
        }
    print(json.dumps(figures, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if figures["equal"] and figures["each_epoch_once"] and not faults else 1


if __name__ == "__main__":
    sys.exit(main())
