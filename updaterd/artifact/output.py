"""The new tree while it is made: under a directory descriptor, hashed as written.

Regular files, directories and checked relative links only; every file is created
exclusively and never through a link, with the mode the listing says.
"""

from __future__ import annotations

import os
import stat
from hashlib import sha256

from updaterd.artifact.folders import Folders
from updaterd.artifact.sources import digest, look_at, look_up
from updaterd.durable import link_at, symlink_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from updaterd.core.tree import File

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FICLONE = 0x40049409
_PIECE = 1 << 18


class Output:
    """A file that is being written."""

    def __init__(self, fd: int, mode: int) -> None:
        self._fd = fd
        self._mode = mode
        self._state = sha256()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`.

        Raises:
            OSError: the disk refused.
        """
        self._state.update(data)
        count = os.write(self._fd, data)
        if count < len(data):
            view = memoryview(data)[count:]
            while view:
                view = view[os.write(self._fd, view) :]

    def close(self) -> str:
        """Set the mode, close, and return the sha256 of what was written.

        Raises:
            OSError: the disk refused.
        """
        try:
            os.fchmod(self._fd, self._mode)
        finally:
            self.abandon()
        return self._state.hexdigest()

    def abandon(self) -> None:
        """Close it as it is; harmless when it is closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Destination:
    """An empty directory that becomes the new tree.

    Power cut: nothing in it counts until the whole directory is synced and renamed
    (`install/stage.py`).
    """

    def __init__(self, root: Path | str) -> None:
        self._folders = Folders(root, make=True)
        self._last: Output | None = None

    def create(self, path: str, mode: int) -> Output:
        """Return a new file to write.

        Raises:
            OSError: it exists, or the disk refused.
        """
        directory, name = self._folders.parent(path)
        self._last = Output(os.open(name, _CREATE, 0o600, dir_fd=directory), mode)
        return self._last

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link.

        Raises:
            OSError: it exists, or the disk refused.
        """
        directory, name = self._folders.parent(path)
        symlink_at(target, name, directory)

    def remove(self, path: str) -> None:
        """Take a file away again, that came out wrong."""
        directory, name = self._folders.parent(path)
        try:  # noqa: SIM105 - contextlib would have to be imported
            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            pass

    def share(
        self, folders: Folders, old: File, path: str, mode: int, how: str
    ) -> bool:
        """Take over an old file's bytes; tell whether it was what it should be.

        Args:
            folders: of the tree that has the old file.
            old: the old file.
            path: in the new tree.
            mode: of the new file.
            how: "reflink", "hardlink" or "copy"; what cannot be done becomes a
                copy. Never a hard link unasked: an application that writes into
                its own tree would change the old release too.

        Raises:
            OSError: the disk refused.
        """
        if how == "hardlink":
            shared = self._share_link(folders, old, path, mode)
            if shared is not None:
                return shared
        found = look_up(folders, old)
        if found is None:
            return False
        fd, _ = found
        try:
            if how == "reflink" and not self._no_clones:
                if digest(fd, old.length) != old.sha256:
                    return False
                directory, name = self._folders.parent(path)
                if self._clone(fd, directory, name, mode):
                    return True
            return self._copy(fd, old, path, mode)
        finally:
            os.close(fd)

    def _share_link(
        self, folders: Folders, old: File, path: str, mode: int
    ) -> bool | None:
        """Hard-link an old file; tell whether it was what it should be.

        What is hashed is the link that was made: no time passes in which the old
        name could come to mean another file.

        Returns:
            None when it cannot be linked, or has another mode.
        """
        directory, name = self._folders.parent(path)
        try:
            place, there = folders.parent(old.path)
            link_at((there, place), name, directory)
        except OSError:
            return None
        found = look_at(directory, name, old.length)
        if found is None:
            os.unlink(name, dir_fd=directory)
            return False
        fd, status = found
        try:
            fits = stat.S_IMODE(status.st_mode) == mode
            sound = fits and digest(fd, old.length) == old.sha256
        finally:
            os.close(fd)
        if not sound:
            os.unlink(name, dir_fd=directory)
        return sound if fits else None

    def _copy(self, fd: int, old: File, path: str, mode: int) -> bool:
        """Copy an old file, hashed on its way; tell whether it was what it should be.

        Raises:
            OSError: the disk refused.
        """
        output = self.create(path, mode)
        at = 0
        try:
            while data := os.pread(fd, min(_PIECE, max(1, old.length - at)), at):
                output.write(data)
                at += len(data)
        finally:
            sound = output.close() == old.sha256
        if not sound:
            self.remove(path)
        return sound

    def _clone(self, fd: int, directory: int, name: str, mode: int) -> bool:
        import fcntl  # noqa: PLC0415 - for clones only

        made = os.open(name, _CREATE, 0o600, dir_fd=directory)
        try:
            fcntl.ioctl(made, _FICLONE, fd)
            os.fchmod(made, mode)
        except OSError:
            os.unlink(name, dir_fd=directory)
            self._no_clones = True  # this file system, or another device: for all
            return False
        finally:
            os.close(made)
        return True

    _no_clones = False

    def close(self) -> None:
        """Close the directories, and a file that its bundle did not finish."""
        if self._last is not None:
            self._last.abandon()
        self._folders.close()
