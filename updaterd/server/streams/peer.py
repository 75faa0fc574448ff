# SPDX-License-Identifier: Apache-2.0
"""The connection under a stream: bounds the cost of a reader that does not read."""

import asyncio
import socket
import struct

from starlette.types import Scope

EXTENSION = "updaterd.peer"
_SEND_BUFFER = 64 << 10  # the kernel doubles it
_RESET = struct.pack("ii", 1, 0)


class Peer:
    """The other end of a stream.

    Args:
        transport: None where the server does not tell: nothing is done then.
    """

    __slots__ = ("_transport",)

    def __init__(self, transport: asyncio.Transport | None) -> None:
        self._transport = transport

    def _set(self, option: int, value: int | bytes) -> None:
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, option, value)

    def bound(self) -> None:
        """Let the kernel hold little: what waits is ours to count."""
        self._set(socket.SO_SNDBUF, _SEND_BUFFER)

    def reset(self) -> None:
        """Cut the connection; the kernel frees its buffer now, not some day."""
        if self._transport is not None and not self._transport.is_closing():
            self._set(socket.SO_LINGER, _RESET)
        if self._transport is not None:
            self._transport.abort()


def peer_of(scope: Scope) -> Peer:
    """Return the peer of an ASGI request, as far as the server tells (`protocol`)."""
    return Peer(scope.get("extensions", {}).get(EXTENSION, {}).get("transport"))
