# SPDX-License-Identifier: Apache-2.0
"""A request and its answer, on the way from our parser to the application.

The application's server sees no byte that a client sent. It gets the request written
anew, in the one form that leaves nothing to interpret: headers that are about the
connection are left out, the body is framed as our parser understood it.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from updaterd.server.streams.request import EVENTS_PATH, read_target

END_OF_CHUNKS = b"0\r\n\r\n"

# RFC 9110, 7.6.1, and what would begin another protocol
_OF_THE_CONNECTION = {
    b"connection",
    b"http2-settings",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
_WITH_BODY = {b"content-length", b"transfer-encoding", b"expect"}


@dataclass(frozen=True, slots=True)
class Fault:
    """The refusal of a request.

    Attributes:
        status: of the answer.
        code: for programs.
        detail: for people.
    """

    status: int
    code: str
    detail: str


class Asker(Protocol):
    """The connection that an exchange belongs to."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """The client's connection; None once it is lost."""
        ...

    def answered(self, exchange: "Exchange") -> None:
        """An answer is complete."""
        ...


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and its answer.

    Attributes:
        method: as it was sent.
        target: as it was sent.
        version: of HTTP, 1.0 or 1.1.
        headers: names in lower case.
        keep_alive: the client wants to ask again on this connection.
        fault: why it is refused, if it is.
        body: parts that came before its turn.
        is_read: all of the request has come.
        is_begun: its answer has.
        is_answered: its answer is complete.
        query: of the target.
        asks_for_stream: it is a GET of the feed.
        asker: its connection, while the answer is made; contexts outlive both.
    """

    method: bytes
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    keep_alive: bool
    fault: Fault | None = None
    body: list[bytes] = field(default_factory=list)
    is_read: bool = False
    is_begun: bool = False
    is_answered: bool = False
    asker: Asker | None = None
    query: bytes = b""
    asks_for_stream: bool = False

    def __post_init__(self) -> None:
        path, self.query = read_target(self.target)
        self.asks_for_stream = self.method == b"GET" and path == EVENTS_PATH

    @property
    def is_old(self) -> bool:
        """It is HTTP/1.0, which knows no chunks."""
        return self.version != "1.1"

    @property
    def is_chunked(self) -> bool:
        """Its body comes in chunks."""
        return any(name == b"transfer-encoding" for name, _ in self.headers)

    @property
    def is_plain(self) -> bool:
        """It neither has a body nor speaks of one."""
        return _WITH_BODY.isdisjoint([name for name, _ in self.headers])

    @property
    def is_forwarded(self) -> bool:
        """It says on whose behalf it was sent, which only some may say."""
        return any(name == b"x-forwarded-for" for name, _ in self.headers)

    def write_head(self) -> bytes:
        """Return the head as the application's server is to see it."""
        version = self.version.encode()
        lines = [b"%b %b HTTP/%b" % (self.method, self.target, version)]
        lines += [
            b"%b: %b" % header
            for header in self.headers
            if header[0] not in _OF_THE_CONNECTION
        ]
        if self.is_chunked:
            lines.append(b"transfer-encoding: chunked")
        if not self.keep_alive:
            lines.append(b"connection: close")
        return b"\r\n".join([*lines, b"", b""])

    def write_part(self, part: bytes) -> bytes:
        """Return a part of the body, framed."""
        return b"%x\r\n%b\r\n" % (len(part), part) if self.is_chunked else part

    def write_end(self) -> bytes:
        """Return what ends the body."""
        return END_OF_CHUNKS if self.is_chunked else b""
