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
from updaterd.errors import MalformedError

_PIECE = 1 << 18
_WINDOW = 4 << 20  # bytes of the old data kept at hand
_MARGIN = 1 << 20
_MOST_OPEN = 32
_CLOSED = -1
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
    """Old files, then files of the new tree that are already made, read as one."""

    def __init__(
        self,
        old: Path,
        files: Sequence[File],
        new: Path,
        made: Sequence[File] = (),
    ) -> None:
        """Prepare to read.

        Args:
            old: root of the old tree.
            files: of the old tree, in virtual order.
            new: root of the tree that is being made.
            made: of the new tree, after the old ones; readable once `allow`ed.
        """
        self._old = Folders(old)
        self._new = Folders(new)
        self._files = (*files, *made)
        self._old_count = len(files)
        self._starts = list(accumulate((f.length for f in self._files), initial=0))
        self.size = self._starts.pop()
        self._limit = sum(f.length for f in files)
        self._open: dict[int, int | None] = {}
        self._window, self._low, self._high = b"", 0, 0

    def allow(self, count: int) -> None:
        """Let the first `count` made files be read: they are complete."""
        files = self._files[: self._old_count + count]
        self._limit = sum(file.length for file in files)

    def read(self, low: int, high: int) -> bytes:
        """Return the bytes [low, high), zeros where an old file has none.

        Raises:
            MalformedError: a file is read that is not made yet.
        """
        if self._low <= low and high <= self._high:
            return self._window[low - self._low : high - self._low]
        if low < high and high > self._limit:
            raise MalformedError("operations: one reads a file that is not made yet")
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

    def pieces(self, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """Return many ranges at once; near neighbours come out of one window."""
        middle = sorted(starts)[len(starts) // 2]
        if not self._low <= middle <= self._high - _MARGIN:
            low = max(0, min(middle - _MARGIN, self._limit - _WINDOW))
            high = min(self._limit, low + _WINDOW)
            if (low, high) != (self._low, self._high):
                self._window, self._low, self._high = b"", 0, 0  # before the next
                self._window = self.read(low, high)
                self._low, self._high = low, high
        window, base, top, read = self._window, self._low, self._high, self.read
        return [
            window[low - base : high - base]
            if base <= low and high <= top
            else read(low, high)
            for low, high in zip(starts, ends, strict=True)
        ]

    def _piece(self, index: int, offset: int, count: int) -> bytes:
        fd = self._open.get(index, _CLOSED)
        if fd == _CLOSED:
            if len(self._open) >= _MOST_OPEN:
                self._close(next(iter(self._open)))
            folders = self._old if index < self._old_count else self._new
            fd = open_file(folders, self._files[index])
            self._open[index] = fd
        if fd is None:
            return b""
        try:
            return os.pread(fd, count, offset)
        except OSError:
            return b""  # a bad sector: as good as missing

    def bad(self) -> tuple[str, ...]:
        """Return the paths of the old files that are not what the listing says."""
        files = self._files[: self._old_count]
        return tuple(f.path for f in files if not is_sound(self._old, f))

    def _close(self, index: int) -> None:
        fd = self._open.pop(index)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Close every file."""
        for index in tuple(self._open):
            self._close(index)
        self._old.close()
        self._new.close()
