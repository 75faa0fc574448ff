# SPDX-License-Identifier: Apache-2.0
"""Wake a running daemon: by a socket that only its own user, and root, can reach.

Not by a signal to a number that stands in a file. Whoever writes the file chooses the
process then, and -1 is all of them; and a number may be another process's by now. A
connection is all that is said, and a socket that nobody listens at refuses it.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = "wake"
_TYPE = socket.SOCK_STREAM | socket.SOCK_CLOEXEC
_PATIENCE_S = 1.0


def listen(runtime: Path) -> socket.socket:
    """Return the daemon's end; readable when somebody wakes it (`hear`).

    Raises:
        OSError: the socket cannot be made.

    Power cut: the socket is in /run and gone.
    """
    ear = socket.socket(socket.AF_UNIX, _TYPE | socket.SOCK_NONBLOCK)
    try:
        folder = os.open(runtime, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(FileNotFoundError):
                os.unlink(_NAME, dir_fd=folder)  # the last daemon's
            os.fchmod(ear.fileno(), 0o600)  # before there is a name to connect to
            ear.bind(_address(folder))
        finally:
            os.close(folder)
        ear.listen()
    except BaseException:
        ear.close()
        raise
    return ear


def hear(ear: socket.socket) -> None:
    """Take what connections there are; they say nothing more."""
    for connection in _waiting(ear):
        connection.close()


def _waiting(ear: socket.socket) -> Iterator[socket.socket]:
    with suppress(OSError):
        while True:
            yield ear.accept()[0]


def nudge(runtime: Path) -> bool:
    """Tell the daemon to look again; return whether there was one to tell."""
    try:
        folder = os.open(runtime, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with socket.socket(socket.AF_UNIX, _TYPE) as voice:
            voice.settimeout(_PATIENCE_S)
            voice.connect(_address(folder))
    except OSError:
        return False  # none, or another user's: it will see the change by itself
    finally:
        os.close(folder)
    return True


def _address(folder: int) -> str:
    """Return the socket's address: a path of its own may be too long for one."""
    return f"/proc/self/fd/{folder}/{_NAME}"
