"""The download: sources in order, resumed, verified, one at a time. A real server on localhost."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cifar10 import Server, publish_archive, serving

from cifar_cli.data import download
from cifar_cli.data.download import download_archive
from cifar_cli.errors import DataError

CONTENT = random.Random(1).randbytes(600_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    publish_archive(CONTENT, monkeypatch.setattr)
    with serving(CONTENT) as running:
        yield running


def use(server: Server, monkeypatch: pytest.MonkeyPatch, *ways: str) -> None:
    monkeypatch.setenv("CIFAR_RESNET_MIRROR", ",".join(server.url(way) for way in ways))


def test_own_mirrors_come_before_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_RESNET_MIRROR", "http://a.example/x, http://b.example/y")
    assert download.sources()[:2] == ("http://a.example/x", "http://b.example/y")
    assert download.sources()[-1].startswith("https://www.cs.toronto.edu/")


def test_the_archive_arrives_whole_and_is_fetched_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(server, monkeypatch, "good")
    seen: list[int] = []
    path = download_archive(tmp_path, lambda what, done, total: seen.append(done))
    assert path.read_bytes() == CONTENT
    assert len(CONTENT) in seen
    assert download_archive(tmp_path) == path
    assert len(server.ranges) == 1


@pytest.mark.parametrize("bad", ["missing", "page", "rubbish", "long-gone", "no-address"])
def test_a_bad_source_is_passed_over(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bad: str
) -> None:
    use(server, monkeypatch, bad, "good")
    if bad == "long-gone":
        monkeypatch.setenv("CIFAR_RESNET_MIRROR", f"http://127.0.0.1:9/x,{server.url('good')}")
    if bad == "no-address":
        monkeypatch.setenv("CIFAR_RESNET_MIRROR", f"example/x.tar.gz,{server.url('good')}")
    assert download_archive(tmp_path).read_bytes() == CONTENT


def test_a_broken_download_is_resumed_where_it_broke_off(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(server, monkeypatch, "breaks")
    with pytest.raises(DataError):
        download_archive(tmp_path)
    assert (tmp_path / "cifar-10-python.tar.gz.part").stat().st_size == 250_000
    use(server, monkeypatch, "good")
    assert download_archive(tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=250000-"]
    assert not (tmp_path / "cifar-10-python.tar.gz.part").exists()


def test_a_server_that_cannot_resume_sends_everything_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cifar-10-python.tar.gz.part").write_bytes(CONTENT[:1000])
    use(server, monkeypatch, "no-resume")
    assert download_archive(tmp_path).read_bytes() == CONTENT


def test_a_rotten_part_costs_one_fresh_start(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cifar-10-python.tar.gz.part").write_bytes(b"rotten" * 100)
    use(server, monkeypatch, "good")
    assert download_archive(tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=600-", None]


def test_when_all_fail_each_source_is_named_with_its_reason(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(server, monkeypatch, "missing", "rubbish", "breaks", "long")
    with pytest.raises(DataError) as caught:
        download_archive(tmp_path)
    message = str(caught.value)
    assert "missing: Not Found" in message or "missing: HTTP Error 404" in message
    assert "rubbish: sent 600,000 bytes that are not the published archive" in message
    assert "breaks: broke off after 250,000" in message
    assert "--data shapes" in message
    assert not (tmp_path / "cifar-10-python.tar.gz").exists()


def test_a_damaged_archive_on_disk_is_fetched_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"x" * 10)
    use(server, monkeypatch, "good")
    assert download_archive(tmp_path).read_bytes() == CONTENT


def test_two_at_once_download_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(server, monkeypatch, "good")
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(download_archive(tmp_path))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert len(server.ranges) == 1
