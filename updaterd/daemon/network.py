# SPDX-License-Identifier: Apache-2.0
"""Has the network come back, or the machine from a suspend? Without looking often.

A way out appears as a default route, and the kernel tells of it (rtnetlink(7)): one
socket, no library, and no wakeup while nothing changes. After a suspend the clock that
counts it is ahead of the one that does not.
"""

import errno
import socket
import sqlite3
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from updaterd.store.journal import Journal

_GROUPS = 0x40 | 0x400  # RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE
_NEW_ROUTE = 24  # RTM_NEWROUTE
_MAIN = 254  # RT_TABLE_MAIN
_UNICAST = 1  # RTN_UNICAST
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_SUSPENDED_S = 5.0


def listen() -> socket.socket:
    """Return a socket that becomes readable when routes change.

    Raises:
        OSError: the kernel, or the unit, does not allow it.
    """
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    ear = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    try:
        ear.bind((0, _GROUPS))
    except BaseException:
        ear.close()
        raise
    return ear


def has_way_out(ear: socket.socket) -> bool:
    """Take what the kernel tells; return whether a default route was among it.

    Raises:
        OSError: it will tell no more.
    """
    came = False
    while True:
        try:
            data, sender = ear.recvfrom(65536)
        except BlockingIOError:
            return came
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            came = True  # more than there was room for: any may have been one
            continue
        if sender[0] == 0:  # the kernel's own; others may send to the group
            came = came or any(_is_default(part) for part in _messages(data))


def _messages(data: bytes) -> Iterator[bytes]:
    """Yield the routes that messages say are new."""
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            return
        if kind == _NEW_ROUTE:
            yield data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _is_default(route: bytes) -> bool:
    if len(route) < _ROUTE.size:
        return False
    _, to_bits, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(route)
    return bool(to_bits == 0 and table == _MAIN and kind == _UNICAST)


class Suspends:
    """Tells whether the machine was suspended since the last question.

    Args:
        counting: a clock that goes on while the machine is suspended.
        standing: one that does not.
    """

    def __init__(
        self,
        counting: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        standing: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clocks = counting, standing
        self._ahead_s = self._ahead()

    def _ahead(self) -> float:
        counting, standing = self._clocks
        return counting() - standing()

    def passed(self) -> bool:
        """Tell it, once."""
        before, self._ahead_s = self._ahead_s, self._ahead()
        return self._ahead_s - before > _SUSPENDED_S


def look_at_metered(
    connection: sqlite3.Connection, products: Iterable[str], now: float
) -> None:
    """Have those looked at again that wait for another network.

    Power cut: they are looked at by their plan, minutes later.
    """
    journal = Journal(connection)
    with suppress(sqlite3.Error):
        for name in products:
            if journal.product(name).decision == "metered":
                journal.remember(name, next_attempt_at=now)
