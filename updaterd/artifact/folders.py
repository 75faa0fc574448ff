# SPDX-License-Identifier: Apache-2.0
"""Directories of a tree, walked by descriptor and never through a link."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folders:
    """The directories under `root`; the chain to the last one asked for stays open.

    Listings are sorted, so neighbours mostly share their directory.
    """

    def __init__(
        self, root: Path | str | int, *, make: bool = False, exact: bool = True
    ) -> None:
        """Open the root.

        Args:
            root: a path, or a descriptor.
            make: whether directories that are missing are made.
            exact: whether all of them then get mode 0755, whatever the umask says: a
                confined process may not, and its parent does it afterwards.
        """
        self._make = make
        self._exact = exact
        self._names: list[str] = []
        self._last = ""
        self._fds = [
            os.dup(root)
            if isinstance(root, int)
            else os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        ]

    @property
    def top(self) -> int:
        """Return the open directory that all of it is in."""
        return self._fds[0]

    def parent(self, path: str) -> tuple[int, str]:
        """Return the open directory that holds `path`, and its last name.

        Raises:
            OSError: a directory is missing, or is a link, or cannot be made.
        """
        folder, _, last = path.rpartition("/")
        if folder == self._last:
            return self._fds[-1], last
        self._last = "/"  # in between it is none
        names = folder.split("/") if folder else []
        common = 0
        while (
            common < min(len(names), len(self._names))
            and names[common] == self._names[common]
        ):
            common += 1
        while len(self._names) > common:
            self._names.pop()
            os.close(self._fds.pop())
        for name in names[common:]:
            self._fds.append(self._enter(name))
            self._names.append(name)
        self._last = folder
        return self._fds[-1], last

    def _enter(self, name: str) -> int:
        try:
            fd = os.open(name, _OPEN, dir_fd=self._fds[-1])
        except FileNotFoundError:
            if not self._make:
                raise
            os.mkdir(name, 0o755, dir_fd=self._fds[-1])
            fd = os.open(name, _OPEN, dir_fd=self._fds[-1])
        if self._make and self._exact:
            os.fchmod(fd, 0o755)
        return fd

    def close(self) -> None:
        """Close every directory."""
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every directory."""
        self.close()
