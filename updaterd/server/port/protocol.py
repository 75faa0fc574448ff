# SPDX-License-Identifier: Apache-2.0
"""A connection: a small, strict HTTP/1.1 of our own, until it becomes a stream.

llhttp (httptools) parses, and knows no limits: here a head, what surrounds a body,
requests sent at once and the time of each phase (`phases`) have theirs, and what RFC
9112 wants refused is (`conformance`). A GET of the feed becomes a stream that owns
the connection (`streams/sink_fast`). Everything else is carried to the application
(`carrier`), one request at a time, so that answers have the order of the questions.
"""

import asyncio
from collections import deque

import httptools

from updaterd.server.client_address import limit_key
from updaterd.server.port.asking import ask, read
from updaterd.server.port.carrier import Carriage, Carrier
from updaterd.server.port.conformance import HEAD_LIMIT, TOO_LARGE, UNREADABLE, fault_of
from updaterd.server.port.exchange import Exchange, Fault
from updaterd.server.port.guard import Guard, Place, Taker
from updaterd.server.port.heads import Heads
from updaterd.server.port.known import Known
from updaterd.server.port.phases import Phase, Watch

_MOST_PIPELINED = 16
_LINE = 32  # of a request or a chunk, besides what the parser tells of it


class FeedProtocol(asyncio.Protocol):
    """One HTTP connection, until it becomes a stream.

    Args:
        carrier: leads to the application.
        guard: shared limits.
        heads: writes answers.
        place: of a connection that the guard has let in already.

    Attributes:
        transport: the client's connection; None before it is made and after its end.
    """

    def __init__(
        self, carrier: Carrier, guard: Guard, heads: Heads, place: Place | None = None
    ) -> None:
        self.transport: asyncio.Transport | None = None
        self._carrier = carrier
        self._guard = guard
        self._heads = heads
        self._place = place
        self._watch = Watch(guard.deadlines, self.abort)
        self._parser: httptools.HttpRequestParser | None = None
        self._packet = b""  # the first one, while it is looked at
        self._peer = ""
        self._carriage: Carriage | None = None
        # of what is read
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_size = 0
        self._in_head = True
        self._reading: Exchange | None = None  # its body comes
        self._unmoved = 0  # bytes since anything was complete that the parser tells
        self._moved = False
        self._accounted = 0  # bytes of this packet that it told us of
        # of what is answered
        self._waiting: deque[Exchange] | None = None
        self._serving: Exchange | None = None
        self._has_begun = False
        self._deaf = False  # what comes is not looked at
        self._last: Fault | bool = False  # what follows the answers that are owed
        self._over = False
        self._is_full = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as all servers get
        """Count the connection, or abort it when there are too many."""
        self.transport = transport
        name = transport.get_extra_info("peername")
        self._peer = name[0] if isinstance(name, tuple) else ""
        if self._place is None:
            self._place = self._guard.enter(limit_key(self._peer) if self._peer else "")
            if self._place is None:
                self._over = True
                transport.abort()
                return
        self._guard.speaking.add(self)
        self._watch.enter(Phase.HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        carriage, self._carriage = self._carriage, None
        self._forget()
        if carriage is not None:
            carriage.end(exc)

    def _forget(self) -> None:
        """Let go of everything that leads back here.

        A cycle would keep this until the next collection, and the streams that are
        made meanwhile would lie between what is dead.
        """
        self._over = True
        self._watch.end()
        self._watch.forget()
        self._guard.speaking.discard(self)
        self._parser = self.transport = self._waiting = None
        if self._serving is not None:
            self._serving.asker = None
        self._serving = self._reading = None
        if self._place is not None:
            self._place.leave()
            self._place = None

    def abort(self) -> None:
        """See `guard.Speaker`; also when a phase takes too long."""
        if self.transport is not None:
            self.transport.abort()

    def leave(self) -> None:
        """End the connection: now when it rests, else after the answer under way."""
        if self._serving is None and not self._waiting:
            if self.transport is not None:
                self.transport.close()
        elif not self._last:
            self._last = True

    # ---- phases ----

    def _phase(self) -> Phase:
        assert self.transport is not None
        if self._over or self.transport.is_closing():
            return Phase.CLOSING
        if self._is_full:
            return Phase.READING
        if self._in_head and not self._deaf:
            return Phase.HEAD
        if self._reading is not None and not self._deaf:
            return Phase.BODY
        return Phase.IDLE if self._serving is None else Phase.ANSWER

    def _enter_phase(self) -> None:
        """Enter the phase that the connection is in now."""
        if self._place is not None and self.transport is not None:
            self._watch.enter(self._phase())

    def pause_writing(self) -> None:
        """Note that the client does not read as fast as it is answered."""
        self._is_full = True
        if self._carriage is not None:
            self._carriage.pause_writing()
        self._enter_phase()

    def resume_writing(self) -> None:
        """Note that it has read most of it."""
        self._is_full = False
        if self._carriage is not None:
            self._carriage.resume_writing()
        self._enter_phase()

    # ---- what is read ----

    def data_received(self, data: bytes) -> None:
        """Parse, within limits."""
        if self._over or (self._parser is None and self._know(data)):
            return
        assert self._parser is not None
        if self._deaf:
            self._unmoved += len(data)
            if self._unmoved > HEAD_LIMIT and self.transport is not None:
                self.transport.abort()
            return
        if self._watch.phase is Phase.IDLE:
            self._in_head = True  # or a line break before it, and no more
        self._moved, self._accounted = False, 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # this stays HTTP/1.1, which has an end here: what follows is none
            self._deaf = True
            self._last = self._last or True
        except httptools.HttpParserError:
            self._refuse_rest(UNREADABLE)
        else:
            self._unmoved = 0 if self._moved else self._unmoved
            self._unmoved += len(data) - self._accounted
            if (self._in_head and self._head_size + self._unmoved > HEAD_LIMIT) or (
                self._unmoved > HEAD_LIMIT
            ):
                self._refuse_rest(TOO_LARGE)
        self._go_on()
        self._packet = b""
        self._enter_phase()

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._url, self._headers = b"", []
        self._head_size = 0
        self._in_head = self._moved = True
        self._accounted += _LINE
        self._watch.enter(Phase.HEAD, anew=self._has_begun)

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._head_size += len(url)
        self._accounted += len(url)
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, but no trailer: nobody reads those, and they have no end."""
        if self._in_head:
            self._head_size += len(name) + len(value) + 4
            self._accounted += len(name) + len(value) + 4
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Put the request in its place."""
        assert self._parser is not None
        exchange = Exchange(
            self._parser.get_method(),
            self._url,
            self._parser.get_http_version(),
            self._headers,
            self._parser.should_keep_alive(),
        )
        self._in_head = False
        self._has_begun = self._moved = True
        exchange.fault = TOO_LARGE
        if self._head_size <= HEAD_LIMIT:
            plain, upgrades = self._guard.plain, self._parser.should_upgrade()
            exchange.fault = fault_of(exchange, upgrades=upgrades, plain=bool(plain))
        self._reading = exchange
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(exchange)
        if len(self._waiting) > _MOST_PIPELINED and self.transport is not None:
            self._over = True
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._moved = True
        self._accounted += len(body) + _LINE
        exchange = self._reading
        if exchange is None or self._over:
            return
        if exchange is self._serving:
            self._feed(exchange, exchange.write_part(body))
        elif exchange.fault is None:
            exchange.body.append(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._moved = True
        exchange, self._reading = self._reading, None
        if exchange is None or self._over:
            return
        exchange.is_read = True
        if exchange is self._serving:
            self._feed(exchange, exchange.write_end())

    def _refuse_rest(self, fault: Fault) -> None:
        """Refuse further input, after the answers that are owed.

        In the middle of an answer it would be taken for a part of that; and who asked
        first is owed an answer whatever comes after. Only the body of a request that
        waits for it gets its refusal at once, for this is its answer.
        """
        self._deaf = True
        self._unmoved = 0
        exchange, self._reading = self._reading, None
        self._last = fault
        if exchange is None:
            return
        if exchange is not self._serving:
            if self._waiting and exchange in self._waiting:
                self._waiting.remove(exchange)  # nobody has begun to answer it
            return
        if exchange.is_begun and not exchange.is_answered:
            self._over = True
            if self.transport is not None:
                self.transport.abort()
        elif exchange.is_answered:
            self._last = True  # it has its answer: another would be somebody else's
            exchange.is_read = True
        else:
            self._take_back()
            exchange.asker = self._serving = None

    # ---- what is answered ----

    def answered(self, exchange: Exchange) -> None:
        """See `exchange.Asker`: go on to the next request."""
        exchange.is_answered = True
        exchange.asker = None
        self._go_on()
        self._enter_phase()

    def _go_on(self) -> None:
        """Answer what is next, as far as nothing is under way."""
        while not self._over and self.transport is not None:
            if self._serving is not None:
                if not (self._serving.is_read and self._serving.is_answered):
                    break
                self._serving = None
            if self.transport.is_closing():
                break
            if self._waiting:
                self._serve(self._waiting.popleft())
            elif self._last is True:
                self._over = True
                self.transport.close()
            elif self._last:
                self._refuse(self._last)
            else:
                break
        if self._carriage is not None and not self._over:
            self._carriage.hold_back(waiting=bool(self._waiting))

    def _serve(self, exchange: Exchange) -> None:
        if exchange.fault is not None:
            self._refuse(exchange.fault)
            return
        taker = self._guard.plain if exchange.is_old else self._guard.taker
        if (
            taker is not None
            and exchange.is_read
            # the transport tells nobody twice that its buffer is full
            and not self._is_full
            and exchange.asks_for_stream
            and exchange.is_plain
        ):
            self._take_over(exchange, taker)
            return
        self._serving = exchange
        exchange.asker = self
        parts = [exchange.write_head(), *map(exchange.write_part, exchange.body)]
        exchange.body.clear()
        if exchange.is_read:
            parts.append(exchange.write_end())
        self._feed(exchange, b"".join(parts))

    def _feed(self, exchange: Exchange, data: bytes) -> None:
        if self._carriage is None:
            assert self.transport is not None
            self._carriage = self._carrier.make(self.transport)
            if self._is_full:
                self._carriage.pause_writing()
        if data:
            self._carriage.carry(exchange, data)

    def _take_back(self) -> None:
        """Take the connection from whoever carries its exchanges."""
        carriage, self._carriage = self._carriage, None
        if carriage is not None:
            carriage.end()

    def _know(self, packet: bytes) -> bool:
        """Answer the first packet when it is known; False when it must be read."""
        known = self._guard.memory.find(packet)
        if known is not None and self._place is not None:
            taker = self._guard.plain if known.is_old else self._guard.taker
            if taker is not None:
                self._open(known.of(self._place.peer), taker)
                self._enter_phase()
                return True
        self._parser = httptools.HttpRequestParser(self)
        self._packet = packet
        return False

    def _take_over(self, exchange: Exchange, taker: Taker) -> None:
        known = read(exchange, self._guard, self._heads, self._peer)
        if isinstance(known, bytes):
            self._answer(known)
        elif self._open(known, taker) and not exchange.is_forwarded:
            self._guard.memory.keep(self._packet, known)

    def _open(self, known: Known, taker: Taker) -> bool:
        """Make the connection a stream, or answer why not; tell which it was."""
        transport = self.transport
        assert transport is not None
        granted = ask(known, taker, self._guard, self._heads)
        if isinstance(granted, bytes):
            self._answer(granted)
            return False
        held = self._carriage is not None and self._carriage.held
        self._take_back()
        self._forget()
        if held:
            transport.resume_reading()
        taker.take(known.request, granted.token, transport, granted.head)
        return True

    def _refuse(self, fault: Fault) -> None:
        self._answer(self._heads.problem(fault.status, fault.code, {}, fault.detail))

    def _answer(self, whole: bytes) -> None:
        """Answer without an application, and close."""
        assert self.transport is not None
        self._over = True
        self.transport.write(whole)
        self.transport.close()
