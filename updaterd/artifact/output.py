"""The new tree while it is made: under a directory descriptor, hashed as written.

Regular files, directories and checked relative links only; every file is created
exclusively and never through a link, with the mode the listing says.
"""

import fcntl
import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

from updaterd.artifact.folders import Folders
from updaterd.artifact.sources import digest, open_file
from updaterd.core.manifest import File
from updaterd.durable import link_at, symlink_at

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FICLONE = 0x40049409
_COPY_PIECE = 1 << 26


class Output:
    """A file that is being written."""

    def __init__(self, fd: int, mode: int) -> None:
        self._fd = fd
        self._mode = mode
        self._state = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`.

        Raises:
            OSError: the disk refused.
        """
        self._state.update(data)
        view = memoryview(data)
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
            os.close(self._fd)
        return self._state.hexdigest()


class Destination:
    """An empty directory that becomes the new tree.

    Power cut: nothing in it counts until the whole directory is synced and renamed
    (`install/stage.py`).
    """

    def __init__(self, root: Path) -> None:
        self._folders = Folders(root, make=True)

    def create(self, path: str, mode: int) -> Output:
        """Return a new file to write.

        Raises:
            OSError: it exists, or the disk refused.
        """
        directory, name = self._folders.parent(path)
        return Output(os.open(name, _CREATE, 0o600, dir_fd=directory), mode)

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
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)

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
        fd = open_file(folders, old)
        if fd is None:
            return False
        try:
            if digest(fd) != old.sha256:
                return False
            self._share(fd, folders.parent(old.path), path, mode, how)
        finally:
            os.close(fd)
        return True

    def _share(
        self, fd: int, old: tuple[int, str], path: str, mode: int, how: str
    ) -> None:
        directory, name = self._folders.parent(path)
        if how == "reflink" and self._clone(fd, directory, name, mode):
            return
        same_mode = stat.S_IMODE(os.fstat(fd).st_mode) == mode
        if how == "hardlink" and same_mode and _linked(fd, old, name, directory):
            return
        made = os.open(name, _CREATE, 0o600, dir_fd=directory)
        try:
            _copy(fd, made)
            os.fchmod(made, mode)
        finally:
            os.close(made)

    def _clone(self, fd: int, directory: int, name: str, mode: int) -> bool:
        if self._no_clones:
            return False
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
        """Close the directories."""
        self._folders.close()


def _linked(fd: int, old: tuple[int, str], name: str, directory: int) -> bool:
    """Hard-link an old file, and tell whether it is the one that was hashed."""
    try:
        link_at((old[1], old[0]), name, directory)
    except OSError:
        return False
    mine = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if os.path.samestat(mine, os.fstat(fd)):
        return True
    os.unlink(name, dir_fd=directory)
    return False


def _copy(source: int, made: int) -> None:
    """Copy by the kernel where it can, else through memory.

    Raises:
        OSError: the disk refused.
    """
    offset = 0
    try:
        while count := os.copy_file_range(source, made, _COPY_PIECE, offset):
            offset += count
    except OSError:
        os.lseek(made, offset, os.SEEK_SET)
    while data := os.pread(source, 1 << 18, offset):
        offset += os.write(made, data)
