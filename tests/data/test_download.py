"""The download: sources in order, resumed, verified, one at a time. A real server on localhost."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from local_cifar10 import ENDLESS_HEADS, Server, publish_archive, serving

from cifar_cli.data.sources import cifar10, download
from cifar_cli.data.sources.cifar10 import ARCHIVE
from cifar_cli.data.sources.download import download_archive
from cifar_cli.errors import DataError, StorageError

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


@pytest.mark.fault(66)
def test_an_address_of_a_file_is_read_and_that_of_a_fifo_passed_over(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "copy").write_bytes(CONTENT)
    mirrors = [(tmp_path / name).as_uri() for name in ("fifo", "copy")]
    monkeypatch.setenv("CIFAR_RESNET_MIRROR", ",".join(mirrors))
    assert download_archive(tmp_path / "home").read_bytes() == CONTENT


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


@pytest.mark.fault(58)
def test_an_archive_that_is_another_file_is_refused_and_stays(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / ARCHIVE
    path.write_bytes(b"photos")
    use(server, monkeypatch, "good")
    with pytest.raises(DataError, match=r"is not the published file .*It stays as it is") as caught:
        download_archive(tmp_path)
    assert "emove" not in str(caught.value)
    assert path.read_bytes() == b"photos"
    with path.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(DataError, match="it has 1,000,000,000,000 bytes, expected 600,000"):
        download_archive(tmp_path)
    assert server.ways == []


@pytest.mark.fault(58)
def test_an_archive_that_cannot_be_read_is_not_taken_for_damaged(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(server, monkeypatch, "good")
    for name in (ARCHIVE, f"{ARCHIVE}.part"):
        path = tmp_path / name
        path.write_bytes(CONTENT)
        for number in (errno.EACCES, errno.EMFILE, errno.ENFILE, errno.EIO):

            def refuse(_: Path, number: int = number) -> None:
                raise OSError(number, os.strerror(number))

            with monkeypatch.context() as patch:
                patch.setattr(cifar10, "open_regular", refuse)
                with pytest.raises(DataError, match=f"Cannot read .*{os.strerror(number)}"):
                    download_archive(tmp_path)
            assert path.read_bytes() == CONTENT
        path.unlink()
    assert server.ways == []


@pytest.mark.parametrize("name", [ARCHIVE, f"{ARCHIVE}.part", f"{ARCHIVE}.lock"])
@pytest.mark.fault(61)
def test_what_is_planted_in_the_download_folder_neither_holds_up_nor_is_followed(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    use(server, monkeypatch, "good")
    folder, victim = tmp_path / "downloads", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("precious")
    place = folder / name
    for plant in (
        lambda: os.mkfifo(place),
        lambda: place.symlink_to(victim),
        lambda: place.symlink_to(tmp_path / "nowhere"),
        lambda: place.symlink_to("/dev/zero"),
        place.mkdir,
    ):
        plant()
        before = place.lstat().st_mode
        with pytest.raises((DataError, StorageError), match=name):
            download_archive(folder)
        assert place.lstat().st_mode == before
        place.rmdir() if place.is_dir() else place.unlink()
    if name.endswith(".part"):
        place.hardlink_to(victim)
        with pytest.raises(StorageError, match="hard link"):
            download_archive(folder)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_an_archive_may_be_a_link(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    (tmp_path / ARCHIVE).symlink_to(tmp_path / "elsewhere")
    use(server, monkeypatch)
    assert download_archive(tmp_path).read_bytes() == CONTENT


@pytest.mark.fault(87)
def test_an_exchange_is_limited_as_a_whole_and_not_only_its_gaps(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Bytes arrive all the time, but never an answer, or a block of it, that is whole."""
    monkeypatch.setattr(download, "STALL_SECONDS", 0.6)
    for way in ENDLESS_HEADS:
        use(server, monkeypatch, way)
        began = time.monotonic()
        with pytest.raises(DataError, match="could not be downloaded") as caught:
            download_archive(tmp_path)
        assert time.monotonic() - began < 5, way
        assert f"/{way}: " in str(caught.value)
        assert not (tmp_path / ARCHIVE).exists()
        (tmp_path / f"{ARCHIVE}.part").unlink(missing_ok=True)


@pytest.mark.fault(87)
def test_any_source_is_given_up_in_the_end_and_what_arrived_is_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(download, "LONGEST_SECONDS", 0.3)
    use(server, monkeypatch, "slow", "good")
    assert download_archive(tmp_path).read_bytes() == CONTENT
    assert server.ways == ["slow", "good"]
    assert server.ranges[1] is not None


@pytest.mark.fault(87)
def test_answers_out_of_all_bounds_are_passed_over(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(server, monkeypatch, "5000-digits", "long-reason", "leads-to-ftp", "leads-to-missing")
    with pytest.raises(DataError) as caught:
        download_archive(tmp_path)
    message = str(caught.value)
    assert "5000-digits: offers more than 10^15 bytes" in message
    assert f"long-reason: {'x' * 200} ..." in message
    assert "leads-to-ftp: unknown url type: ftp" in message
    assert "leads-to-missing: Not Found" in message
    assert len(message) < 1500


def test_who_waits_for_a_download_that_gets_nowhere_gives_up(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(download, "STALL_SECONDS", 0.02)
    with FileLock(tmp_path / f"{ARCHIVE}.lock"), pytest.raises(DataError, match="Another process"):
        download_archive(tmp_path)


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
