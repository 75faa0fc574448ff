# SPDX-License-Identifier: Apache-2.0
"""Listens: connections from a socket to the application, and their end."""

import asyncio
import socket
import ssl

from starlette.types import ASGIApp

from updaterd.errors import BrokenError
from updaterd.log import get
from updaterd.server.options import Options
from updaterd.server.port.acceptor import Acceptor
from updaterd.server.port.carrier import Carrier
from updaterd.server.port.guard import Guard, Place
from updaterd.server.port.heads import Heads
from updaterd.server.port.protocol import FeedProtocol

_LAST_REQUESTS_S = 5.0
_STEP_S = 0.05

log = get()


class Listener:
    """Accepts connections for an application until it is told to end.

    Args:
        app: answers what is no stream.
        guard: shared limits.

    Attributes:
        tls: of the server's certificate; None without one.
        leave: set to stop serving.
        hurry: set to wait for no request under way.

    Raises:
        BrokenError: the certificate or its key cannot be used.
    """

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        heads = Heads(guard.now)
        self._carrier = Carrier(app, heads)
        self._guard = guard
        self._heads = heads
        self.tls = _context(guard.options)
        self.leave = asyncio.Event()
        self.hurry = False
        self._acceptor: Acceptor | None = None
        self._server: asyncio.Server | None = None

    def protocol(self, place: Place | None = None) -> FeedProtocol:
        """Return what speaks on a connection; `place` is of one that was let in."""
        return FeedProtocol(self._carrier, self._guard, self._heads, place)

    async def start(self, sock: socket.socket) -> None:
        """Begin to accept; the socket stays the caller's."""
        if self.tls is not None:
            # a connection counts from accept on, not when its handshake is done
            self._acceptor = Acceptor(
                sock,
                self._guard,
                self.tls,
                self.protocol,
                deadline_s=self._guard.options.deadlines.handshake_s,
            )
            self._acceptor.start()
            return
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self.protocol, sock=sock.dup(), backlog=BACKLOG
        )

    def deafen(self) -> None:
        """Accept no more: who connects now waits for another process, or is refused."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
        if self._server is not None:
            self._server.close()
            self._server = None

    async def serve(self, sock: socket.socket) -> None:
        """Serve until told to leave; then let the last requests end."""
        await self.start(sock)
        try:
            await self.leave.wait()
        finally:
            self.deafen()
            await self._finish()

    async def _finish(self) -> None:
        for connection in list(self._guard.speaking):
            connection.leave()
        ends = asyncio.get_running_loop().time() + _LAST_REQUESTS_S
        while self._guard.speaking and not self.hurry:
            if asyncio.get_running_loop().time() > ends:
                log.warning("requests_cut", count=len(self._guard.speaking))
                break
            await asyncio.sleep(_STEP_S)
        for connection in list(self._guard.speaking):
            connection.abort()


BACKLOG = 4096
"""Connections that wait to be accepted, as far as the kernel allows."""


def _context(options: Options) -> ssl.SSLContext | None:
    """Return the context of the server's certificate; None without one.

    Raises:
        BrokenError: the certificate or its key cannot be used.
    """
    if options.tls_cert is None or options.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise BrokenError(
            f"the certificate {options.tls_cert} cannot be used: {error}",
            do="check --tls-cert and --tls-key: PEM files that belong together",
            code="certificate",
        ) from error
    return context
