"""Loader processes: started once, the same bits, told when they die, and gone at the end."""

from __future__ import annotations

import gc
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import TINY, on_cpu, random_images, tiny_config

from cifar_cli import load_config, train
from cifar_cli.data import worker_pool
from cifar_cli.data.loader import TrainLoader
from cifar_cli.data.worker import Layout
from cifar_cli.errors import CifarError, ConfigError, DataError, OutOfMemoryError, StorageError
from cifar_cli.models import build_model
from cifar_cli.training.loop import train_epochs
from cifar_cli.training.optim import build_optimizer
from cifar_cli.training.state import TrainState

CPU = torch.device("cpu")
BY_IMAGE = {"augment__form": "albumentations"}
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def loader_with(workers: int, images: int = 70, **changes: object) -> TrainLoader:
    config = tiny_config(**BY_IMAGE, data__workers=workers, **changes)
    return TrainLoader(random_images(images), config, CPU)


def processes(loader: TrainLoader) -> list[subprocess.Popen[bytes]]:
    assert loader.pool is not None
    return [worker.process for worker in loader.pool.workers]


@pytest.fixture
def pair() -> Iterator[TrainLoader]:
    """A loader with two processes that are ready."""
    with loader_with(2) as loader:
        loader.wait_until_ready()
        yield loader


def test_batches_are_those_of_the_training_process_whatever_was_left_unread(
    pair: TrainLoader,
) -> None:
    alone = loader_with(0)
    started = [process.pid for process in processes(pair)]
    for read in (3, 0, 1, 3):  # an iteration that ends early leaves requests unanswered
        for epoch, first in ((1, 0), (2, 1), (3, 2)):
            expected = list(alone.epoch(epoch, first))
            batches = pair.epoch(epoch, first)
            for (pixels, labels), (a, b) in zip(expected[:read], batches, strict=False):
                assert torch.equal(pixels, a)
                assert torch.equal(labels, b)
            if read == 3:
                assert list(batches) == []
    assert [process.pid for process in processes(pair)] == started


def test_there_are_no_more_processes_than_batches() -> None:
    with loader_with(5, images=33) as loader:
        assert len(processes(loader)) == 2


@posix
def test_stops_do_not_reach_them(pair: TrainLoader) -> None:
    for process in processes(pair):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
    assert len(list(pair.epoch(1))) == 3


@posix
@pytest.mark.fault(74)
def test_one_that_is_killed_is_told_at_once(pair: TrainLoader) -> None:
    batches = pair.epoch(1)
    next(batches)
    processes(pair)[1].kill()
    started = time.monotonic()
    told = r"loader process was killed.*signal 9.*data\.workers=0"
    with pytest.raises(OutOfMemoryError, match=told):
        list(pair.epoch(2))
    assert time.monotonic() - started < 5


@posix
@pytest.mark.fault(74)
def test_one_that_is_stuck_is_told(pair: TrainLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "PATIENCE_SECONDS", 0.2)
    processes(pair)[0].send_signal(signal.SIGSTOP)
    with pytest.raises(OutOfMemoryError, match="no batch for 0 s"):
        list(pair.epoch(1))


@posix
@pytest.mark.fault(72)
def test_after_a_stop_none_is_waited_for_long_and_the_steps_so_far_are_kept(
    pair: TrainLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "STOP_SECONDS", 0.3)
    config = tiny_config(**BY_IMAGE, data__workers=2)
    model = build_model(config.model, 10, 32)
    state = TrainState(model, build_optimizer(model, config.optim, 0.01))
    pair.heed(lambda: state.step == 1)

    def on_step(epoch: int, step: int) -> None:
        for process in processes(pair):
            process.send_signal(signal.SIGSTOP)
        for worker in pair.pool.workers if pair.pool else ():  # what is already done comes no more
            with suppress(queue.Empty):
                while worker.replies.get(timeout=0.5):
                    pass

    ended = list(train_epochs(state, pair, pair.images, config, on_cpu(config), on_step=on_step))
    assert ended == [None]
    assert (state.epoch, state.step, len(state.losses)) == (1, 1, 1)
    assert not state.history


def test_one_that_cannot_augment_says_at_which_image() -> None:
    images = random_images(70)
    with TrainLoader(images, tiny_config(**BY_IMAGE, data__workers=1), CPU) as loader:
        assert loader.pool is not None
        loader.pool.shared.indices[:] = -1  # no key of a random generator is negative
        with pytest.raises(DataError, match="Training image -1 cannot be augmented in epoch 1"):
            next(loader.epoch(1))


