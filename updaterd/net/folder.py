# SPDX-License-Identifier: Apache-2.0
"""A repository that somebody carried here: requests that a folder answers.

A kit brings the files that a first install needs. They are read by the paths at which
the repository would serve them, and verified as if it had; what is not there is not
there (404), and nothing is asked over a network.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from updaterd.core import layout

_PIECE = 1 << 18
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Folder:
    """Answers for an address from a folder (`answer.Asking`).

    Args:
        base: the repository's address.
        folder: what would be served there.
        note: is told the path of each file that is asked for and is there.
    """

    def __init__(
        self, base: str, folder: Path, note: Callable[[str], object] = str
    ) -> None:
        self._base = base.rstrip("/") + "/"
        self._folder = folder
        self._note = note

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        patience_s: float,
    ) -> "_File":
        """Return the file at `url`, or 404."""
        del body, patience_s
        path = url.removeprefix(self._base)
        if method != "GET" or path == url or not layout.is_file(path):
            return _File(404, -1, 0, 0)
        try:
            fd = os.open(self._folder / path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return _File(404, -1, 0, 0)
        self._note(path)
        size = os.fstat(fd).st_size
        match = _RANGE.fullmatch(headers.get("Range", ""))
        if match is None:
            return _File(200, fd, size, 0)
        start, end = int(match[1]), min(int(match[2] or size) + 1, size)
        if start >= size:
            os.close(fd)
            return _File(416, -1, 0, 0)
        os.lseek(fd, start, os.SEEK_SET)
        return _File(206, fd, end - start, size, start)

    def close(self) -> None:
        """Do nothing: no connection is kept."""


class _File:
    """An open file as an answer (`answer.Answer`)."""

    def __init__(
        self, status: int, fd: int, rest: int, size: int, start: int = 0
    ) -> None:
        self.status = status
        self.headers: dict[str, str] = {"content-length": str(rest)}
        if status == 206:
            last = start + rest - 1
            self.headers["content-range"] = f"bytes {start}-{last}/{size}"
        self._fd = fd
        self._rest = rest

    def read(self, patience_s: float) -> bytes:
        """Return the next bytes; none at the end."""
        del patience_s
        data = os.read(self._fd, min(_PIECE, self._rest)) if self._rest else b""
        self._rest -= len(data)
        return data

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
