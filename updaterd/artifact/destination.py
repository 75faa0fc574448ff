# SPDX-License-Identifier: Apache-2.0
"""The new tree while it is completed: under a directory descriptor, hashed as written.

Regular files, directories and checked relative links only; every file is created
exclusively and never through a link, with the mode the listing says.
"""

from __future__ import annotations

import errno
import os
import stat
from hashlib import sha256

from updaterd.artifact.apply.old_files import digest, has_content, look_at, look_up
from updaterd.artifact.apply.output import CREATE, Output
from updaterd.artifact.folders import Folders
from updaterd.durable import link_at, symlink_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from updaterd.core.tree import File

FICLONE = 0x40049409
_PIECE = 1 << 18


def _read(fd: int, count: int, at: int) -> bytes:
    """Return bytes of an old file; none where it ends, or cannot be read."""
    try:
        return os.pread(fd, count, at)
    except OSError:
        return b""  # what comes out has another hash


class HashedOutput(Output):
    """A file that is being written, hashed, with the mode it gets in the end."""

    def __init__(self, fd: int, mode: int) -> None:
        super().__init__(fd)
        self._mode = mode
        self._state = sha256()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`.

        Raises:
            OSError: the disk refused.
        """
        self._state.update(data)
        super().write(data)

    def finish(self) -> None:
        """Set the mode and the length, and close.

        Raises:
            OSError: the disk refused; it is closed.
        """
        try:
            os.fchmod(self._fd, self._mode)
            super().finish()
        finally:
            self.abandon()

    def sha256(self) -> str:
        """Return the hash of what was written so far."""
        return self._state.hexdigest()


class Destination:
    """An empty directory that becomes the new tree.

    Power cut: nothing in it counts until the whole directory is synced and renamed
    (`install/stage.py`).
    """

    def __init__(self, root: Path | str | int) -> None:
        self._folders = Folders(root, make=True)
        self._last: HashedOutput | None = None

    @property
    def root(self) -> int:
        """Return the descriptor of the directory itself."""
        return self._folders.top

    def create(self, path: str, mode: int) -> HashedOutput:
        """Return a new file to write.

        Raises:
            OSError: it exists, or the disk refused.
        """
        directory, name = self._folders.parent(path)
        fd = os.open(name, CREATE, 0o600, dir_fd=directory)
        self._last = HashedOutput(fd, mode)
        return self._last

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link.

        Raises:
            OSError: it exists, or the disk refused.
        """
        directory, name = self._folders.parent(path)
        symlink_at(target, name, directory)

    def seal(self, file: File, *, shared: bool) -> bool:
        """Give a file that another process wrote its mode; tell whether it is right.

        Args:
            file: what it must be.
            shared: whether it may be a hard link to an old release's.

        Raises:
            OSError: the disk refused.
        """
        directory, name = self._folders.parent(file.path)
        opened = look_at(directory, name, file.length)
        if opened is None:
            return False
        fd, status = opened
        try:
            if status.st_nlink > 1 and not shared:
                return False
            if digest(fd, file.length) != file.sha256:
                return False
            if stat.S_IMODE(status.st_mode) != file.mode:
                os.fchmod(fd, file.mode)
        finally:
            os.close(fd)
        return True

    def seal_unknown(self, path: str, length: int, mode: int) -> str:
        """Give a file of unknown content its mode; return its sha256, none if not such.

        Raises:
            OSError: the disk refused.
        """
        opened = look_at(*self._folders.parent(path), length)
        if opened is None:
            return ""
        fd, status = opened
        try:
            if status.st_nlink > 1:
                return ""
            os.fchmod(fd, mode)
            return digest(fd, length)
        finally:
            os.close(fd)

    def link_target(self, path: str) -> str:
        """Return where the link at a path points; nothing if something else is there.

        Raises:
            OSError: the disk refused.
        """
        directory, name = self._folders.parent(path)
        try:
            return os.readlink(name, dir_fd=directory)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return ""
            raise

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
            OSError: the disk refused to write. An old file that cannot be read is not
                what it should be.
        """
        if how == "hardlink":
            shared = self._share_link(folders, old, path, mode)
            if shared is not None:
                return shared
        opened = look_up(folders, old)
        if opened is None:
            return False
        fd, _ = opened
        try:
            if how == "reflink" and not self._no_clones:
                if not has_content(fd, old):
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
            place, old_name = folders.parent(old.path)
            link_at((old_name, place), name, directory)
        except OSError:
            return None
        try:
            opened = look_at(directory, name, old.length)
        except OSError:
            opened = None  # it cannot be read
        if opened is None:
            os.unlink(name, dir_fd=directory)
            return False
        fd, status = opened
        try:
            fits = stat.S_IMODE(status.st_mode) == mode
            sound = fits and has_content(fd, old)
        finally:
            os.close(fd)
        if not sound:
            os.unlink(name, dir_fd=directory)
        return sound if fits else None

    def _copy(self, fd: int, old: File, path: str, mode: int) -> bool:
        """Copy an old file, hashed on its way; tell whether it was what it should be.

        Raises:
            OSError: the disk refused to write.
        """
        output = self.create(path, mode)
        at = 0
        try:
            while at < old.length and (
                data := _read(fd, min(_PIECE, old.length - at), at)
            ):
                output.write(data)
                at += len(data)
            output.finish()
        finally:
            output.abandon()
        sound = output.sha256() == old.sha256
        if not sound:
            self.remove(path)
        return sound

    def _clone(self, fd: int, directory: int, name: str, mode: int) -> bool:
        import fcntl  # noqa: PLC0415 - for clones only

        clone = os.open(name, CREATE, 0o600, dir_fd=directory)
        try:
            fcntl.ioctl(clone, FICLONE, fd)
            os.fchmod(clone, mode)
        except OSError:
            os.unlink(name, dir_fd=directory)
            self._no_clones = True  # this file system, or another device: for all
            return False
        finally:
            os.close(clone)
        return True

    _no_clones = False

    def close(self) -> None:
        """Close the directories, and a file that its bundle did not finish."""
        if self._last is not None:
            self._last.abandon()
        self._folders.close()
