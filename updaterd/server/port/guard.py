# SPDX-License-Identifier: Apache-2.0
"""Limits that all connections of a process share, and the takers of streams."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from updaterd.clocks import wall_clock
from updaterd.server.client_address import Proxies
from updaterd.server.options import Options
from updaterd.server.port.known import Memory
from updaterd.server.port.phases import Phase, table_of
from updaterd.server.streams.request import StreamRequest
from updaterd.server.streams.stream import Refusal

_SPARE_CONNECTIONS = 256  # of one address, besides its streams: downloads


class Speaker(Protocol):
    """A connection that speaks HTTP (`protocol.FeedProtocol`)."""

    def leave(self) -> None:
        """End the connection: now when it rests, else after the answer under way."""
        ...

    def abort(self) -> None:
        """End the connection now."""
        ...


class Taker(Protocol):
    """Takes the connection of a stream request over (`sink_fast.Takeover`)."""

    def ask(self, request: StreamRequest) -> Refusal | str:
        """Return the refusal of a stream, or the id of its token."""
        ...

    def take(
        self,
        request: StreamRequest,
        token: str,
        transport: asyncio.Transport,
        head: bytes,
    ) -> None:
        """Own the connection from here on."""
        ...


@dataclass(slots=True)
class Guard:
    """Counts the connections of a process, all together and by address.

    Attributes:
        most: connections of this process, bound by its file descriptors.
        stream_count: tells how many of them have become streams.
        taker: None when streams go the plain way.
        plain: takes those of HTTP/1.0, which knows no chunks; None refuses them.
        proxies: may open as many connections as they like.
        deadlines: seconds for each phase of a connection.
        speaking: connections that are no stream.
        now: seconds since 1970.
        memory: of requests that were read before.
    """

    options: Options
    most: int
    stream_count: Callable[[], int]
    taker: Taker | None = None
    plain: Taker | None = None
    open: Counter[str] = field(default_factory=Counter)
    count: int = 0
    proxies: Proxies = field(default_factory=Proxies)
    deadlines: Mapping[Phase, float | None] = field(init=False)
    speaking: set[Speaker] = field(default_factory=set)
    now: Callable[[], float] = wall_clock
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        self.deadlines = table_of(self.options.deadlines)

    def enter(self, peer: str) -> "Place | None":
        """Count a connection; None when its address has too many."""
        most = self.options.max_per_address
        if self.count + self.stream_count() >= self.most or (
            most
            and self.open[peer] >= most + _SPARE_CONNECTIONS
            and not self.proxies.trust(peer)
        ):
            return None
        self.open[peer] += 1
        self.count += 1
        return Place(self, peer)

    def _leave(self, peer: str) -> None:
        self.open[peer] -= 1
        self.count -= 1
        if self.open[peer] <= 0:
            del self.open[peer]


class Place:
    """One counted connection: owned by several in turn, given back once.

    Args:
        guard: counts it.
        peer: its address, as limits see it.
    """

    __slots__ = ("_guard", "peer")

    def __init__(self, guard: Guard, peer: str) -> None:
        self._guard: Guard | None = guard
        self.peer = peer

    def leave(self) -> None:
        """Give the place back: the connection ended or is a stream. Harmless twice."""
        guard, self._guard = self._guard, None
        if guard is not None:
            guard._leave(self.peer)  # noqa: SLF001  the two are one
