# SPDX-License-Identifier: Apache-2.0
"""Room on the file systems that an update writes to: what it needs, and what must stay.

Every file system is asked for itself: the applications' and the cache's are often two,
and one of them small.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from updaterd.core.dataclass import dataclass
from updaterd.core.units import format_bytes
from updaterd.errors import TransientError


class DiskFullError(TransientError):
    """There is no room for the release; nothing was changed."""

    code = "disk_full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is going to be written below a folder that exists.

    Attributes:
        subject: for a person: a release, or its bundles.
    """

    folder: Path
    subject: str
    bytes: int
    inodes: int = 0


def require(needs: Sequence[Need], *, min_free: int) -> None:
    """Check that everything fits, and that enough stays free where it goes.

    Raises:
        DiskFullError: too few bytes or inodes somewhere.
        OSError: a folder is not there.
    """
    by_device: dict[int, list[Need]] = {}
    for need in needs:
        if need.bytes or need.inodes:
            by_device.setdefault(need.folder.stat().st_dev, []).append(need)
    for together in by_device.values():
        _require(together, min_free)


def _require(together: list[Need], min_free: int) -> None:
    first = together[0]
    file_system = os.statvfs(first.folder)
    needed, free = (
        sum(need.bytes for need in together),
        file_system.f_bavail * file_system.f_frsize,
    )
    subjects = " with ".join(need.subject for need in together)
    if needed + min_free > free:
        raise DiskFullError(
            f"{first.folder}: {subjects} needs {format_bytes(needed)} and "
            f"{format_bytes(min_free)} must stay free; there are {format_bytes(free)}",
            means="nothing was changed; the installed release goes on running",
            do="free disk space, or lower download.min_free",
        )
    inodes = sum(need.inodes for need in together)
    # some file systems (btrfs) make inodes as needed and report none
    if file_system.f_files and inodes > file_system.f_favail:
        raise DiskFullError(
            f"{first.folder}: {subjects} needs {inodes} inodes, "
            f"{file_system.f_favail} are free",
            means="nothing was changed; the installed release goes on running",
            do="delete files that are not needed",
            code="no_inodes",
        )


def block_of(folder: Path) -> int:
    """Return the size of a block there, in bytes.

    Raises:
        OSError: the folder is not there.
    """
    return os.statvfs(folder).f_frsize


class Watch:
    """Looks while it is written whether enough stays free: others write too.

    Args:
        folder: where it is written.
        min_free: bytes that must stay free.
    """

    _EVERY = 1 << 20

    def __init__(self, folder: Path, *, min_free: int) -> None:
        self._folder = folder
        self._min_free = min_free
        self._next = 0

    def wrote(self, done: int) -> None:
        """Take note of how far it is, in bytes.

        Raises:
            DiskFullError: less stays free than must.
        """
        if done < self._next:
            return
        self._next = done + self._EVERY
        file_system = os.statvfs(self._folder)
        free = file_system.f_bavail * file_system.f_frsize
        if free < self._min_free:
            raise DiskFullError(
                f"{self._folder}: only {format_bytes(free)} left, and "
                f"{format_bytes(self._min_free)} must stay free",
                means="something else fills the disk; the installed release goes on "
                "running, and the unfinished update was removed",
                do="free disk space, or lower download.min_free",
            )
