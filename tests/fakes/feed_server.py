# SPDX-License-Identifier: Apache-2.0
"""A feed over bare sockets: says exactly the bytes a test wants said."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""


@dataclass(frozen=True)
class Say:
    """Say `data`, in one piece or several, then close; or hold, or reset."""

    pieces: tuple[bytes, ...] = ()
    ending: str = "close"  # "close", "hold" (until the client goes) or "reset"
    pause_s: float = 0.0  # between pieces

    async def __call__(self, _request, reader, writer):
        for piece in self.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(self.pause_s)
        if self.ending == "hold":
            with contextlib.suppress(ConnectionError):
                await reader.read()
        elif self.ending == "reset":
            sock = writer.get_extra_info("socket")
            linger = struct.pack("ii", 1, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()


def say(*pieces, ending="close", pause_s=0.0):
    return Say(pieces, ending, pause_s)


def stream(*pieces, ending="close", pause_s=0.0):
    """An event stream without framing: it ends where the connection does."""
    return Say((OK, *pieces), ending, pause_s)


def answer(status, *headers, body=b""):
    head = [f"HTTP/1.1 {status} Some Reason", f"Content-Length: {len(body)}", *headers]
    return Say(("\r\n".join(head).encode() + b"\r\n\r\n" + body,))


def chunked(*pieces, end=True, ending="close"):
    head = OK.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    body = [b"%x\r\n%s\r\n" % (len(p), p) for p in pieces]
    return Say((head, *body, b"0\r\n\r\n" if end else b""), ending)


Answer = Callable[..., Awaitable[None]]


class FeedServer:
    """Answers the nth request with the nth answer; the last one answers all others.

    `routes` answer by path instead, however often they are asked.
    """

    def __init__(
        self, *answers: Answer, routes=None, tls=None, host="127.0.0.1", greeting=b""
    ):
        self.answers = answers
        self.routes = routes or {}
        self.requests: list[Request] = []
        self.requested = asyncio.Event()
        self._host = host
        self._greeting = greeting  # said before the client has said anything
        self._tls: ssl.SSLContext | None = tls
        self._tasks: set[asyncio.Task] = set()
        self.port = 0

    @property
    def url(self):
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}/feed"

    async def __aenter__(self):
        self._server = await asyncio.start_server(
            self._serve, self._host, self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        try:
            if self._greeting:
                writer.write(self._greeting)
                return
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # clients of these tests come and go
        except asyncio.CancelledError:
            pass  # the test is over; streams would report a cancelled task as lost
        finally:
            self._tasks.discard(asyncio.current_task())
            writer.close()
            with contextlib.suppress(Exception):
                await writer.wait_closed()

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.rstrip().split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(method, target, headers, body)
        number = len(self.requests)
        self.requests.append(request)
        self.requested.set()
        path = target.partition("?")[0]
        if path in self.routes:
            chosen = self.routes[path]
        else:
            chosen = self.answers[min(number, len(self.answers) - 1)]
        await chosen(request, reader, writer)
