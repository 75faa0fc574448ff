# SPDX-License-Identifier: Apache-2.0
"""uvicorn's HTTP/1.1 protocol with limits, and the takeover of its connections.

httptools puts no limit on a request's head, and uvicorn none on requests pipelined in
one packet, on one address's connections, or on the time that a phase may take
(`phases`). Here they get limits, and what RFC 9112 wants refused is (`conformance`).

A GET of the feed need not become an ASGI task with queues and dictionaries: once
its head is read, the connection is handed to a `FastStream` (`sink_fast`), the way
uvicorn itself hands WebSockets over. This rests on private members, so uvicorn is
pinned, `supported` looks before it leaps, and the plain sink stays as fallback.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)

from updaterd.errors import MalformedError
from updaterd.server.client_address import limit_key
from updaterd.server.http.access import STREAM_HEADERS, cors, refusal_headers
from updaterd.server.http.answers import MEDIA_TYPE, problem_body
from updaterd.server.http.conformance import Fault, fault_of
from updaterd.server.http.guard import Guard, Place, Taker
from updaterd.server.http.phases import Phase, Watch
from updaterd.server.streams.peer import EXTENSION
from updaterd.server.streams.request import EVENTS_PATH, read_request, read_target
from updaterd.server.streams.stream import Refusal

HEAD_LIMIT = 32 << 10
"""Largest request head, in bytes (give or take one packet)."""

_MOST_PIPELINED = 16
_NOT_PLAIN = {b"content-length", b"transfer-encoding", b"upgrade", b"expect"}
_TESTED = "0.54."
_MEMBERS = (
    "connection_made",
    "connection_lost",
    "data_received",
    "on_message_begin",
    "on_url",
    "on_header",
    "on_headers_complete",
    "on_body",
    "on_message_complete",
)


def supported() -> str:
    """Return why connections cannot be taken over here; empty when they can."""
    if not uvicorn.__version__.startswith(_TESTED):
        return f"uvicorn is {uvicorn.__version__}, tested was {_TESTED}*"
    missing = [name for name in _MEMBERS if not hasattr(HttpToolsProtocol, name)]
    return f"uvicorn has no {', '.join(missing)}" if missing else ""


class FeedProtocol(HttpToolsProtocol):
    """One HTTP connection, until it becomes a stream.

    Args:
        guard: shared limits.
        place: of a connection that the guard has let in already.
    """

    def __init__(
        self, *args: Any, guard: Guard, place: Place | None = None, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self._guard = guard
        self._place = place
        self._unanswered = 0
        self._refusal: Callable[[], None] | None = None
        self._head_bytes = 0
        self._head_size = 0
        self._in_head = True
        self._in_message = False
        self._over = False
        self._watch = Watch(guard.deadlines, self._on_deadline)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, or abort it when there are too many."""
        super().connection_made(transport)
        if self._place is None:
            self._place = self._guard.enter(
                limit_key(self.client[0]) if self.client else ""
            )
            if self._place is None:
                transport.abort()
                return
        self._watch.enter(Phase.HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        watch = cast("Watch | None", self._watch)
        if watch is None:
            return
        watch.end()
        # They lead back here. A cycle would keep this until the next collection, and
        # the streams that are made meanwhile would lie between what is dead.
        self._watch = self._refusal = None  # type: ignore[assignment]
        if self._place is not None:
            self._place.leave()
            self._place = None

    def _on_deadline(self) -> None:
        self.transport.abort()

    def _phase(self) -> Phase:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if self._over or self.transport.is_closing():
            return Phase.CLOSING
        if self.flow.write_paused:
            return Phase.READING
        if self._in_head:
            return Phase.HEAD
        if self._in_message:
            return Phase.BODY
        if cycle is not None and not cycle.response_complete:
            return Phase.ANSWER
        return Phase.IDLE

    def _enter_phase(self) -> None:
        """Enter the phase that the connection is in now."""
        if self._place is not None:
            self._watch.enter(self._phase())

    def pause_writing(self) -> None:
        """Note that the client does not read as fast as it is answered."""
        super().pause_writing()
        self._enter_phase()

    def resume_writing(self) -> None:
        """Note that it has read most of it."""
        super().resume_writing()
        self._enter_phase()

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        self._unanswered -= 1
        super().on_response_complete()
        if self._refusal is not None and not self._unanswered:
            self._refusal()
        self._enter_phase()

    def _refuse_rest(self, refusal: Callable[[], None]) -> None:
        """Refuse further input, after the answers that are owed.

        In the middle of an answer it would be taken for a part of that; and who asked
        first is owed an answer whatever comes after.
        """
        if self.transport.is_closing():
            return
        if not self._unanswered:
            refusal()
            return
        self._refusal = refusal
        self._head_bytes = 0  # from here on, of what nobody reads
        self._in_head = self._in_message = False

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that cannot be parsed."""
        is_body = self._in_message and not self._in_head
        if is_body and self.pipeline:
            self.pipeline.popleft()  # nobody has begun to answer it
            self._unanswered -= 1
        elif is_body and self._unanswered:
            if self.cycle.response_started:
                self.transport.abort()
                return
            self._unanswered = 0  # it waits for its body: this is its answer
        self._refuse_rest(lambda: self._answer(400, "bad_request", {}, msg))

    def data_received(self, data: bytes) -> None:
        """Parse, within limits."""
        if self._over:
            return  # refused already
        if self._refusal is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT:  # nor is a stream a place to talk to
                self.transport.abort()
            return
        if self._watch.phase is Phase.IDLE:
            self._in_head = True  # or a line break before it, and no more
        super().data_received(data)
        if self._is_over():
            self._take_over()
        elif self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT:
                self._refuse_rest(lambda: self._answer(431, "head_too_large", {}))
        self._enter_phase()

    def _is_over(self) -> bool:
        return self._over

    def on_message_begin(self) -> None:
        """Begin a head."""
        if self._over:
            return
        self._head_bytes = self._head_size = 0
        self._in_head = self._in_message = True
        self._watch.enter(Phase.HEAD, anew=self.cycle is not None)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._head_size += len(url)
        if not self._over:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, but no trailer: nobody reads those, and they have no end."""
        if self._in_head and not self._over:
            self._head_size += len(name) + len(value) + 4
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Decide whether a stream, the application or a refusal answers."""
        if self._over:
            return
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._over = True
            self.transport.abort()
            return
        fault = self._fault()
        if fault is None and self._taker() is not None and self._is_stream():
            self._over = True
            return
        self.scope["extensions"] = {EXTENSION: {"transport": self.transport}}
        app = self.app
        if fault is not None:
            self.app = fault.app  # in its turn, after what was asked before
        super().on_headers_complete()
        self._in_head = (
            False  # a target that cannot be read gets no cycle: a head still
        )
        self._unanswered += 1
        self.app = app

    def _fault(self) -> Fault | None:
        if self._head_size > HEAD_LIMIT:
            return Fault(431, "head_too_large", f"more than {HEAD_LIMIT} bytes")
        return fault_of(
            self.headers,
            version=self.parser.get_http_version(),
            target=self.url,
            upgrades=self.parser.should_upgrade(),
            streams=read_target(self.url)[0] == EVENTS_PATH
            and self.parser.get_method() == b"GET"
            and not (self._guard.plain is not None and self._is_stream()),
        )

    def _is_old(self) -> bool:
        return bool(self.parser.get_http_version() != "1.1")

    def _taker(self) -> Taker | None:
        """Return the taker of streams for this request's version of HTTP."""
        return self._guard.plain if self._is_old() else self._guard.taker

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if not self._over:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._in_message = False
        if not self._over:
            super().on_message_complete()

    def _is_stream(self) -> bool:
        path, _ = read_target(self.url)
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return (
            path == EVENTS_PATH
            and self.parser.get_method() == b"GET"
            and (cycle is None or cycle.response_complete)
            and not self.pipeline
            # the transport tells nobody twice that its buffer is full
            and not self.flow.write_paused
            and not any(name in _NOT_PLAIN for name, _ in self.headers)
        )

    def _take_over(self) -> None:
        taker = self._taker()
        if taker is None or self.transport.is_closing():
            return
        _, query = read_target(self.url)
        peer = self.client[0] if self.client else ""
        try:
            request = read_request(query, self.headers, peer, self._guard.proxies)
        except MalformedError as error:
            allow = cors(self._guard.options, _origin(self.headers))
            self._answer(400, error.code, allow, error.cause, error.do)
            return
        allow = cors(self._guard.options, request.origin)
        answer = taker.ask(request)
        if isinstance(answer, Refusal):
            self._refuse(answer, allow)
            return
        framing = (
            {"connection": "close"}
            if self._is_old()
            else {"transfer-encoding": "chunked"}
        )
        head = _head(200, self._date() | STREAM_HEADERS | framing, allow)
        transport = self.transport
        # this object is done; without parser and watch no cycle keeps it alive
        self._forget()
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        self.parser = self.flow = self.scope = self.headers = None  # type: ignore[assignment]
        taker.take(request, answer, transport, head)

    def _date(self) -> dict[str, str]:
        return {k.decode(): v.decode() for k, v in self.server_state.default_headers}

    def _refuse(self, refusal: Refusal, allow: dict[str, str]) -> None:
        only_retry = refusal.as_stream
        if only_retry is None:
            headers = {**allow, **refusal_headers(refusal)}
            self._answer(refusal.status, refusal.code, headers)
            return
        fixed = self._date() | STREAM_HEADERS | {"connection": "close"}
        self.transport.write(_head(200, fixed, allow) + only_retry)
        self.transport.close()

    def _answer(
        self,
        status: int,
        code: str,
        headers: dict[str, str],
        detail: str = "",
        remedy: str = "",
    ) -> None:
        """Answer without an application, and close."""
        self._over = True
        body = problem_body(status, code, detail, remedy)
        fixed = self._date() | {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(body)),
            "cache-control": "no-store",
            "connection": "close",
        }
        self.transport.write(_head(status, fixed, headers) + body)
        self.transport.close()


def _origin(headers: list[tuple[bytes, bytes]]) -> str:
    return next((v.decode("latin-1") for k, v in headers if k == b"origin"), "")


def _head(status: int, fixed: dict[str, str], more: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in (fixed | more).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def maker(guard: Guard) -> Callable[..., FeedProtocol]:
    """Return the factory that uvicorn makes its protocols with.

    `place` is that of a connection which the guard has let in already.
    """

    def make(*args: Any, **more: Any) -> FeedProtocol:
        return FeedProtocol(*args, guard=guard, **more)

    return make
