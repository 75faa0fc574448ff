# SPDX-License-Identifier: Apache-2.0
"""Files in folders where an application may write, too: read if they are files at all.

A FIFO there would be waited for without end, a device read without end, and a link
would lead to what is not ours.
"""

import errno
import os
import stat
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def opened(path: Path) -> int:
    """Return a descriptor of a regular file, for reading.

    Raises:
        OSError: there is none, or it is something else.
    """
    fd = os.open(path, _OPEN)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


def read(path: Path, longest: int) -> bytes:
    """Return what is in a regular file.

    Args:
        path: of the file.
        longest: bytes that it may have.

    Raises:
        OSError: there is none, it is something else, or longer.
    """
    with open(opened(path), "rb") as file:
        data = file.read(longest + 1)
    if len(data) > longest:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return data
