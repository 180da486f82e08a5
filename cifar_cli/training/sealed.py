"""Files of `torch.save` with a checksum: sealed, and read only as they were written."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import warnings
import zipfile
from pathlib import Path

import torch

from cifar_cli.errors import CheckpointError, OutOfMemoryError
from cifar_cli.rundir.reading import reason_of
from cifar_cli.storage import open_regular
from cifar_cli.training.control_groups import PROCESS, memory
from cifar_cli.training.memory import memory_errors
from cifar_cli.training.pickled import check_pickle, check_size

# The end record of a zip archive; its last two bytes are the length of the comment that follows.
_END, _END_BYTES = b"PK\5\6", 22
_START = b"PK\3\4"
_LOCATOR = b"PK\6\7"
PICKLE = "data.pkl"
_DIGEST_BYTES = hashlib.sha256().digest_size


class DamagedError(CheckpointError):
    """A file that is not as it was written."""


def reading(path: Path) -> tuple[str, str]:
    """When memory ran out, and what to do, if a checkpoint does not fit into it."""
    return f"while {path} is read", "Free some memory, or use a smaller checkpoint."


def seal(file: bytes) -> bytes:
    """Add a SHA-256 of all bytes to a file of `torch.save`, as the comment of its archive."""
    assert file[-_END_BYTES:][:4] == _END
    file = file[:-2] + _DIGEST_BYTES.to_bytes(2, "little")
    return file + hashlib.sha256(file).digest()


def _has_end(file: bytes) -> bool:
    """Whether a file, or its last bytes, end as an archive does, with a seal or without."""
    sealed = file[:-_DIGEST_BYTES][-_END_BYTES:]
    return (sealed[:4] == _END and sealed[-2:] == _DIGEST_BYTES.to_bytes(2, "little")) or (
        file[-_END_BYTES:][:4] == _END and file[-2:] == b"\0\0"
    )


def _seal_fits(file: bytes) -> bool:
    """Whether a file is as it was written; one that `torch.save` wrote anew has no seal."""
    body, found = file[:-_DIGEST_BYTES], file[-_DIGEST_BYTES:]
    if body[-_END_BYTES:][:4] == _END and body[-2:] == _DIGEST_BYTES.to_bytes(2, "little"):
        return hashlib.sha256(body).digest() == found
    return _has_end(file)


def read_archive(path: Path, others: str) -> object:
    """What `torch.save` put into a file, on the CPU; no code in it is ever run.

    Args:
        path: The file.
        others: What else could be used, for messages.

    Raises:
        FileNotFoundError: There is none.
        CheckpointError: It cannot be read, is damaged, or is of another program.
        MemoryError, OutOfMemoryError: It does not fit into memory.
    """
    file = _sealed_bytes(path, others)
    try:
        _check_parts(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of other programs' files
            with memory_errors(*reading(path)):
                # By torch's own reader, so that what is checked is what torch unpickles.
                steps = check_pickle(
                    torch._C.PyTorchFileReader(io.BytesIO(file)).get_record(PICKLE)
                )
                content = torch.load(io.BytesIO(file), map_location="cpu", weights_only=True)
        check_size(content, steps, len(file))
        return content
    except (MemoryError, OutOfMemoryError):
        raise
    except Exception as error:  # foreign bytes make an unpickler raise anything
        raise CheckpointError(f"{path} is not a checkpoint of cifar-resnet.") from error


def _check_parts(file: bytes) -> None:
    """Check that a file is an archive as torch writes it, in which nothing is compressed.

    Raises:
        ValueError, BadZipFile: It is not, or Python and torch might not find the same parts in it.
    """
    end = file.rindex(_END)
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        start, parts = archive.start_dir, archive.infolist()
    places = [(_number(file, end + 16, 4), min(start, 2**32 - 1))]
    if file[end - 20 : end - 16] == _LOCATOR:  # two more end records, for files of any size
        places += [(_number(file, end - 12, 8), end - 76), (_number(file, end - 28, 8), start)]
    # Without its first bytes torch takes it for a file of another kind.
    if not file.startswith(_START) or any(told != found for told, found in places):
        raise ValueError
    # What would grow when it is read is not from torch.
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ValueError
    if sum(part.file_size for part in parts) > len(file):
        raise ValueError


def _number(file: bytes, first: int, count: int) -> int:
    return int.from_bytes(file[first : first + count], "little")


def _sealed_bytes(path: Path, others: str) -> bytes:
    """The bytes of a file, as they were written. The end is looked at before the rest is read."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            is_archive = file.read(len(_START)) == _START
            file.seek(max(0, size - _END_BYTES - _DIGEST_BYTES))
            if _has_end(file.read()):
                # Its bytes and its tensors are there at once.
                if size > memory(PROCESS) / 2:
                    raise MemoryError
                file.seek(0)
                data = file.read(size)
                if _seal_fits(data):
                    return data
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise
        is_damage = error.errno in (errno.EINVAL, errno.EISDIR)  # no regular file
        kind = DamagedError if is_damage else CheckpointError
        raise kind(f"Cannot read {path}: {reason_of(error)}.", others) from error
    what = "is damaged: its checksum does not fit" if size else "is empty"
    if size and not is_archive:
        what = "is not a checkpoint, or its start is damaged"
    raise DamagedError(f"{path} {what}.", others)
