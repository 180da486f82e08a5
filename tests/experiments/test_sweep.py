"""Studies: what is searched, who runs which trial, and workers that are killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import Answer
from hypothesis import given
from hypothesis import strategies as st
from processes import Running, is_alive

from cifar_cli.errors import ConfigError
from cifar_cli.experiments.storage import checked_url, without_password
from cifar_cli.experiments.study_file import read_study
from cifar_cli.experiments.trials import MOST_ATTEMPTS, Attempt, may_run, tally
from cifar_cli.rundir import RunDir

TRIALS = int(os.environ.get("SWEEP_TRIALS", "12"))
KILLS = 5 if TRIALS >= 100 else 3
STUDY = {
    "data": "shapes",
    "recipe": "demo",
    "set": {
        "data.limit_train": 40, "data.limit_val": 20, "data.val_fraction": 0.1,
        "train.epochs": 2, "train.batch_size": 20, "model.width": 1, "runtime.threads": 1,
    },
    "search": {
        "optim.max_lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "augment.cutout_p": [0.0, 0.5],
    },
    "pruner": "none",
    "lost_after": 4,
}  # fmt: skip


def write_study(folder: Path, **changes: object) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}))
    return path


# What is searched


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search": {"optim.max_rl": [1.0]}}, r"unknown setting \(did you mean 'optim.max_lr'"),
        ({"search": {"optim.max_lr": {"low": 1, "high": 0.1}}}, "low must be below high"),
        ({"search": {"optim.max_lr": {"low": 0, "high": 1, "log": True}}}, "low must be above 0"),
        ({"search": {"optim.max_lr": [0.1, -1.0]}}, "with -1.0: .*greater than"),
        ({"search": {"model.widths": [[8, 8, 8]]}}, "has no effect with model.name custom_resnet"),
        ({"search": {"seed": [1, 2]}}, "seed: each training has its own"),
        ({"search": {"train.epochs": [1, 2]}}, "is set for every trial"),
        ({"search": {"optim.max_lr": [0.1, 0.1]}}, "a value stands twice"),
        ({"trails": 3}, r"unknown entry 'trails' \(did you mean 'trials'"),
        ({"search": {}}, "search: "),
    ],
)
def test_a_study_file_that_cannot_be_searched_is_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read_study(write_study(tmp_path, **changes))


def test_a_storage_is_shown_without_its_password(tmp_path: Path) -> None:
    assert (
        without_password("postgresql://me:secret@host:5432/x") == "postgresql://me:***@host:5432/x"
    )
    assert checked_url("postgres://me@host/x", tmp_path) == "postgresql+psycopg://me@host/x"
    with pytest.raises(ConfigError, match=r"mysql://me:\*+@host/x: no database"):
        checked_url("mysql://me:secret@host/x", tmp_path)


# Who runs which trial


def test_a_trial_that_nobody_finished_is_lost_until_it_is_tried_again() -> None:
    first = [Attempt(0, "complete"), Attempt(1, "failed"), Attempt(2, "failed", error="too wide")]
    assert tally(first)._asdict() == {
        "complete": (0,), "pruned": (), "failed": (2,), "running": (), "lost": (1,),
    }  # fmt: skip
    again = [*first, Attempt(3, "running", origin=1)]
    assert tally(again).running == (1,)
    assert tally([*again[:3], Attempt(3, "pruned", origin=1)]).pruned == (1,)


def test_of_two_workers_that_try_a_lost_trial_again_the_first_runs_it() -> None:
    attempts = [Attempt(0, "failed"), Attempt(1, "running", 0), Attempt(2, "running", 0)]
    assert may_run(attempts, 1, wanted=1)
    assert not may_run(attempts, 2, wanted=1)


def test_a_trial_that_ends_every_worker_is_given_up() -> None:
    attempts = [Attempt(0, "failed"), *(Attempt(n, "failed", 0) for n in range(1, MOST_ATTEMPTS))]
    assert tally(attempts[:-1]).lost == (0,)
    assert tally(attempts).failed == (0,)


@given(st.randoms(use_true_random=False), st.integers(1, 6), st.integers(1, 4))
def test_whatever_the_workers_do_no_trial_is_finished_twice_and_none_missing(
    chance: random.Random, wanted: int, workers: int
) -> None:
    """Workers take turns at random, and die at random; the storage alone holds what they know."""
    stored: list[Attempt] = []
    at_work: dict[int, int] = {}  # worker: number of its attempt

    def change(number: int, **fields: object) -> None:
        stored[number] = Attempt(**{**vars(stored[number]), **fields})  # type: ignore[arg-type]

    for turn in range(2000):
        worker = chance.randrange(workers)
        if (number := at_work.pop(worker, None)) is not None:
            is_killed = turn < 500 and chance.random() < 0.3
            change(number, state="failed" if is_killed else "complete")
            continue
        state = tally(stored)
        if state.finished >= wanted:
            break
        waiting = [a.number for a in stored if a.state == "waiting"]
        if state.lost and not waiting:
            stored += [
                Attempt(len(stored) + n, "waiting", state.lost[0])
                for n in range(chance.randint(1, 2))
            ]
        elif waiting or state.begun < wanted or chance.random() < 0.1:
            number = waiting[0] if waiting else len(stored)
            if waiting:
                change(number, state="running")
            else:
                stored.append(Attempt(number, "running"))
            if may_run(stored, number, wanted):
                at_work[worker] = number
            else:
                change(number, state="failed", is_surplus=True)
    state = tally(stored)
    assert len(state.complete) + len(state.failed) == wanted
    for first in state.complete:
        own = [a for a in stored if a.first == first and a.state == "complete"]
        assert len(own) == 1


# The command


def test_a_study_is_trained_shown_and_its_best_trial_confirmed_and_trained_with(
    in_tmp: Path, cli: Callable[..., Answer]
) -> None:
    study = write_study(in_tmp, trials=3, seeds=2)
    found = cli("sweep", str(study), "--json").json
    assert (found["finished"], found["complete"]) == (3, 3)
    runs = sorted((in_tmp / "sweeps/study/trials").glob("*/*"))
    assert [run.relative_to(runs[0].parents[1]).as_posix() for run in runs] == [
        f"000{trial}/seed-{seed}" for trial in range(3) for seed in (1, 2)
    ]
    for trial in found["trials"]:
        folders = [r for r in runs if r.parent.name == f"{trial['number']:04d}"]
        accuracies = [RunDir(run).read_json("result.json")["val_accuracy"] for run in folders]
        assert trial["objective"] == pytest.approx(sum(accuracies) / 2)
        config = RunDir(folders[0]).read_config()
        assert config.optim.max_lr == trial["values"]["optim.max_lr"]
        assert config.augment.cutout_p == trial["values"]["augment.cutout_p"]
    assert found["best"]["objective"] == max(t["objective"] for t in found["trials"])
    assert cli("sweep", "status", str(study), "--json").json == found
    assert (in_tmp / "sweeps/study/study.png").stat().st_size > 10_000

    answer = cli("sweep", "best", str(study), "--write", "best.yaml", "--seeds", "2", "--json")
    confirmed = answer.json["confirmed"]
    seeds = sorted((in_tmp / f"sweeps/study/confirm/{found['best']['number']:04d}").iterdir())
    assert [seed.name for seed in seeds] == ["seed-3", "seed-4"]  # those that it has not used
    fresh = [RunDir(seed).read_json("result.json")["val_accuracy"] for seed in seeds]
    assert confirmed["mean"] == pytest.approx(sum(fresh) / 2)
    header = (in_tmp / "best.yaml").read_text().splitlines()[2]
    assert header.startswith(
        f"# On fresh seeds: validation accuracy {100 * confirmed['mean']:.2f}%"
    )
    cli("train", "--recipe", "best.yaml", "--name", "again")
    assert (in_tmp / "runs/again/result.json").exists()
    again = cli("sweep", "best", str(study), "--write", "best.yaml")
    assert (again.code, "exists already" in again.err) == (2, True)


def test_a_study_that_would_choose_by_the_test_split_is_refused(
    in_tmp: Path, cli: Callable[..., Answer]
) -> None:
    settings = {k: v for k, v in STUDY["set"].items() if k != "data.val_fraction"}  # type: ignore[attr-defined]
    answer = cli("sweep", str(write_study(in_tmp, set=settings)))
    assert answer.code == 2
    assert "test split" in answer.err
    assert "data.val_fraction: 0.1" in answer.err
    assert not list(in_tmp.glob("sweeps/*/trials"))


def test_a_study_that_searches_something_else_under_the_same_name_is_refused(
    in_tmp: Path, cli: Callable[..., Answer]
) -> None:
    cli("sweep", str(write_study(in_tmp, trials=1)))
    changed = write_study(in_tmp, trials=1, search={"optim.max_lr": [0.1, 0.2]})
    answer = cli("sweep", str(changed))
    assert (answer.code, "begun with another search" in answer.err) == (2, True)
    more = cli("sweep", str(write_study(in_tmp)), "--trials", "2", "--json").json
    assert more["finished"] == 2


def test_a_trial_that_cannot_be_trained_is_told_and_not_tried_again(
    in_tmp: Path, cli: Callable[..., Answer]
) -> None:
    tree = {"search": {"device": ["cpu", "mps"]}, "sampler": "random", "trials": 6}
    found = cli("sweep", str(write_study(in_tmp, **tree)), "--json").json
    assert found["finished"] == 6
    for trial in found["trials"]:
        assert trial["state"] == ("complete" if trial["values"]["device"] == "cpu" else "failed")


# Workers that are killed


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A real server on a socket in a folder; the address of its database."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not programs:
        pytest.skip("no PostgreSQL server is installed (Debian: apt install postgresql)")
    binaries, data = programs[-1].parent, folder / "data"
    as_user: list[str] = []
    if os.geteuid() == 0:  # which the server refuses
        as_user = ["runuser", "-u", "postgres", "--"]
        for parent in [folder, *folder.parents][:4]:
            parent.chmod(parent.stat().st_mode | 0o755)
        shutil.chown(folder, "postgres")

    def call(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, cwd=folder, stdout=subprocess.DEVNULL)

    call(str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "me", "--no-sync")
    options = f"-k {folder} -c listen_addresses= -c fsync=off"
    control = [str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log")]
    call(*control, "-o", options, "start")
    try:
        yield f"postgresql://me@/postgres?host={folder}"
    finally:
        call(*control, "-m", "immediate", "stop")


@contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder / 'study.db'}"


def is_training(pid: int, out: Path) -> bool:
    """Whether a process holds the lock of a run, which is a file that it has open."""
    with contextlib.suppress(OSError):
        opened = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        return any(path.startswith(str(out / "trials")) for path in opened)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.fault(118)
@pytest.mark.parametrize("storage", [sqlite, postgresql])
def test_workers_that_are_killed_lose_no_trial_and_none_is_done_twice(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, storage: Callable[..., Iterator[str]]
) -> None:
    """Of two workers one is killed five times in the middle of a trial, and started again."""
    study, out = write_study(tmp_path, trials=TRIALS), tmp_path / "out"
    chance = random.Random(1)
    with storage(tmp_path_factory.mktemp("db")) as url:
        command = "sweep", study, "--storage", url, "--out", out, "--json", "--quiet"
        steady, victim, killed = Running(tmp_path, *command), Running(tmp_path, *command), 0
        began = time.monotonic()
        while killed < KILLS and is_alive(steady.pid):
            assert time.monotonic() - began < 60 + 10 * TRIALS, steady.text()
            if is_training(victim.pid, out):
                time.sleep(chance.uniform(0, 0.1))
                victim.kill()
                assert victim.end() == 128 + signal.SIGKILL
                killed += 1
                victim = Running(tmp_path, *command)
            time.sleep(0.01)
        for process in (steady, victim):
            assert process.end(60 + 10 * TRIALS) == 0, process.text()
        ended = [json.loads(process.text()) for process in (steady, victim)]
    assert killed == KILLS
    assert ended[0]["finished"] == ended[1]["finished"] == TRIALS
    assert ended[0]["complete"] == TRIALS
    numbers = [trial["number"] for trial in ended[0]["trials"]]
    assert len(numbers) == len(set(numbers)) == TRIALS
    for trial in ended[0]["trials"]:
        run = RunDir(out / f"trials/{trial['number']:04d}/seed-1")
        assert [record.epoch for record in run.read_metrics()] == [1, 2]
        assert run.read_json("result.json")["val_accuracy"] == trial["objective"]
    assert len(list(out.glob("trials/*"))) >= TRIALS
