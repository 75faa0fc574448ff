# SPDX-License-Identifier: Apache-2.0
"""Single files of the old tree: opened through no link, and told by their hash."""

from __future__ import annotations

import errno
import os
import stat
from hashlib import sha256

from updaterd.artifact.folders import Folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from updaterd.core.tree import File

_PIECE = 1 << 18
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# What the file's own name answers; every other error is the machine's.
_NO_SUCH_FILE = frozenset({
    errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EACCES,
})  # fmt: skip
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def open_file(folders: Folders, file: File) -> int | None:
    """Return a descriptor of an old file, or None when it cannot be that file."""
    opened = look_up(folders, file)
    return None if opened is None else opened[0]


def look_up(folders: Folders, file: File) -> tuple[int, os.stat_result] | None:
    """Return an old file's descriptor and status; None when it cannot be that file."""
    try:
        directory, name = folders.parent(file.path)
        return look_at(directory, name, file.length)
    except OSError:
        return None  # short of something, a bad disk: it is as good as missing


def open_at(directory: int, name: str) -> int:
    """Open a file of ours to read it, also one whose mode lets nobody read it.

    Such a mode is the application's wish, for itself. Its owner may lift it, for as
    long as it takes to open the file.

    Raises:
        OSError: it cannot be opened, or is a link.
        PermissionError: it is not ours.
    """
    try:
        return os.open(name, _OPEN, dir_fd=directory)
    except PermissionError:
        opened = os.open(name, _LOOK, dir_fd=directory)
        try:
            status = os.fstat(opened)
            mode = stat.S_IMODE(status.st_mode)
            if not stat.S_ISREG(status.st_mode) or mode & stat.S_IRUSR:
                raise
            itself = f"/proc/self/fd/{opened}"
            os.chmod(itself, mode | stat.S_IRUSR)
            try:
                return os.open(itself, os.O_RDONLY | os.O_CLOEXEC)
            finally:
                os.chmod(itself, mode)
        finally:
            os.close(opened)


def look_at(
    directory: int, name: str, length: int
) -> tuple[int, os.stat_result] | None:
    """Return descriptor and status of a regular file of this length, or None.

    Raises:
        OSError: the machine cannot tell: too many open files, no memory, a bad disk.
    """
    try:
        fd = open_at(directory, name)
    except OSError as error:
        if error.errno not in _NO_SUCH_FILE:
            raise
        return None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size != length:
        os.close(fd)
        return None
    return fd, status


def digest(fd: int, size: int = _PIECE) -> str:
    """Return the sha256 of an open file, read in pieces.

    Args:
        fd: of the file.
        size: of it, as far as that is known; a small one is read at once.

    Raises:
        OSError: the disk refused.
    """
    if size < _PIECE:
        data = os.pread(fd, size + 1, 0)
        if len(data) <= size:
            return sha256(data).hexdigest()
    state = sha256()
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    at = 0
    while count := os.preadv(fd, [buffer], at):
        state.update(view[:count])
        at += count
    return state.hexdigest()


def is_sound(folders: Folders, file: File) -> bool:
    """Tell whether an old file still has the bytes its listing says."""
    fd = open_file(folders, file)
    if fd is None:
        return False
    try:
        return has_content(fd, file)
    finally:
        os.close(fd)


def has_content(fd: int, file: File) -> bool:
    """Tell whether an open old file has the bytes its listing says."""
    try:
        return digest(fd, file.length) == file.sha256
    except OSError:
        return False
