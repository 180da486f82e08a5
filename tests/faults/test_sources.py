"""Faults of the network and of CIFAR-10's archive, through the real command line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TINY_FLAGS, Answer, tree
from local_cifar10 import (
    Bomb,
    Server,
    publish_archive,
    publish_batches,
    python2_pickle,
    serving,
    small_batches,
    write_archive,
    write_folder,
)

from cifar_cli.data.sources import download

FLAGS = [*TINY_FLAGS, "--set", "runtime.threads=1"]
Cli = Callable[..., Answer]
TRAIN = ["train", *FLAGS, "--data", "cifar10", "--epochs", "1", "--name", "a"]
PREVIEW = ["preview-augs", *FLAGS, "--data", "cifar10", "--n", "2"]  # quick to start
ARCHIVE = "cifar-10-python.tar.gz"
# A process whose published checksums are those of the archive that its first argument names.
PROGRAM = """
import io, sys, tarfile
from local_cifar10 import NAMES, publish_archive, publish_batches
data = open(sys.argv[1], "rb").read()
publish_archive(data)
with tarfile.open(sys.argv[1]) as archive:
    publish_batches({n: archive.extractfile(f"cifar-10-batches-py/{n}").read() for n in NAMES})
from cifar_cli.cli.app import run
sys.exit(run(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("published") / ARCHIVE, small_batches())


@pytest.fixture
def server(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of a small archive that is taken for the published one."""
    publish_batches(small_batches(), monkeypatch.setattr)
    publish_archive(archive.read_bytes(), monkeypatch.setattr)
    with serving(archive.read_bytes()) as running:
        yield running


@pytest.fixture
def home() -> Path:
    """The folder of downloads."""
    return Path(os.environ["CIFAR_RESNET_HOME"])


def use(server: Server, monkeypatch: pytest.MonkeyPatch, *ways: str) -> None:
    monkeypatch.setenv("CIFAR_RESNET_MIRROR", ",".join(server.url(way) for way in ways))


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(archive: Path, *arguments: str) -> subprocess.Popen[str]:
    tests = Path(__file__).parent.parent
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(archive), *arguments],
        env={**os.environ, "PYTHONPATH": str(tests)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.fault(33)
@pytest.mark.parametrize("command", ["train", "find-lr", "preview-augs"])
def test_without_network_and_data_the_sources_and_the_ways_on_are_told(
    cli: Cli, in_tmp: Path, home: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(urllib.request, "_opener", None)  # which remembers the proxies
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("no_proxy", "")
    answer = cli(command, *FLAGS, "--data", "cifar10")
    assert answer.code == 3
    for url in download.SOURCES:
        assert f"{url}: Connection refused" in answer.err.replace("[Errno 111] ", "")
    assert "--data PATH" in answer.err
    assert "--data shapes" in answer.err
    assert answer.err.count("\n") == 1
    assert tree(in_tmp) == []
    assert tree(home) == [f"{ARCHIVE}.lock"]


BAD = ["page", "plain-page", "breaks", "missing", "rubbish", "long", "unsized-long"]


@pytest.mark.fault(34)
@pytest.mark.parametrize(
    "bad", ["page", "plain-page", "breaks", "missing", "rubbish", "unsized-long"]
)
def test_a_bad_source_is_passed_over_for_the_next(
    cli: Cli, server: Server, home: Path, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    use(server, monkeypatch, bad, "good")
    answer = cli(*TRAIN)
    assert answer.code == 0, answer.err
    assert (home / ARCHIVE).read_bytes() == server.content
    assert server.ways[0] == bad
    # The good one is asked once: what a bad one sent was either a true part, or put away.
    assert server.ways.count("good") == 1


@pytest.mark.fault(34)
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_source_alone_ends_the_start_and_leaves_no_archive(
    cli: Cli, in_tmp: Path, server: Server, home: Path, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    use(server, monkeypatch, bad)
    answer = cli(*TRAIN)
    assert answer.code == 3
    assert f"{server.url(bad)}: " in answer.err
    assert not (home / ARCHIVE).exists()
    assert tree(in_tmp) == []


@pytest.mark.fault(35)
@pytest.mark.parametrize("bad", ["silent", "stalls", "trickle"])
def test_a_source_that_stalls_is_given_up_and_the_next_goes_on_where_it_stopped(
    cli: Cli, server: Server, home: Path, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.setattr(download, "STALL_SECONDS", 0.5)
    use(server, monkeypatch, bad, "good")
    answer = cli(*TRAIN)
    assert answer.code == 0, answer.err
    assert server.ways == [bad, "good"]
    assert server.times[1] - server.times[0] < 5
    (first, then) = server.ranges
    assert first is None
    if bad == "silent":
        assert then is None
    else:
        got = int(str(then).removeprefix("bytes=").removesuffix("-"))
        assert got == 100_000 if bad == "stalls" else 0 < got < 50
    assert (home / ARCHIVE).read_bytes() == server.content


@pytest.mark.fault(35)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_goes_on_where_it_stopped(
    cli: Cli,
    archive: Path,
    server: Server,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    use(server, monkeypatch, "slow")
    part = home / f"{ARCHIVE}.part"
    process = start(archive, *PREVIEW)
    deadline = time.monotonic() + 60
    while not part.is_file() or part.stat().st_size == 0:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number), err
    assert "Traceback" not in err
    assert not (home / ARCHIVE).exists()
    got = part.stat().st_size
    assert 0 < got < len(server.content)
    use(server, monkeypatch, "good")
    answer = cli(*TRAIN)
    assert answer.code == 0, answer.err
    assert server.ranges == [None, f"bytes={got}-"]
    assert (home / ARCHIVE).read_bytes() == server.content


@pytest.mark.fault(36)
def test_two_processes_that_download_at_once_both_succeed_with_one_download(
    in_tmp: Path, archive: Path, server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(server, monkeypatch, "slow")
    processes = [start(archive, *PREVIEW, "--out", name) for name in ("a", "b")]
    while any(process.poll() is None for process in processes):
        if (home / ARCHIVE).exists():  # never a part of it
            assert (home / ARCHIVE).stat().st_size == len(server.content)
        time.sleep(0.02)
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert server.ways == ["slow"]


@pytest.mark.fault(37)
@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
def test_a_batch_with_one_byte_changed_is_refused_and_never_unpickled(
    cli: Cli, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # Unpickled, this batch would leave a file; the changed byte is the last one of its name.
    (in_tmp / "data").mkdir()
    batches = {**small_batches(), name: python2_pickle(Bomb(in_tmp / "trap-a"))}
    publish_batches(batches, monkeypatch.setattr)
    changed = batches[name].replace(b"trap-a", b"trap-b")
    assert sum(a != b for a, b in zip(changed, batches[name], strict=True)) == 1
    folder = write_folder(in_tmp / "data", {**batches, name: changed})
    before = tree(in_tmp)
    answer = cli("train", *FLAGS, "--data", folder)
    assert answer.code == 3
    assert f"{name} is not the published CIFAR-10 batch" in answer.err
    assert tree(in_tmp) == before


@pytest.mark.fault(37)
def test_an_archive_with_one_byte_changed_is_refused_before_it_is_opened(
    cli: Cli, in_tmp: Path, server: Server
) -> None:
    data = bytearray(server.content)
    data[len(data) // 2] ^= 1
    (in_tmp / "mine.tar.gz").write_bytes(data)
    answer = cli("train", *FLAGS, "--data", "mine.tar.gz")
    assert answer.code == 3
    assert "mine.tar.gz is not the published file" in answer.err
    assert tree(in_tmp) == ["mine.tar.gz"]


def evil_archive(path: Path, outside: Path) -> Path:
    return write_archive(path, small_batches(), **{"../x": b"!", str(outside): b"!", "x": b"!"})


@pytest.mark.fault(38)
def test_an_archive_that_leads_outside_is_refused_and_leaves_nothing(
    cli: Cli, in_tmp: Path, server: Server
) -> None:
    (in_tmp / "data").mkdir()
    evil = evil_archive(in_tmp / "data" / ARCHIVE, in_tmp / "outside")
    answer = cli("train", *FLAGS, "--data", evil)
    assert answer.code == 3
    assert f"{ARCHIVE} is not the published file" in answer.err
    assert tree(in_tmp) == [f"data/{ARCHIVE}"]


@pytest.mark.fault(38)
def test_an_archive_that_leads_outside_is_no_download_either(
    cli: Cli, in_tmp: Path, server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = evil_archive(in_tmp / "evil", home.parent / "outside").read_bytes()
    use(server, monkeypatch, "good")
    assert cli(*TRAIN).code == 3
    assert tree(in_tmp) == ["evil"]
    assert tree(home) == [f"{ARCHIVE}.lock"]
    assert not (home.parent / "x").exists()
    assert not (home.parent / "outside").exists()


@pytest.mark.fault(38)
def test_of_any_archive_nothing_but_the_batches_is_read_and_nothing_unpacked(
    cli: Cli, in_tmp: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (in_tmp / "data").mkdir()
    evil = evil_archive(in_tmp / "data" / ARCHIVE, in_tmp / "outside")
    publish_archive(evil.read_bytes(), monkeypatch.setattr)
    answer = cli("preview-augs", *FLAGS, "--data", evil, "--out", "preview")
    assert answer.code == 0, answer.err
    assert [f for f in tree(in_tmp) if not f.startswith("preview/")] == [f"data/{ARCHIVE}"]
