# SPDX-License-Identifier: Apache-2.0
"""Where inflated bytes lie while a delta is applied: a file without a name."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

_FLAGS = os.O_RDWR | os.O_CLOEXEC
_NAME = ".updaterd-inflated"
_OTHERWISE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}
_prepared: list[int] = []


def prepare(folder: Path | str | int) -> None:
    """Open it: in the cage nothing without a listed name may be made.

    Raises:
        OSError: the disk refused.

    Power cut: it has no name, so nothing is left of it.
    """
    _prepared.append(_opened(folder))


def _opened(folder: Path | str | int) -> int:
    """Return a new file in a directory, readable and writable, that has no name.

    Raises:
        OSError: the disk refused.
    """
    inside = folder if isinstance(folder, int) else None
    where = "." if isinstance(folder, int) else str(folder)
    try:
        return os.open(where, os.O_TMPFILE | _FLAGS, 0o600, dir_fd=inside)
    except OSError as error:
        if error.errno not in _OTHERWISE:  # file systems that have no such files
            raise
    name = _NAME if isinstance(folder, int) else os.path.join(folder, _NAME)
    fd = os.open(
        name, _FLAGS | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=inside
    )
    os.unlink(name, dir_fd=inside)
    return fd


class Scratch:
    """Inflated files, one after another.

    Attributes:
        inside: places in virtual order of the pieces that are read from it.
        bases: where each begins that is there.
    """

    def __init__(self, folder: Path | str | int) -> None:
        """Open it, if that was not done before.

        Raises:
            OSError: the disk refused.
        """
        self.fd = _prepared.pop() if _prepared else _opened(folder)
        self.length = 0
        self.inside: frozenset[int] = frozenset()
        self.bases: dict[int, int] = {}

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes.

        Raises:
            OSError: the disk refused.
        """
        view = memoryview(data)
        self.length += len(view)
        while view:
            view = view[os.write(self.fd, view) :]

    def close(self) -> None:
        """Give its room back; harmless when that was done."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
