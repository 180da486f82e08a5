"""Download of the CIFAR-10 archive: several sources in order, resumed where it broke off."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from cifar_cli.data.cifar10 import ARCHIVE, ARCHIVE_BYTES, ARCHIVE_MD5, check_md5
from cifar_cli.data.types import Progress
from cifar_cli.errors import DataError
from cifar_cli.rundir import storage_errors, sync_folder

SOURCES = ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",)
STALL_SECONDS = 30.0
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
            except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
                failures.append(f"{url}: {getattr(error, 'reason', None) or error}")
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


def _fetch(url: str, part: Path, progress: Progress | None) -> None:
    """Append to `part` what is missing; start anew where the server cannot resume."""
    have = part.stat().st_size if part.is_file() else 0
    if have >= ARCHIVE_BYTES:
        return  # complete, or too long: the checksum tells
    headers = {"User-Agent": "cifar-resnet"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=STALL_SECONDS) as answer:
        resumes = answer.status == 206
        if "text/html" in answer.headers.get("Content-Type", ""):
            raise urllib.error.URLError("answered with a web page, not the archive")
        done = have if resumes else 0
        with part.open("ab" if resumes else "wb") as file:
            while block := answer.read(BLOCK_BYTES):
                file.write(block)
                done += len(block)
                if progress:
                    progress("Downloading CIFAR-10", done, ARCHIVE_BYTES)
                if done > ARCHIVE_BYTES:
                    break
    if done < ARCHIVE_BYTES:
        raise urllib.error.URLError(f"broke off after {done:,} of {ARCHIVE_BYTES:,} bytes")
