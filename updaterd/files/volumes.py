# SPDX-License-Identifier: Apache-2.0
"""Where a tree ends: other file systems in it, which are not ours to touch.

A directory belongs to a tree when it lies on the same device (a btrfs subvolume does
not) and in the same mount (`mount --bind` shares the device) as the tree's top. Both
are asked of a directory that is open already, so nothing can be put in its place
between the question and what follows. Links are never followed.

One descriptor, however deep the tree: the way back up is `..`, which must be the very
directory that was left.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from updaterd.core.frozen import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_HERE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_AT_EMPTY_PATH, _MNT_ID = 0x1000, 0x1000  # statx(2)
_UNKNOWN = "the kernel does not tell mounts apart"
_MOUNTS = "/proc/self/mountinfo"
WHY = "another file system is mounted there"
"""What is said of a place that is not entered."""


@record
class Obstacle:
    """A path that could not be dealt with, and why."""

    path: str
    why: str

    def __str__(self) -> str:
        """Return both in one line."""
        return f"{self.path}: {self.why}"


def of(fd: int) -> tuple[int, int]:
    """Return the device and the mount that an open file or directory lies in.

    Raises:
        OSError: it cannot be told; then nothing may be believed of it.
    """
    try:
        info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # no /proc here
        return os.fstat(fd).st_dev, _by_statx(fd)
    try:
        text = os.read(info, 4096)
    finally:
        os.close(info)
    _, mark, after = text.partition(b"mnt_id:")
    if not mark:
        raise OSError(errno.ENOSYS, _UNKNOWN)
    return os.fstat(fd).st_dev, int(after.split(None, 1)[0])


def _by_statx(fd: int) -> int:
    """Return the mount that an open file lies in, asked of the kernel itself.

    Raises:
        OSError: it does not tell (Linux before 5.8).
    """
    import ctypes  # noqa: PLC0415 # dear, and only for where there is no /proc

    buffer = ctypes.create_string_buffer(256)  # struct statx of linux/stat.h
    try:
        statx = ctypes.CDLL(None)["statx"]
    except AttributeError:
        raise OSError(errno.ENOSYS, _UNKNOWN) from None
    if statx(fd, b"", _AT_EMPTY_PATH, _MNT_ID, buffer) != 0:
        raise OSError(errno.ENOSYS, _UNKNOWN)
    (known,) = struct.unpack_from("=I", buffer)
    if not known & _MNT_ID:
        raise OSError(errno.ENOSYS, _UNKNOWN)
    (mount,) = struct.unpack_from("=Q", buffer, 144)
    return int(mount)


def same(first: Path, second: Path) -> bool:
    """Tell whether a file can be renamed from one directory into the other.

    Raises:
        OSError: one of them cannot be opened.
    """
    mounts = []
    for path in (first, second):
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mounts.append(of(fd))
        finally:
            os.close(fd)
    return mounts[0] == mounts[1]


class Descent:
    """A place below a directory, which is entered and left step by step.

    Args:
        top: an open directory; it stays the caller's.
        unlock: give a directory of ours the rights to enter and change it, where its
            mode lacks them. Nobody else's: an owner is looked at before.
    """

    def __init__(self, top: int, *, unlock: bool = False) -> None:
        self._unlock = unlock
        self._volume = of(top)
        self._trail: list[tuple[str, tuple[int, int]]] = []
        self.fd = os.open(".", _HERE, dir_fd=top)

    @property
    def path(self) -> str:
        """Return the way from the top, "" at the top."""
        return "/".join(name for name, _ in self._trail)

    def beneath(self, name: str) -> str:
        """Return the way from the top to what is called `name` here."""
        return "/".join((*(step for step, _ in self._trail), name))

    def entries(self) -> list[tuple[str, bool]]:
        """Return what is here: names, and whether each is a directory.

        Raises:
            OSError: it cannot be listed.
        """
        with os.scandir(self.fd) as items:
            return [(item.name, item.is_dir(follow_symlinks=False)) for item in items]

    def enter(self, name: str) -> bool:
        """Go into a directory; tell whether it belongs to the tree, else stay.

        Raises:
            OSError: it is none (a link is none), or may not be entered.
        """
        entry = os.open(name, _LOOK, dir_fd=self.fd)
        try:
            status = os.fstat(entry)
            if not stat.S_ISDIR(status.st_mode):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if of(entry) != self._volume:
                return False
            if (
                self._unlock
                and status.st_uid == os.geteuid()
                and status.st_mode & 0o700 != 0o700
            ):
                # by its descriptor: chmod of a name would follow what stands there
                # by now, and fchmod does not take what was only looked up
                os.chmod(f"/proc/self/fd/{entry}", 0o700)
            inside = os.open(".", _HERE, dir_fd=entry)
        finally:
            os.close(entry)
        own = os.fstat(self.fd)
        self._trail.append((name, (own.st_dev, own.st_ino)))
        os.close(self.fd)
        self.fd = inside
        return True

    def leave(self) -> str:
        """Go back up; return the name of what was left.

        Raises:
            OSError: it was moved meanwhile: what is above is not where we came from.
        """
        name, came_from = self._trail[-1]
        above = os.open("..", _HERE, dir_fd=self.fd)
        status = os.fstat(above)
        if (status.st_dev, status.st_ino) != came_from:
            os.close(above)
            raise OSError(errno.ESTALE, "was moved away meanwhile", self.path)
        os.close(self.fd)
        self.fd = above
        self._trail.pop()
        return name

    def close(self) -> None:
        """Close the directory."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the directory."""
        self.close()


