"""Folders and files that nobody but this user, and root, can have put there (POSIX)."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_LINKS = 40  # on a way, as Linux has it
MOST_BYTES = 64 * 2**20  # of a file
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe under the name of a file would else keep its reader waiting for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class UntrustedError(Exception):
    """Somebody else may have put there what is about to be used; the text says where."""


@contextmanager
def trusted_folder(path: Path) -> Iterator[int]:
    """Open the folder at `path`, making what is missing of it, and yield its descriptor.

    Each folder on the way must belong to this user or root. Others may not write to it, unless it
    is sticky, as `/tmp` is: then they can neither replace nor rename what is not theirs. A link on
    the way must have an owner like that too; the folder itself may not be one, and may not be
    writable by others at all.

    Raises:
        UntrustedError: Somebody else could have put a folder on the way there.
        OSError: The folder cannot be made or opened.
    """
    descriptor = _walk(path.absolute())
    try:
        _check(os.fstat(descriptor), path, may_be_shared=False)
        yield descriptor
    finally:
        os.close(descriptor)


def open_trusted(folder: int, name: str) -> int:
    """Open a file of the folder with that descriptor for reading, and return its descriptor.

    Raises:
        UntrustedError: It is not a regular file of this user or root that only they can write to,
            or it is too large.
        OSError: It cannot be opened; a link cannot.
    """
    descriptor = os.open(name, _FILE, dir_fd=folder)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise UntrustedError(f"{name} is not a regular file")
        _check(about, name, may_be_shared=False)
        if about.st_size > MOST_BYTES:
            raise UntrustedError(f"{name} has {about.st_size:,} bytes")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _walk(path: Path) -> int:
    """Descriptor of a folder whose parents have all been checked, but not itself."""
    links = 0
    way, at = list(path.parts[:0:-1]), Path(path.anchor)
    descriptor = os.open(at, _FOLDER)
    try:
        while way:
            _check(os.fstat(descriptor), at, may_be_shared=True)
            name = way.pop()
            about = _entry(descriptor, name)
            # Others may add to a shared folder, but not replace what is there and not theirs.
            _check_owner(about, at / name)
            if stat.S_ISLNK(about.st_mode):
                links += 1
                if not way:
                    raise UntrustedError(f"{path} is a link")
                if links > MOST_LINKS:
                    raise UntrustedError(f"{path} leads through too many links")
                target = Path(os.readlink(name, dir_fd=descriptor))
                way += target.parts[:0:-1] if target.is_absolute() else target.parts[::-1]
                name = target.anchor or "."
                at = Path(name) if target.is_absolute() else at
            else:
                at = at / name
            inside = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inside
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _entry(folder: int, name: str) -> os.stat_result:
    """What lies there under that name, made if it is missing; a link itself, not its target."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        os.mkdir(name, 0o700, dir_fd=folder)
        return os.stat(name, dir_fd=folder, follow_symlinks=False)


def _check(about: os.stat_result, path: Path | str, may_be_shared: bool) -> None:
    _check_owner(about, path)
    others = about.st_mode & stat.S_IWOTH or (
        about.st_mode & stat.S_IWGRP and not _is_own_group(about.st_gid)
    )
    if others and not (may_be_shared and about.st_mode & stat.S_ISVTX):
        raise UntrustedError(f"others may write to {path}")


def _check_owner(about: os.stat_result, path: Path | str) -> None:
    if about.st_uid not in (0, os.geteuid()):
        raise UntrustedError(f"{path} belongs to somebody else")


def _is_own_group(gid: int) -> bool:
    """Whether a group is this user's private one, to which many systems let it write by default."""
    uid = os.geteuid()
    if uid == 0:
        return False  # to be careful: root has no such default
    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    is_private = gid == user.pw_gid and group.gr_name == user.pw_name
    return is_private and set(group.gr_mem) <= {user.pw_name}
