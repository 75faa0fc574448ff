# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 for one long stream: a connection a request, on asyncio and h11 alone.

What httpx brings for this (httpcore, anyio) keeps pools of connections, speaks to
proxies and runs on other loops. A daemon that holds one stream open for years needs
none of it, and it is 2 MiB of every machine; see docs/decisions/0012. Where a proxy
is configured, httpx's own transport is used: `net.connect.open_stream_client`.

RFC 9112 is h11's; the addresses of a name are tried as in RFC 8305.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from typing import cast

import h11
import httpx

from updaterd.net.authorities import is_unknown_issuer

_READ_SIZE = 2**16
_LARGEST_HEADERS = 100 * 1024
_HEAD_START_S = 0.25  # RFC 8305 section 5

_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[object, ...]]


class DirectTransport(httpx.AsyncBaseTransport):
    """Sends each request over a connection of its own, with no proxy between.

    It raises httpx's exceptions, each caused by the socket's or TLS's own.

    Args:
        tls: for https.
        wider: makes a context that believes more CAs than `tls`, to be tried, and
            kept if it helps, when no CA that `tls` knows vouches for a server.
    """

    def __init__(
        self, tls: ssl.SSLContext, wider: Callable[[], ssl.SSLContext] | None = None
    ) -> None:
        self._tls = tls
        self._wider = wider

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer, with its body still to come.

        Cancelling closes the connection.

        Raises:
            httpx.TransportError: see its kinds.
        """
        limits = request.extensions.get("timeout", {})
        connection = _Connection(*await self._connect(request.url, limits), limits)
        try:
            answer = await connection.ask(request)
        except BaseException:
            await connection.aclose()
            raise
        return httpx.Response(
            answer.status_code,
            headers=answer.headers.raw_items(),
            stream=connection,
            extensions={
                "http_version": b"HTTP/" + answer.http_version,
                "reason_phrase": bytes(answer.reason),
                "network_stream": connection.writer,
            },
        )

    async def _connect(
        self, url: httpx.URL, limits: dict[str, float | None]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await self._open(url, limits, self._tls)
        except httpx.ConnectError as error:
            if self._wider is None or not is_unknown_issuer(error.__cause__):
                raise
        wider = self._wider()
        opened = await self._open(url, limits, wider)
        self._tls = wider
        return opened

    async def _open(
        self, url: httpx.URL, limits: dict[str, float | None], tls: ssl.SSLContext
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if url.scheme not in {"http", "https"}:
            raise httpx.UnsupportedProtocol(f"not http or https: {url.scheme!r:.40}")
        # As bytes: httpx has encoded it, and Python would load the older IDNA of 2003
        # to encode a str again.
        host = url.raw_host
        secure = url.scheme == "https"
        port = (443 if secure else 80) if url.port is None else url.port
        if not 0 < port < 2**16:  # getaddrinfo() would take it modulo 2**16
            raise httpx.ConnectError(f"there is no port {port}")
        scope = asyncio.timeout(limits.get("connect"))
        try:
            async with scope:
                sock = await _first_to_connect(await _resolve(host, port))
                try:
                    return await asyncio.open_connection(
                        sock=sock,
                        limit=_READ_SIZE,
                        ssl=tls if secure else None,
                        server_hostname=cast("str", host) if secure else None,
                    )
                except BaseException:
                    # A transport has it, which may not even have begun with TLS,
                    # and closes it when it sees the end. Closed here, its number
                    # would stay taken: "is used by transport", at each connection.
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)
                    raise
        except (OSError, ExceptionGroup, UnicodeError) as error:
            if scope.expired():
                raise httpx.ConnectTimeout("no connection in time") from error
            raise httpx.ConnectError(str(error)) from error


class _Connection(httpx.AsyncByteStream):
    """One request, its answer, and the answer's body."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        limits: dict[str, float | None],
    ) -> None:
        self.writer = writer
        self._reader = reader
        self._limits = limits
        self._http = h11.Connection(
            h11.CLIENT, max_incomplete_event_size=_LARGEST_HEADERS
        )

    async def ask(self, request: httpx.Request) -> h11.Response:
        """Send the request; return the head of the answer.

        Raises:
            httpx.RemoteProtocolError: what comes is no answer.
        """
        # A server may answer, and hang up, before it has read all of it.
        with contextlib.suppress(httpx.WriteError):
            await self._send(request)
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise httpx.RemoteProtocolError("the answer is not HTTP")
            if event.status_code == 101:  # RFC 9110 section 15.2.2
                raise httpx.RemoteProtocolError(
                    "switched protocols without being asked"
                )

    async def _send(self, request: httpx.Request) -> None:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        try:
            head = h11.Request(
                method=request.method,
                target=request.url.raw_path,
                headers=request.headers.raw,
            )
            await self._write(self._http.send(head))
            async for chunk in request.stream:
                await self._write(self._http.send(h11.Data(data=chunk)))
            await self._write(self._http.send(h11.EndOfMessage()))
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error

    async def _write(self, data: bytes | None) -> None:
        scope = asyncio.timeout(self._limits.get("write"))
        try:
            async with scope:
                self.writer.write(data or b"")
                await self.writer.drain()
        except OSError as error:
            if scope.expired():
                raise httpx.WriteTimeout("nobody reads the request") from error
            raise httpx.WriteError(str(error)) from error

    async def _next_event(self) -> object:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise httpx.RemoteProtocolError(str(error)) from error
            if event is not h11.NEED_DATA:
                return event
            data = await self._read()
            if not data and self._http.their_state is h11.SEND_RESPONSE:
                raise httpx.RemoteProtocolError(
                    "the server disconnected without an answer"
                )
            self._http.receive_data(data)

    async def _read(self) -> bytes:
        scope = asyncio.timeout(self._limits.get("read"))
        try:
            async with scope:
                return await self._reader.read(_READ_SIZE)
        except OSError as error:  # a TimeoutError too: ETIMEDOUT, when not `scope`'s
            if scope.expired():
                raise httpx.ReadTimeout("nothing came in time") from error
            raise httpx.ReadError(str(error)) from error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes."""
        while isinstance(event := await self._next_event(), h11.Data):
            yield bytes(event.data)

    async def aclose(self) -> None:
        """Close the connection at once; nothing waits for the other end."""
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def _resolve(host: bytes, port: int) -> Sequence[_Address]:
    """Return the addresses of a name, best first; a literal needs no resolver."""
    with contextlib.suppress(socket.gaierror):
        return socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def _first_to_connect(addresses: Sequence[_Address]) -> socket.socket:
    """Return a connection to the first address that answers.

    The next address is tried when one has failed, or has not answered for a while.

    Raises:
        OSError: there is one address, and it failed.
        ExceptionGroup: all of several have failed.
    """
    waiting = list(reversed(addresses))
    attempts: set[asyncio.Task[socket.socket]] = set()
    errors: list[Exception] = []
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.create_task(_connect_socket(waiting.pop())))
            done, _ = await asyncio.wait(
                attempts,
                timeout=_HEAD_START_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                attempts.discard(task)
                error = task.exception()
                if error is None:
                    return task.result()
                if not isinstance(error, OSError):
                    raise error
                errors.append(error)
    finally:
        _give_up(attempts)
    if len(errors) == 1:
        raise errors[0]
    raise ExceptionGroup("no address of the name can be connected to", errors)


async def _connect_socket(address: _Address) -> socket.socket:
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


def _give_up(attempts: set[asyncio.Task[socket.socket]]) -> None:
    # Without an await: it would be one more place to be cancelled at, and the
    # socket that came in first would be lost there.
    for task in attempts:
        task.cancel()
        task.add_done_callback(_close_late)


def _close_late(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()  # it came in second
