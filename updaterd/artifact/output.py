"""The files that a confined process makes, under a directory descriptor.

Every file is created exclusively and never through a link. Neither hashed nor sealed:
the process that opens bundles is not believed, and may change no mode. `completion`
does both after it ended.
"""

from __future__ import annotations

import os

from updaterd.artifact.folders import Folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Output:
    """A file that is being written."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`.

        Raises:
            OSError: the disk refused.
        """
        count = os.write(self._fd, data)
        if count < len(data):
            view = memoryview(data)[count:]
            while view:
                view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        """Close it; harmless when it is closed."""
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
            self._last.close()
        self._folders.close()