@record
class Found:
    """Something in a tree.

    Attributes:
        path: from the top.
        directory: the open directory that it is in, until the next one is asked for.
        name: what it is called there.
        folder: whether it is a directory.
        entered: it is one, and what is in it comes next; `directory` is itself.
        why: it is one that could not be entered, and why.
    """

    path: str
    directory: int
    name: str
    folder: bool
    entered: bool = False
    why: str = ""


def walk(top: int, enters: Callable[[str], bool] = lambda _: True) -> Iterator[Found]:
    """Yield everything in a tree; other file systems are named, and not entered.

    Args:
        top: an open directory.
        enters: whether to enter the directory of that path; asked for each.

    Raises:
        OSError: a directory was moved while it was walked.
    """
    with Descent(top) as place:
        stack = [iter(place.entries())]
        while stack:
            name, folder = next(stack[-1], ("", False))
            if not name:
                stack.pop()
                if stack:
                    place.leave()
                continue
            path = place.beneath(name)
            if not folder or not enters(path):
                yield Found(path, place.fd, name, folder)
                continue
            try:
                inside = place.enter(name)
            except OSError as error:
                why = error.strerror or str(error)
                yield Found(path, place.fd, name, folder=True, why=why)
                continue
            if not inside:
                yield Found(path, place.fd, name, folder=True, why=WHY)
                continue
            yield Found(path, place.fd, name, folder=True, entered=True)
            try:
                stack.append(iter(place.entries()))
            except OSError:
                stack.append(iter(()))


def mounted_below(tree: Path) -> tuple[str, ...]:
    """Return where something is mounted at a path or below, as the kernel lists it.

    Knows files, too, that something is mounted on. A link at the path itself is not
    followed. Nothing where the list cannot be read.
    """
    base = os.fsencode(os.path.join(os.path.realpath(tree.parent), tree.name))
    try:
        with open(_MOUNTS, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return ()
    places = (_plain(line.split(b" ", 5)[4]) for line in lines)
    return tuple(
        sorted({
            os.fsdecode(place)
            for place in places
            if place == base or place.startswith(base + b"/")
        })
    )


def _plain(place: bytes) -> bytes:
    """Return a path as it is: blanks and the like are listed by octal number."""
    first, *rest = place.split(b"\\")
    return first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest)


def foreign(tree: Path, directory: int | None = None) -> tuple[Obstacle, ...]:
    """Return what of a tree belongs to other file systems: it must stay whole then.

    What may not be looked into is not known. Whoever changes a tree compares at each
    level (`Descent`); this is so that it is not begun.

    Args:
        tree: its path; a link is not followed.
        directory: the open directory that it is in, where names may change.

    Raises:
        OSError: a directory was moved while it was looked at.
    """
    listed = mounted_below(tree)
    if listed:
        return tuple(Obstacle(path, WHY) for path in listed)
    try:
        top = os.open(tree if directory is None else tree.name, _HERE, dir_fd=directory)
    except OSError:
        return ()
    try:
        return tuple(
            Obstacle(str(tree / item.path), WHY)
            for item in walk(top)
            if item.why == WHY
        )
    finally:
        os.close(top)