@pytest.mark.fault(74)
def test_one_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "albumentationsx-2.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: albumentationsx\nVersion: 2.1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with loader_with(1) as loader, pytest.raises(ConfigError, match="AGPL"):
        loader.wait_until_ready()


PRINTS = """
import atexit, sys
for number in range(5):
    print([number, "", "", ""])
print("a printed remark", end="")
atexit.register(print, "goodbye")
"""


@pytest.mark.fault(96)
def test_what_is_printed_is_not_taken_for_a_reply_and_paths_may_be_objects(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(PRINTS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    expected = list(loader_with(0).epoch(1))
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path, None, b"bytes", 7])
    with loader_with(2) as loader:
        for (a, b), (c, d) in zip(expected, loader.epoch(1), strict=True):
            assert torch.equal(a, c)
            assert torch.equal(b, d)
    monkeypatch.setattr(sys, "path", [tmp_path])  # it cannot load the program, and still says so
    with pytest.raises(CifarError, match="A loader process cannot load the program"):
        loader_with(1).wait_until_ready()


@pytest.mark.fault(74)
def test_a_program_that_is_no_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "no-such-python")
    with pytest.raises(OutOfMemoryError, match=r"cannot be started.*data\.workers=0"):
        loader_with(1)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CifarError, match=r"loader process .*data\.workers=0"):
        loader_with(1).wait_until_ready()


@pytest.mark.parametrize("end", ["closed", "forgotten"])
@pytest.mark.fault(75)
def test_none_is_left_behind(end: str) -> None:
    loader = loader_with(2)
    started = processes(loader)
    if end == "closed":
        loader.close()
        loader.close()  # once more changes nothing
    del loader
    gc.collect()
    assert all(process.poll() is not None for process in started)


@posix
@pytest.mark.fault(75)
def test_none_outlives_a_training_process_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, sys, torch\n"
        "sys.path[:0] = sys.argv[1:]\n"
        "from test_worker_pool import loader_with, processes\n"
        "loader = loader_with(2)\n"
        "loader.wait_until_ready()\n"
        "print(*[process.pid for process in processes(loader)], flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *map(str, Path(__file__).parents[:2])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    deadline = time.monotonic() + 5
    left = [Path(f"/proc/{pid}") for pid in ended.stdout.split()]
    assert len(left) == 2
    while any(map(is_running, left)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(process: Path) -> bool:
    """Whether it is there and no zombie, which nobody in a container may have waited for."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_they_know_no_torch_and_are_sent_little() -> None:
    probe = "import sys, cifar_cli.data.worker; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", probe], text=True) == "False\n"
    with loader_with(1) as loader:
        sent: list[bytes] = []
        process = processes(loader)[0]
        assert process.stdin is not None
        write = process.stdin.write
        process.stdin.write = lambda line: sent.append(line) or write(line)  # type: ignore[assignment, func-returns-value]
        assert len(list(loader.epoch(1))) == 3
        assert len(sent) == 3
        assert max(map(len, sent)) < 50


def test_the_layout_is_as_large_as_its_arrays() -> None:
    with loader_with(2) as loader:
        assert loader.pool is not None
        arrays = loader.pool.shared
        assert sum(array.nbytes for array in arrays) == Layout(70, 32, 32, 6).size


def test_without_nameless_memory_a_file_is_shared_and_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    expected = list(loader_with(0).epoch(1))
    with loader_with(2) as loader:
        assert len(list(tmp_path.iterdir())) == 1
        for (a, b), (c, d) in zip(expected, loader.epoch(1), strict=True):
            assert torch.equal(a, c)
            assert torch.equal(b, d)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises((StorageError, OutOfMemoryError), match="MB to share images"):
        loader_with(1)


SCRIPT = """
import multiprocessing, sys
multiprocessing.set_start_method(sys.argv[1])
from cifar_cli import load_config, train
result = train(load_config(env={}, settings=%r), sys.argv[2])
print(result.val_loss)
"""


@pytest.mark.start_method
def test_a_script_needs_no_guard_and_gets_the_same_bits_under_each_start_method(
    tmp_path: Path,
) -> None:
    settings = {**TINY, "augment.form": "albumentations", "runtime.threads": 1}
    alone = train(load_config(env={}, settings=settings), tmp_path / "alone").val_loss
    script = tmp_path / "script.py"
    script.write_text(SCRIPT % {**settings, "data.workers": 2})
    for method in multiprocessing.get_all_start_methods():
        ended = subprocess.run(
            [sys.executable, script, method, tmp_path / method],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert float(ended.stdout) == alone
