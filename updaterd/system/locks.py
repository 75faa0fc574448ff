# SPDX-License-Identifier: Apache-2.0
"""Who is at work: locks that end with their process, however it ends.

Open file description locks (fcntl(2), `F_OFD_SETLK`): unlike `flock` they can be
asked about without being taken, so `updaterd status` never gets in the way; unlike
plain POSIX locks they do not vanish when a library opens and closes the same file.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from updaterd.errors import TransientError

# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid
_FLOCK = struct.Struct("hhqqi4x")
_WHOLE_FILE = (os.SEEK_SET, 0, 0, 0)


class BusyError(TransientError):
    """Another process of updaterd holds the lock."""

    code = "busy"


@contextmanager
def hold(
    path: Path,
    *,
    subject: str,
    wait: bool = False,
    do: str = "wait for it to end; `updaterd status` tells what it does",
) -> Iterator[None]:
    """Hold the lock at `path` while the block runs.

    Args:
        path: the lock file; made when absent, never removed. Closed to other users:
            who may open it, if only to read, may lock it.
        subject: what is locked, for the message ("product acme").
        wait: wait for the holder to end instead of failing.
        do: what a person does about it otherwise.

    Raises:
        BusyError: another process holds it, and `wait` is false.
        OSError: the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    try:
        _close_to_others(fd)
        command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
        try:
            fcntl.fcntl(fd, command, _FLOCK.pack(fcntl.F_WRLCK, *_WHOLE_FILE))
        except (BlockingIOError, PermissionError) as error:
            raise BusyError(
                f"another updaterd process is at work on {subject}",
                do=do,
            ) from error
        yield
    finally:
        os.close(fd)


def _close_to_others(fd: int) -> None:
    """Take the rights of others from a lock file that an older release made."""
    status = os.fstat(fd)
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        os.fchmod(fd, 0o600)


def is_held(path: Path) -> bool:
    """Tell whether a process holds the lock at `path`, without taking it.

    Raises:
        PermissionError: it is another user's.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except PermissionError:
        raise
    except OSError:
        return False
    try:
        answer = fcntl.fcntl(
            fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_RDLCK, *_WHOLE_FILE)
        )
    finally:
        os.close(fd)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
