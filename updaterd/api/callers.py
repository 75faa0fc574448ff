# SPDX-License-Identifier: Apache-2.0
"""Who asks, by the word of the kernel, and what he may do.

Nothing in a message says who somebody is. Users and groups of a product are looked up
for each call: who was added to a group since need not wait for a new process.
"""

import errno
import grp
import os
import pwd
import select
import socket
import struct
from collections.abc import Awaitable, Callable

from updaterd.core.dataclass import dataclass
from updaterd.core.settings import Product

_SO_PEERGROUPS = getattr(socket, "SO_PEERGROUPS", 59)
_SO_PEERPIDFD = 77  # Linux 6.5; Python has no name for it
_UCRED = struct.Struct("iII")
_MOST_GROUPS = 256  # 1024 bytes: as much as Python takes from the kernel

FREE = frozenset({"List", "Status", "Monitor"})
"""Methods for everybody; all others change something."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end, when the connection was made.

    Attributes:
        process: a descriptor of that very process (pidfd_open(2)); None: this kernel
            has none; -1: the process is gone.
    """

    pid: int
    uid: int
    groups: frozenset[int]
    process: int | None = None

    def is_there(self) -> bool:
        """Tell whether the process that connected lives: its number is still its own.

        A connection can be handed on, and a number is given again: somebody else's
        session would be asked about then.
        """
        if self.process is None:
            return True
        if self.process < 0:
            return False
        look = select.poll()
        look.register(self.process, select.POLLIN)
        return not look.poll(0)

    def forget(self) -> None:
        """Close the descriptor; the connection is over."""
        if self.process is not None and self.process >= 0:
            os.close(self.process)


Polkit = Callable[[Caller, str], Awaitable[bool]]
"""Tells whether polkit lets a caller change a product."""


def of(connection: socket.socket) -> Caller:
    """Return who is at the other end of a connection.

    Raises:
        OSError: the kernel does not say.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    try:
        more = connection.getsockopt(
            socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MOST_GROUPS
        )
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        more = b""  # so many groups: the one that is told counts
    groups = frozenset({gid, *struct.unpack(f"{len(more) // 4}I", more)})
    return Caller(pid, uid, groups, _process(connection, pid))


def _process(connection: socket.socket, pid: int) -> int | None:
    """Return a descriptor of the process that connected; see `Caller.process`.

    Older kernels have one for whoever has the number now: polkit itself compares that
    one's user.
    """
    try:
        return connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            return -1
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    except OSError:
        return None


async def may(caller: Caller, method: str, product: Product, polkit: Polkit) -> bool:
    """Tell whether a caller may call a method for a product.

    Args:
        caller: who asks.
        method: its name without the interface's.
        product: what for.
        polkit: asked when nothing else allows it.
    """
    if method in FREE or has_say(caller, product):
        return True
    return await polkit(caller, product.name)


def has_say(caller: Caller, product: Product) -> bool:
    """Tell whether a caller has a say in a product, without asking polkit."""
    if caller.uid in (0, os.geteuid()):
        return True
    if any(_uid(name) == caller.uid for name in product.users):
        return True
    return any(_gid(name) in caller.groups for name in product.groups)


def _uid(name: str) -> int | None:
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _gid(name: str) -> int | None:
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
