# SPDX-License-Identifier: Apache-2.0
"""Uvicorn as it is used here: it carries an exchange to the application and back.

Nothing of uvicorn listens, reads a socket, or sees what a client wrote. For each
connection that asks for anything but a stream, one of its protocols is made and fed
with requests, one after the other, written by `exchange`. Only its constructor and
the interface of `asyncio.Protocol` are used, so any version will do. Where an answer
begins and ends we hear from the application's side.
"""

import asyncio
from contextvars import ContextVar
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from updaterd.server.port.exchange import Exchange
from updaterd.server.port.heads import Heads
from updaterd.server.streams.peer import EXTENSION

_NEVER_S = 3600  # our own deadlines come first (`phases`)


_current: ContextVar[Exchange] = ContextVar("updaterd_exchange")


class Channel(asyncio.Transport):
    """What uvicorn writes to: the client's connection, until it is taken back.

    Attributes:
        held: the connection is not to be read from for now, whatever uvicorn thinks.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport: asyncio.Transport | None = transport
        self.held = False

    def detach(self) -> None:
        """Take the connection back: nothing that is said here reaches it any more."""
        self._transport = None

    def write(self, data: Any) -> None:
        """See `asyncio.WriteTransport`."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """See `asyncio.BaseTransport`."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """See `asyncio.WriteTransport`."""
        if self._transport is not None:
            self._transport.abort()

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return self._transport is None or self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.BaseTransport`."""
        if self._transport is None:
            return default
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        if self.held or self._transport is None or self._transport.is_closing():
            return
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        """See `asyncio.WriteTransport`."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()


class _Seam:
    """Tells the connection where answers begin and end, and dates them."""

    def __init__(self, app: ASGIApp, heads: Heads) -> None:
        self._app = app
        self._heads = heads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = _current.get()
        transport = None if exchange.asker is None else exchange.asker.transport
        scope["extensions"] = {EXTENSION: {"transport": transport}}

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.is_begun = True
                date = (b"date", self._heads.date().encode())
                message = {**message, "headers": [date, *message["headers"]]}
                await send(message)
                return
            await send(message)
            if not message.get("more_body", False) and exchange.asker is not None:
                exchange.asker.answered(exchange)

        await self._app(scope, receive, send_on)


class Carrier:
    """Makes what carries exchanges to an application.

    Args:
        app: answers requests.
        heads: knows the date.
    """

    def __init__(self, app: ASGIApp, heads: Heads) -> None:
        config = uvicorn.Config(
            _Seam(app, heads),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # below it, strangers could fill the log
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=_NEVER_S,
        )
        config.load()
        self._config = config
        self._state = ServerState()

    def make(self, transport: asyncio.Transport) -> "Carriage":
        """Return what carries the exchanges of one connection."""
        inner = HttpToolsProtocol(self._config, self._state, {})
        return Carriage(inner, Channel(transport))


class Carriage:
    """Carries the exchanges of one connection, until that is taken back.

    Args:
        inner: what carries them.
        channel: what it takes for the connection.
    """

    __slots__ = ("_channel", "_inner")

    def __init__(self, inner: asyncio.Protocol, channel: Channel) -> None:
        self._inner = inner
        self._channel = channel
        inner.connection_made(channel)

    @property
    def held(self) -> bool:
        """The connection is not read from: requests wait."""
        return self._channel.held

    def hold_back(self, *, waiting: bool) -> None:
        """Read no more while somebody's requests wait: they are his to send later."""
        if self._channel.held == waiting:
            return
        if waiting:
            self._channel.pause_reading()
            self._channel.held = True
        else:
            self._channel.held = False
            self._channel.resume_reading()

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._inner.resume_writing()

    def carry(self, exchange: Exchange, data: bytes) -> None:
        """Hand bytes of an exchange on: what they start belongs to it."""
        token = _current.set(exchange)
        try:
            self._inner.data_received(data)
        finally:
            _current.reset(token)

    def end(self, exc: Exception | None = None) -> None:
        """Take the connection back: nothing that is written here reaches it."""
        self._channel.detach()
        self._inner.connection_lost(exc)
