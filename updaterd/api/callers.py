# SPDX-License-Identifier: Apache-2.0
"""Who asks, by the word of the kernel, and what he may do.

Nothing in a message says who somebody is. Users and groups of a product are looked up
for each call: who was added to a group since need not wait for a new process.
"""

import errno
import grp
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable

from updaterd.core.dataclass import dataclass
from updaterd.core.settings import Product

_SO_PEERGROUPS = getattr(socket, "SO_PEERGROUPS", 59)
_UCRED = struct.Struct("iII")
_MOST_GROUPS = 256  # 1024 bytes: as much as Python takes from the kernel

FREE = frozenset({"List", "Status", "Monitor"})
"""Methods for everybody; all others change something."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end, when the connection was made."""

    pid: int
    uid: int
    groups: frozenset[int]


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
    return Caller(
        pid, uid, frozenset({gid, *struct.unpack(f"{len(more) // 4}I", more)})
    )


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
