# SPDX-License-Identifier: Apache-2.0
"""Uvicorn as it is used here: its settings, who takes connections and signals."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from updaterd.errors import BrokenError
from updaterd.server.http.acceptor import Acceptor
from updaterd.server.http.guard import Guard, Place
from updaterd.server.http.protocol import FeedProtocol, maker

_LAST_REQUESTS_S = 5
_TICK_S = 1.0


class Listener(uvicorn.Server):
    """Uvicorn that leaves signals to us: streams are drained before it stops."""

    def __init__(self, config: uvicorn.Config, on_signal: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_signal = on_signal
        self.leave = asyncio.Event()
        self.acceptor: Acceptor | None = None

    def protocol(self, place: Place) -> asyncio.Protocol:
        """Return what speaks on a connection that the guard has let in."""
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            place=place,
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.acceptor is not None:
            self.acceptor.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening and let the last requests end."""
        if self.acceptor is not None:
            self.acceptor.close()
        await super().shutdown(sockets)

    async def main_loop(self) -> None:
        """Look at the clock once a second, not ten times: an idle server sleeps."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.leave.wait(), _TICK_S)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal, stop at once on the second."""
        del sig, frame
        self._on_signal()


def configure(app: ASGIApp, guard: Guard) -> uvicorn.Config:
    """Return uvicorn's settings, with the certificate loaded.

    Raises:
        BrokenError: the certificate or its key cannot be used.
    """
    options = guard.options
    config = uvicorn.Config(
        app,
        http=cast("type[FeedProtocol]", maker(guard)),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # below it, strangers could fill the log
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(options.deadlines.idle_s) + 1,  # ours comes first
        timeout_graceful_shutdown=_LAST_REQUESTS_S,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise BrokenError(
            f"the certificate {options.tls_cert} cannot be used: {error}",
            do="check --tls-cert and --tls-key: PEM files that belong together",
            code="certificate",
        ) from error
    return config
