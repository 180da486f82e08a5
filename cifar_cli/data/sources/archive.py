"""Class folders in a zip or tar file, which is read where it lies and never unpacked to disk.

An archive may come from anywhere. The names in it are only compared, never opened, and all that
it unpacks to is bounded: the number of files, the bytes of each, and those of all together.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from cifar_cli.data.sources.decode import MAX_BYTES
from cifar_cli.data.sources.listing import (
    LAYOUTS,
    MAX_FILES,
    Item,
    Listing,
    arrange,
    is_image_name,
)
from cifar_cli.data.sources.pictures import picture_format
from cifar_cli.data.sources.pixels import NoImageError
from cifar_cli.errors import DataError
from cifar_cli.storage import open_regular
from cifar_cli.text import printable

# Images of one colour shrink to a hundredth; what unpacks to much more than that is no data set.
MAX_RATIO = 250
RATIO_FROM_BYTES = 256 * 2**20
MAX_UNPACKED_BYTES = 256 * 2**30
# Zip's list of files, and tar's headers, are read in one piece.
MAX_DIRECTORY_BYTES = 64 * 2**20
MAX_HEADER_BYTES = 2**20
BLOCK_BYTES = 2**18
_OPENERS: dict[str, Callable[[IO[bytes]], Any] | None] = {
    ".zip": None,
    ".tar": lambda file: file,
    ".tar.gz": lambda file: gzip.GzipFile(fileobj=file),
    ".tgz": lambda file: gzip.GzipFile(fileobj=file),
    ".tar.xz": lzma.LZMAFile,
    ".tar.bz2": bz2.BZ2File,
}
ENDINGS = tuple(_OPENERS)
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, LookupError,
    NotImplementedError, OverflowError, RecursionError, RuntimeError, ValueError,
)  # fmt: skip
_DRIVE = re.compile("[A-Za-z]:")


@contextmanager
def open_archive(path: Path) -> Iterator[Listing]:
    """List the images of an archive, which stays open for reading them.

    Raises:
        DataError: It is damaged, unpacks to too much, or holds no class folders.
    """
    ending = _ending(path)
    assert ending
    opener = _OPENERS[ending]
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_regular(path))
            status = os.fstat(file.fileno())
            contents = _Contents(path, status)
            if opener is None:
                _list_zip(file, contents, stack)
            else:
                _list_tar(opener(file), contents, stack)
        except OSError as error:
            raise _unreadable(path, ending, error.strerror or str(error)) from error
        except _BROKEN as error:
            raise _unreadable(path, ending, str(error) or type(error).__name__) from error
        yield arrange(
            path, list(contents.items.values()), contents.folders, contents.other_files, []
        )


class _Contents:
    """What an archive lists, and how much it would unpack to."""

    def __init__(self, path: Path, status: os.stat_result) -> None:
        self.path, self.size = path, status.st_size
        self.stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
        self.items: dict[tuple[str, ...], Item] = {}
        self.folders: set[tuple[str, ...]] = set()
        self.other_files: list[str] = []
        self.count = self.unpacked = 0

    @property
    def most(self) -> int:
        """Bytes that it may unpack to."""
        return min(MAX_UNPACKED_BYTES, max(RATIO_FROM_BYTES, MAX_RATIO * self.size))

    def add(
        self, name: str, size: int, position: int, read: Callable[[], bytes] | None, is_folder: bool
    ) -> None:
        """Note a member; `read` is None if it is a link, a device or encrypted."""
        self.count += 1
        if self.count > MAX_FILES:
            raise self.refused(f"it lists more than {MAX_FILES:,} files")
        parts = PurePosixPath(name).parts
        is_outside = name.startswith("/") or ".." in parts or bool(_DRIVE.match(name))
        is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        if not parts or (is_folder and (is_outside or is_hidden)):
            return
        self.folders.update(parts[:n] for n in range(1, len(parts)) if not is_outside | is_hidden)
        if is_folder:
            self.folders.add(parts)
        elif read is None or is_outside or is_hidden or not is_image_name(parts[-1]):
            self.other_files.append(parts[-1])
        else:
            self.unpacked += size
            if self.unpacked > self.most:
                raise self.refused(f"its images unpack to more than {self.most:,} bytes")
            self.items[parts] = Item(parts, size, self.stamp, read, position)

    def refused(self, why: str) -> DataError:
        return DataError(
            f"{printable(str(self.path))} is refused: {why}.",
            "If you trust it, unpack it and give the folder.",
        )


def _list_zip(file: IO[bytes], contents: _Contents, stack: ExitStack) -> None:
    bounded = _Bounded(file, contents, MAX_DIRECTORY_BYTES, contents.size)
    archive = stack.enter_context(zipfile.ZipFile(cast(IO[bytes], bounded)))
    for info in archive.infolist():
        mode = info.external_attr >> 16
        is_plain = stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR)
        read = partial(_read_zip, archive, info) if is_plain and not info.flag_bits & 1 else None
        name = info.filename.replace("\\", "/")
        contents.add(name, info.file_size, info.header_offset, read, name.endswith("/"))
    if any(info.flag_bits & 1 for info in archive.infolist()):
        raise contents.refused("it is encrypted")


def _read_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    _check_size(info.file_size)
    try:
        with archive.open(info) as member:
            return _read_all(member, info.file_size)
    except (OSError, *_BROKEN) as error:
        raise NoImageError(str(error) or type(error).__name__) from error


def _list_tar(unpacked: IO[bytes], contents: _Contents, stack: ExitStack) -> None:
    # Passing over a member unpacks it too, so that all that is passed over counts.
    bounded = _Bounded(unpacked, contents, MAX_HEADER_BYTES, contents.most)
    stack.callback(unpacked.close)
    archive = tarfile.TarFile(fileobj=cast(IO[bytes], bounded))
    while (member := archive.next()) is not None:
        vars(archive)["members"] = []  # which tarfile would keep, each of them
        is_plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
        start = member.offset_data
        read = partial(_read_tar, unpacked, start, member.size) if is_plain else None
        contents.add(member.name, member.size, start, read, member.isdir())


def _read_tar(unpacked: IO[bytes], start: int, size: int) -> bytes:
    _check_size(size)
    try:
        unpacked.seek(start)
        return _read_all(unpacked, size)
    except (OSError, *_BROKEN) as error:
        raise NoImageError(str(error) or type(error).__name__) from error


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise NoImageError(f"it has {size:,} bytes, at most {MAX_BYTES:,} are read")


def _read_all(file: IO[bytes], size: int) -> bytes:
    """Read so many bytes, taking memory only as they come."""
    content = io.BytesIO()
    while (left := size - content.tell()) and (block := file.read(min(left, BLOCK_BYTES))):
        content.write(block)
    if left:
        raise NoImageError("it is cut short")
    return content.getvalue()


class _Bounded:
    """A file that refuses to be read far, or much at once."""

    def __init__(self, file: IO[bytes], contents: _Contents, most_at_once: int, end: int) -> None:
        self.file, self.contents = file, contents
        self.most_at_once, self.end = most_at_once, end
        self.seekable, self.tell, self.close = lambda: True, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        if size > self.most_at_once:
            raise self.contents.refused(f"a part of its list of files has {size:,} bytes")
        self._check(self.file.tell())
        return self.file.read(self.most_at_once if size < 0 else size)

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0:
            self._check(offset)
        return self.file.seek(offset, whence)

    def _check(self, position: int) -> None:
        if position > self.end:
            raise self.contents.refused(f"it unpacks to more than {self.end:,} bytes")


def _ending(path: Path) -> str | None:
    name = path.name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def _unreadable(path: Path, ending: str, why: str) -> DataError:
    return DataError(
        f"{printable(str(path))} cannot be read as a {ending} archive: {printable(why)}.",
        f"{LAYOUTS} Or unpack it, and give the folder.",
    )


IMAGE_ARCHIVE = picture_format(
    "an archive of class folders",
    open_archive,
    lambda path: path.is_file() and _ending(path) is not None,
)
