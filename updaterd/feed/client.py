# SPDX-License-Identifier: Apache-2.0
"""The subscription: a Server-Sent Events client that may run for years.

    async with EventSource("https://updates.example.com/v1/events") as source:
        async for event in source:
            ...

It reconnects by itself, remembers where it was, and says how it stands through
`on_state`. The rules are WHATWG HTML 9.2.3 (connecting, `Last-Event-ID`), with a
fleet's backoff (`core/backoff.py`) in place of the fixed reconnection time.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import PurePath
from types import TracebackType
from typing import Self

import httpx

from updaterd.clocks import random_draw, wall_clock
from updaterd.core.backoff import Backoff
from updaterd.core.dataclass import dataclass
from updaterd.core.sse import Event, LimitError, Limits, Parser
from updaterd.errors import BrokenError, UpdaterError
from updaterd.feed.connection import Connector, can_be_sent
from updaterd.feed.failure import Failure, of_exception
from updaterd.feed.flow import Flow
from updaterd.feed.redirects import Hop, can_be_asked
from updaterd.net.connect import open_stream_client

HEADER_DEADLINE_S = 30.0
IDLE_TIMEOUT_S = 45.0

_UNSENT = "the last event's id cannot be sent in a header: the feed starts anywhere"
_FORGET_AFTER = 5  # failures in a row at an address that a redirect named


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionState:
    """How the subscription stands.

    Attributes:
        phase: "connecting", "open", "waiting" (to reconnect) or "stopped".
        code: why it is waiting or stopped, see `FeedError`; "" when it is well.
        error: the same for people.
        attempt: failures since the last event.
        retry_in_s: how long it waits, from now.
        note: something worth knowing that does not stop it.
        resumed_after: of an open stream, the `Last-Event-ID` it was asked with; ""
            when it was asked for nothing that was before.
    """

    phase: str
    code: str = ""
    error: str = ""
    attempt: int = 0
    retry_in_s: float | None = None
    note: str = ""
    resumed_after: str = ""


class EventSource:
    """One subscription: an asynchronous iterator of events, and a context.

    The iteration ends when the server says 204 (stop), and, with
    `reconnect=False`, when the stream ends. Iterating again connects again.

    Cancelling it at any await is safe: no event is lost, and the connection stays.

    Args:
        url: the feed.
        method: the request's method.
        headers: sent to the feed's own origin only, never after a redirect away.
        params: added to the address's query.
        json: a body to send, as JSON.
        content: a body to send, byte for byte; name its type in `headers`.
        last_event_id: where to go on from.
        reconnect: False hands the loop to the caller: failures are raised.
        client: a client to use; it is not closed. Else one is made from
            `headers_file`, `ca_file` and `proxy`, see
            `net.connect.open_stream_client`.
        headers_file: more headers, kept out of the process list.
        token_file: with the token of an enrolled machine, read for each connection;
            see `net.addresses.token_headers`.
        ca_file: the only CA to trust.
        proxy: instead of the environment's.
        backoff: how long to wait between attempts.
        retry_s: reconnection time until the server names its own.
        idle_timeout_s: longest silence on an open stream; 0 for no limit.
        header_deadline_s: from connecting to the end of the answer's headers,
            redirects included.
        limits: what the stream may make us hold.
        max_rate: bytes a second that are read of it in the long run, of which four
            seconds' worth may come at once; None for as fast as it comes.
        on_state: told of every change.
        on_cursor: told when the id moves without an event (an `id:` alone),
            after all events before it were handed out.
        draw: uniform in [0, 1).
        wall: Unix seconds, for Retry-After.

    Raises:
        BrokenError: an address, header, CA file or proxy that cannot be used.
        ValueError: both `json` and `content`.
    """

    def __init__(  # noqa: PLR0913 # each is one knob of the subscription
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        params: Sequence[tuple[str, str]] = (),
        json: object = None,
        content: bytes | str | None = None,
        last_event_id: str | None = None,
        reconnect: bool = True,
        client: httpx.AsyncClient | None = None,
        headers_file: PurePath | None = None,
        token_file: PurePath | None = None,
        ca_file: PurePath | None = None,
        proxy: str | None = None,
        backoff: Backoff | None = None,
        retry_s: float = 0.0,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        header_deadline_s: float = HEADER_DEADLINE_S,
        limits: Limits | None = None,
        max_rate: float | None = None,
        on_state: Callable[[ConnectionState], None] | None = None,
        on_cursor: Callable[[str], None] | None = None,
        draw: Callable[[], float] | None = None,
        wall: Callable[[], float] = wall_clock,
    ) -> None:
        if json is not None and content is not None:
            raise ValueError("a request has one body: `json` or `content`")
        start = Hop(url=_parse_url(url, params), method=method)
        self._reconnect = reconnect
        self._client = client or open_stream_client(
            headers_file=headers_file, ca_file=ca_file, proxy=proxy
        )
        self._owns_client = client is None
        self._backoff = backoff or Backoff()
        self._retry_s = retry_s
        self._connector = Connector(
            start,
            headers=headers or {},
            token_file=token_file,
            json=json,
            content=content,
            client=self._client,
            idle_timeout_s=idle_timeout_s,
            header_deadline_s=header_deadline_s,
            wall=wall,
        )
        self._limits = limits or Limits()
        self._flow = Flow(max_rate) if max_rate else None
        self._on_state = on_state
        self._on_cursor = on_cursor
        self._draw = draw or random_draw

        self._given_id = last_event_id or ""
        self._parser = Parser(last_event_id=self._given_id, limits=self._limits)
        self._ready: deque[Event] = deque()
        self._response: httpx.Response | None = None
        self._body: AsyncIterator[bytes] | None = None
        self._opened_at = 0.0
        self._attempt = 0
        self._resume_at = 0.0
        self._ended = False
        self._error: UpdaterError | None = None
        self._step: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Return itself; the first connection is made by the first iteration."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection, and the client when it is our own."""
        step, self._step = self._step, None
        if step is not None:
            step.cancel()
            await asyncio.wait({step})
            if not step.cancelled():
                step.exception()  # it was seen, nobody waits for it
        await self._hang_up()
        if self._owns_client:
            await self._client.aclose()

    @property
    def last_event_id(self) -> str:
        """Return the id of the last event handed out, or a later one without event."""
        return self._given_id

    def wake(self) -> None:
        """Reconnect now when it waits, or when the attempt that runs has failed."""
        if self._body is None:
            self._woken.set()

    def take_ready(self) -> list[Event]:
        """Return what has come, without waiting: for who stores many at a time."""
        events = list(self._ready)
        self._ready.clear()
        if events:
            self._given_id = events[-1].id
        return events

    def __aiter__(self) -> AsyncIterator[Event]:
        """Return itself."""
        return self

    async def __anext__(self) -> Event:
        """Return the next event, however many connections it takes.

        Raises:
            FeedError: with `reconnect=False`, the connection failed.
            LimitError: with `reconnect=False`, the stream was beyond its limits.
            BrokenError: a header that no request can carry.
            StopAsyncIteration: the server said stop; or, with `reconnect=False`,
                the stream ended.
        """
        while True:
            if self._ready:
                event = self._ready.popleft()
                self._given_id = event.id
                return event
            if self._parser.last_event_id != self._given_id:
                self._given_id = self._parser.last_event_id
                if self._on_cursor is not None:
                    self._on_cursor(self._given_id)
            if self._ended:
                self._ended = False
                error, self._error = self._error, None
                raise error or StopAsyncIteration
            # A task of its own, so that cancelling the caller cancels only the
            # waiting: the half-read chunk stays with the connection.
            if self._step is None:
                self._step = asyncio.create_task(self._advance())
            await asyncio.wait({self._step})
            step, self._step = self._step, None
            step.result()

    # ---- one step: until there is something to say ------------------------------

    async def _advance(self) -> None:
        """Connect, read, or wait, until events or an id have come, or the end."""
        while not self._ready and not self._ended:
            if self._body is None:
                await self._pause()
                failure = await self._connect()
            else:
                if self._flow is not None and (wait_s := self._flow.wait_s(_now())):
                    await asyncio.sleep(wait_s)
                failure = await self._read(self._body)
            if failure is not None:
                await self._break_off(failure)
            elif self._parser.last_event_id != self._given_id:
                return

    async def _read(self, body: AsyncIterator[bytes]) -> Failure | None:
        try:
            chunk = await anext(body)
            if self._flow is not None:
                self._flow.take(len(chunk), now=_now())
            events = self._parser.feed(chunk)
        except StopAsyncIteration:
            if not self._reconnect:
                await self._hang_up()
                self._ended = True
                return None
            return Failure(code="closed", text="the feed ended the stream")
        except LimitError as error:
            self._ready.extend(error.events)
            return Failure(code=error.code, text=error.cause, cause=error)
        except Exception as error:  # noqa: BLE001 # see of_exception
            return of_exception(error, opened=True)
        if events:
            self._ready.extend(events)
            self._attempt = 0
        return None

    async def _connect(self) -> Failure | None:
        self._tell("connecting")
        last = self._parser.last_event_id
        answer = await self._connector.connect(last)
        if isinstance(answer, Failure):
            return answer
        if answer.status_code == 204:
            self._ended = True
            self._tell("stopped", code="http_204", error="the feed says: go away")
            return None
        self._response = answer
        self._body = answer.aiter_raw()
        # A new stream: nothing unfinished of the last one may leak into it.
        self._parser = Parser(last_event_id=last, limits=self._limits)
        self._opened_at = _now()
        self._woken.clear()
        resumed = can_be_sent(last)
        self._tell(
            "open",
            note=_UNSENT if last and not resumed else "",
            resumed_after=last if resumed else "",
        )
        return None

    # ---- between two connections ------------------------------------------------

    async def _break_off(self, failure: Failure) -> None:
        """Hang up; arrange the next attempt, or the end."""
        now = _now()
        if self._body is not None and now - self._opened_at > self._backoff.cap:
            self._attempt = 0  # it held longer than any wait: a quiet feed is no storm
        if self._parser.retry_ms is not None:
            self._retry_s = self._parser.retry_ms / 1000
        await self._hang_up()
        if not self._reconnect:
            self._tell("stopped", code=failure.code, error=failure.text)
            self._ended, self._error = True, failure.error()
            return
        self._attempt += 1
        if self._attempt >= _FORGET_AFTER:
            self._connector.forget()
        delay = self._backoff.delay(
            self._attempt,
            draw=self._draw(),
            retry=self._backoff.cap if failure.slow else self._retry_s,
            after=failure.after,
        )
        self._resume_at = now + delay
        self._tell("waiting", code=failure.code, error=failure.text, retry_in_s=delay)

    async def _pause(self) -> None:
        if _now() < self._resume_at:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._resume_at):
                    await self._woken.wait()
        self._resume_at = 0.0
        self._woken.clear()  # who wakes from here on knows what this attempt does not

    async def _hang_up(self) -> None:
        response, self._response, self._body = self._response, None, None
        if response is not None:
            await response.aclose()

    def _tell(  # noqa: PLR0913 # the fields of a state
        self,
        phase: str,
        *,
        code: str = "",
        error: str = "",
        retry_in_s: float | None = None,
        note: str = "",
        resumed_after: str = "",
    ) -> None:
        if self._on_state is not None:
            self._on_state(
                ConnectionState(
                    phase=phase,
                    code=code,
                    error=error,
                    attempt=self._attempt,
                    retry_in_s=retry_in_s,
                    note=note,
                    resumed_after=resumed_after,
                )
            )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _parse_url(url: str, params: Sequence[tuple[str, str]]) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise _unusable(url, str(error)) from error
    if not can_be_asked(parsed):
        raise _unusable(url, "it is not http or https, or has no host or no such port")
    return parsed.copy_merge_params(list(params)) if params else parsed


def _unusable(url: str, why: str) -> BrokenError:
    return BrokenError(
        f"cannot subscribe to {url!r:.200}: {why}",
        do="correct the feed's address",
        code="bad_url",
    )
