"""The old tree as a delta reads it: single files, and their virtual concatenation.

An old file that is missing, cut short or grown reads as zeros. Nothing trusts what
it reads here: every made file is hashed, and only when one comes out wrong are the
old files hashed too, to tell a bad old file from a bad delta.
"""

import hashlib
import os
import stat
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from updaterd.artifact.folders import Folders
from updaterd.core.manifest import File

_PIECE = 1 << 18
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def open_file(folders: Folders, file: File) -> int | None:
    """Return a descriptor of an old file, or None when it cannot be that file."""
    try:
        directory, name = folders.parent(file.path)
        fd = os.open(name, _OPEN, dir_fd=directory)
    except OSError:
        return None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size != file.length:
        os.close(fd)
        return None
    return fd


def digest(fd: int) -> str:
    """Return the sha256 of an open file, read in pieces.

    Raises:
        OSError: the disk refused.
    """
    state = hashlib.sha256()
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
        return digest(fd) == file.sha256
    except OSError:
        return False
    finally:
        os.close(fd)


class Concatenation:
    """Several old files read as if they were one."""

    def __init__(self, root: Path, files: Sequence[File]) -> None:
        self._root = root
        self._files = files
        self._starts = list(accumulate((f.length for f in files), initial=0))
        self.size = self._starts.pop()
        self._open: tuple[int, int | None] | None = None

    def read(self, low: int, high: int) -> bytes:
        """Return the bytes [low, high), zeros where an old file has none."""
        parts = []
        while low < high:
            index = bisect_right(self._starts, low) - 1
            offset = low - self._starts[index]
            count = min(high - low, self._files[index].length - offset)
            data = self._piece(index, offset, count)
            parts.append(data)
            if len(data) < count:
                parts.append(bytes(count - len(data)))
            low += count
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _piece(self, index: int, offset: int, count: int) -> bytes:
        if self._open is None or self._open[0] != index:
            self.close()
            with Folders(self._root) as folders:
                self._open = index, open_file(folders, self._files[index])
        fd = self._open[1]
        if fd is None:
            return b""
        try:
            return os.pread(fd, count, offset)
        except OSError:
            return b""  # a bad sector: as good as missing

    def bad(self) -> tuple[str, ...]:
        """Return the paths of the files that are not what the listing says."""
        with Folders(self._root) as folders:
            return tuple(f.path for f in self._files if not is_sound(folders, f))

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None and self._open[1] is not None:
            os.close(self._open[1])
        self._open = None
