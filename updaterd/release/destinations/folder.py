# SPDX-License-Identifier: Apache-2.0
"""A directory as a destination: what a web server serves, a disk, a network mount."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from updaterd import durable
from updaterd.release.destinations.contract import (
    Held,
    RefusedError,
    Sent,
    Stored,
    UnreachableError,
)
from updaterd.system import locks

_LOCK = ".updaterd.lock"
_PIECE = 1 << 20


class Folder:
    """A directory that exists.

    Args:
        path: of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.address = str(path)

    def stored(self) -> dict[str, Stored]:
        """Return what is there, by path.

        Raises:
            RefusedError: the directory is missing, or closed to us.
            UnreachableError: it is gone meanwhile.
        """
        if not self._path.is_dir():
            raise RefusedError(
                f"there is no directory {self._path}",
                do="mount it, or make it (mkdir)",
            )
        files = {}
        with self._translated():
            for folder, _, names in os.walk(self._path, onerror=_stop):
                for name in names:
                    path = Path(folder, name)
                    try:
                        status = path.lstat()
                    except FileNotFoundError:
                        continue  # another publisher's half file, or see below
                    if path.is_file() and not path.is_symlink():
                        files[path.relative_to(self._path).as_posix()] = Stored(
                            size=status.st_size, changed=status.st_mtime
                        )
            self._check_there()
        return files

    def read(self, path: str, limit: int) -> Held | None:
        """Return a file of at most `limit` bytes; None: there is none.

        Raises:
            UnreachableError: it cannot be read, or is larger.
            _GoneError: the directory is not there.
        """
        try:
            with self._translated(), (self._path / path).open("rb") as file:
                data = file.read(limit + 1)
        except _GoneError:
            if not self._path.is_dir():
                raise
            return None
        if len(data) > limit:
            raise UnreachableError(f"{self._path / path} is larger than {limit} bytes")
        return Held(data=data, mark=None)

    def send(self, path: str, source: Path, sent: Sent) -> None:
        """Write a file whole, whatever is there.

        Power cut: the old one, if any, or the new one; at worst a hidden `.new` is
        left over, which `gc` deletes.
        """
        target = self._path / path
        with self._translated():
            self._check_there()  # a folder in its place would hide the disk's
            durable.make_dir(target.parent)
            fresh = target.with_name(f".{target.name}.{os.urandom(4).hex()}.new")
            try:
                with source.open("rb") as file, fresh.open("xb") as copy:
                    while piece := file.read(_PIECE):
                        copy.write(piece)
                        sent(len(piece))
                durable.settle(fresh, target)
            except BaseException:
                fresh.unlink(missing_ok=True)
                raise

    def create(self, path: str, data: bytes) -> bool:
        """Write a file where none is, at once; False: one is there.

        Power cut: it is there whole, or not.
        """
        return self.replace(path, data, None)

    def replace(self, path: str, data: bytes, before: Held | None) -> bool:
        """Replace what was read (None: nothing) at once; False: it is another now.

        Power cut: the old one or the new one.
        """
        target = self._path / path
        with self._translated(), self._locked():
            try:
                present = target.read_bytes()
            except FileNotFoundError:
                present = None
            if present != (before.data if before else None):
                return False
            durable.make_dir(target.parent)
            durable.write_file(target, data, mode=0o644)
        return True

    def delete(self, path: str) -> None:
        """Delete a file; it may be gone already.

        Power cut: it is there or it is not.
        """
        with self._translated():
            (self._path / path).unlink(missing_ok=True)

    def _check_there(self) -> None:
        """Make sure that the directory itself did not vanish.

        Raises:
            FileNotFoundError: it did.
        """
        self._path.stat()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the directory, for as long as it takes to look and write once."""
        self._check_there()
        lock = self._path / _LOCK
        with locks.hold(lock, subject=f"the destination {self._path}", wait=True):
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the disk says into what a destination says.

        Raises:
            RefusedError: for want of a right.
            UnreachableError: anything else.
            _GoneError: that, where a file or the directory is not there.
        """
        try:
            yield
        except FileNotFoundError as error:
            raise _GoneError(
                f"{self._path}: gone while it was used: {error}",
                do="mount it again, or make it (mkdir)",
            ) from error
        except PermissionError as error:
            raise RefusedError(
                f"no right to write in {self._path}: {error}",
                do="give this user the right, or publish as the directory's owner",
            ) from error
        except OSError as error:
            raise UnreachableError(f"cannot write to {self._path}: {error}") from error


class _GoneError(UnreachableError):
    """There is no such file, or the whole directory is gone."""


def _stop(error: OSError) -> None:
    raise error
