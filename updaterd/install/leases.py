# SPDX-License-Identifier: Apache-2.0
"""Does any process have a file of a tree open? Ask the kernel, not /proc.

A write lease is granted only on a file that nobody else has open, mapped or running
(fcntl(2), `F_SETLEASE`): whoever they are, in whichever namespace they live. So this
works for a daemon that may not look at other users' processes, or that is not even
shown them (systemd's `ProtectProc=invisible`). It needs to be the files' owner.

The lease is given back at once. Whoever opens the file in between waits for that
moment (the kernel tells the holder by a signal, which is set to one that does nothing).
"""

import errno
import fcntl
import os
import signal
import stat
from contextlib import suppress
from pathlib import Path

from updaterd.files import volumes

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def is_open(tree: Path) -> bool | None:
    """Tell whether any process has a file of `tree` open; None: it cannot be told.

    Files that have another name elsewhere (`unchanged = "hardlink"`) are left out: it
    may be the other one that is in use, and it stays. Directories cannot be asked.
    """
    unknown = False
    try:
        top = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return False if error.errno in _GONE else None
    try:
        for item in volumes.walk(top):
            is_open = None if item.why else item.folder is False and _is_open(item)
            if is_open:
                return True
            unknown = unknown or is_open is None
    finally:
        os.close(top)
    return None if unknown else False


def _is_open(item: volumes.Found) -> bool | None:
    try:
        status = os.lstat(item.name, dir_fd=item.directory)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            return False
        fd = os.open(item.name, _OPEN, dir_fd=item.directory)
    except OSError as error:
        return False if error.errno in _GONE else None
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # by default it does nothing
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        # EACCES: another's file; EINVAL: a file system without leases (NFS)
        return True if error.errno == errno.EAGAIN else None
    finally:
        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        os.close(fd)
    return False
