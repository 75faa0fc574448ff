# SPDX-License-Identifier: Apache-2.0
"""The files that a confined process makes, under a directory descriptor.

Every file is created exclusively and never through a link. Neither hashed nor sealed:
the bundle opener is not believed, and may change no mode. `completion`
does both after it ended.
"""

from __future__ import annotations

import os

from updaterd.artifact.folders import Folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


_BLOCK = 1 << 12
_ZEROS = bytes(_BLOCK)


class Output:
    """A file that is being written, with a hole wherever a block is all zeros."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0
        self._hole = False  # is what was written last

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`.

        Raises:
            OSError: the disk refused.
        """
        view = memoryview(data)
        start = 0  # of what is not written yet
        block = -self._at % _BLOCK
        # One byte of each whole block tells of most that they are no hole.
        firsts = bytes(view[block : max(block, len(view) - _BLOCK + 1) : _BLOCK])
        if 0 in firsts:
            for first in firsts:
                if not first and bytes(view[block : block + _BLOCK]) == _ZEROS:
                    self._put(view[start:block])
                    start = block + _BLOCK
                    os.lseek(self._fd, _BLOCK, os.SEEK_CUR)
                    self._hole = True
                block += _BLOCK
        self._put(view[start:])
        self._at += len(view)

    def _put(self, view: memoryview) -> None:
        while view:
            view = view[os.write(self._fd, view) :]
            self._hole = False

    def finish(self) -> None:
        """Give the file its length, where it ends in a hole, and close it.

        By a byte and not by truncating, which a confined process may not do.

        Raises:
            OSError: the disk refused; it is closed.
        """
        try:
            if self._hole:
                os.lseek(self._fd, -1, os.SEEK_CUR)
                self._put(memoryview(b"\0"))
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file as it is; harmless when it is closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Outputs:
    """An empty directory that gets new files, and the directories they lie in.

    Power cut: nothing in it counts until the whole directory is synced and renamed
    (`install/stage.py`).
    """

    def __init__(self, root: Path | str | int) -> None:
        self._folders = Folders(root, make=True, exact=False)
        self._last: Output | None = None

    def create(self, path: str, mode: int) -> Output:
        """Return a new file to write.

        Raises:
            OSError: it exists, or the disk refused.
        """
        directory, name = self._folders.parent(path)
        # Its owner must be able to read it until it has been hashed.
        self._last = Output(os.open(name, CREATE, mode | 0o600, dir_fd=directory))
        return self._last

    def close(self) -> None:
        """Close the directories, and a file that its bundle did not finish."""
        if self._last is not None:
            self._last.abandon()
        self._folders.close()
