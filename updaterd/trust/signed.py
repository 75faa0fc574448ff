# SPDX-License-Identifier: Apache-2.0
"""A signed file at hand: verified, read in parts, held open until nobody needs it.

A large manifest is read through a window (`core/json_window.py`), and again when a
release is recorded: meanwhile it is on the disk, not in memory.
"""

import os
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Self

from updaterd import durable
from updaterd.files import regular


class Signed:
    """The bytes of one file; its place on the disk may be deleted meanwhile.

    Args:
        fd: open for reading; closed when this object goes.
        place: of a file in the trust cache, which nobody needs once it is kept
            beside a release.
    """

    def __init__(self, fd: int, place: Path | None = None) -> None:
        self._fd = fd
        self._place = place
        self.length = os.fstat(fd).st_size
        weakref.finalize(self, os.close, fd)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return a file on the disk.

        Raises:
            OSError: it cannot be read, or is no regular file.
        """
        return cls(regular.opened(path))

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return bytes that no disk had room for.

        Raises:
            OSError: there is no memory either.
        """
        fd = os.memfd_create("manifest", os.MFD_CLOEXEC)
        signed = cls(fd)
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(data)
        signed.length = len(data)
        return signed

    def read(self, at: int, count: int) -> bytes:
        """Return up to `count` bytes from `at` on.

        Raises:
            OSError: the disk refused.
        """
        return os.pread(self._fd, count, at)

    def lend(self, path: Path) -> None:
        """Let it stand at `path`, too, where that can be done without a copy.

        Whoever needs it there looks whether it is there.

        Power cut: as `durable.share_file`.
        """
        if self._place is not None:
            with suppress(OSError):
                durable.share_file(self._place, path)

    def release(self) -> None:
        """Let its place in the cache go: it is kept elsewhere now.

        Power cut: it is there or not; the next manifests push it out.
        """
        if self._place is not None:
            with suppress(OSError):
                self._place.unlink(missing_ok=True)
            self._place = None

    def whole(self) -> bytes:
        """Return all of it.

        Raises:
            OSError: the disk refused.
        """
        return self.read(0, self.length)
