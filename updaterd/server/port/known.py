# SPDX-License-Identifier: Apache-2.0
"""Requests for streams that were read before, byte for byte.

A fleet asks for the same thing in the same bytes: it has one program, few channels, and
after a restart of the server nearly one cursor. What a request's bytes say does not
depend on who sends them, so it is read once. Everything that does depend on who asks
and when (token, limits, rate) is judged each time.
"""

import hashlib
import os
from typing import NamedTuple

from updaterd.server.streams.request import StreamRequest

_MOST = 1024
_LONGEST = 2048
_END = b"\r\n\r\n"


class Known(NamedTuple):
    """What a request says.

    Attributes:
        request: with the address of whoever sent it first.
        is_old: it is HTTP/1.0.
    """

    request: StreamRequest
    is_old: bool

    def of(self, address: str) -> "Known":
        """Return the same, as it came from an address."""
        return Known(self.request._replace(address=address), self.is_old)


class Memory:
    """Remembers requests that were granted a stream.

    By a keyed digest: it holds no token's secret. Only a packet that is one request's
    head from its first byte to its last is remembered, and only compared with the first
    packet of a connection, so that it is a request here as it was there.
    """

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._known: dict[bytes, Known] = {}

    def find(self, packet: bytes) -> Known | None:
        """Return what the first packet of a connection says, if that is known."""
        if len(packet) > _LONGEST or not self._known:
            return None
        return self._known.get(self._digest(packet))

    def keep(self, packet: bytes, known: Known) -> None:
        """Remember what a packet says that held one request and nothing else."""
        if len(packet) > _LONGEST or not _is_one_head(packet):
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[self._digest(packet)] = known

    def _digest(self, packet: bytes) -> bytes:
        return hashlib.blake2b(packet, digest_size=16, key=self._key).digest()


def _is_one_head(packet: bytes) -> bool:
    return packet.endswith(_END) and packet.find(_END) == len(packet) - len(_END)
