# SPDX-License-Identifier: Apache-2.0
"""Take events from the feed into the inbox: each once, with the cursor.

The subscription ends only with the daemon. A feed that said 204 (go away) is asked
again when a person runs `updaterd check`, at the safety poll, or after a restart.
"""

import asyncio
import sqlite3
from collections.abc import Callable

from updaterd import log, status
from updaterd.clocks import Clocks
from updaterd.core.backoff import Backoff
from updaterd.core.events import MAX_DATA
from updaterd.core.settings import Settings
from updaterd.core.sse import Event, Limits
from updaterd.core.text import printable
from updaterd.daemon.troubles import Outage, trouble
from updaterd.errors import UpdaterError
from updaterd.feed.client import ConnectionState, EventSource
from updaterd.feed.connection import LONGEST_SENT_ID
from updaterd.log.repeats import Repeats
from updaterd.net import environment_proxies
from updaterd.store.inbox import Inbox

_STORE_RETRY_S = 5.0
_MOST_FILTERS = 30
_MAX_RATE = 4 * 2**20  # bytes a second: ten thousand events
_GATHER_S = 0.25
_GATHER_SIZE = 2**17  # bytes, about
_EVENT_SIZE = 300  # an event's own, besides its texts
_SHOWN_ID = 64
_SHOWN_REASON = 500
_LIMITS = Limits(line=MAX_DATA + 64, event=MAX_DATA + 64, id=LONGEST_SENT_ID)


class Subscription:
    """Feeds the inbox.

    Args:
        settings: the configuration.
        inbox: where events go.
        clocks: time and chance.
        on_change: called when the inbox or the connection's state has changed.
        on_return: called when the feed is back after an outage: what was released
            meanwhile may never have been announced.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        inbox: Inbox,
        clocks: Clocks,
        on_change: Callable[[], None],
        on_return: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._clocks = clocks
        self._on_change = on_change
        self._on_return = on_return
        self._log = log.get()
        self._repeats = Repeats()
        self._connect_request = asyncio.Event()
        self._batch: list[Event] = []
        self._stored_at = -_GATHER_S
        self._source: EventSource | None = None
        self._outage = False
        self._absence = Outage()
        self.state: status.Subscription | None = None

    def connect_now(self) -> None:
        """Connect without waiting, also to a feed that told us to go away."""
        self._connect_request.set()
        if self._source is not None:
            self._source.wake()

    async def run(self) -> None:
        """Hold the subscription until cancelled."""
        try:
            await self._hold()
        finally:
            self._repeats.close()

    async def _hold(self) -> None:
        if self._settings.feed.network.proxy is None:
            for reason in environment_proxies().ignored:
                self._log.warning("proxy_ignored", reason=reason)
        while True:
            self._connect_request.clear()
            self._batch = []
            try:
                async with self._open() as self._source:
                    async for event in self._source:
                        self._batch += [event, *self._source.take_ready()]
                        goes_on = await self._gather(self._source)
                        self._store()
                        if not goes_on:
                            break
            except sqlite3.Error as error:
                # Nothing was stored, so the cursor has not moved: it comes again.
                self._repeats.error(
                    "inbox_failed", alike="", **trouble("inbox_failed", str(error))
                )
                self._tell(
                    ConnectionState(
                        phase="waiting",
                        code="inbox_failed",
                        error=f"events cannot be stored: {error}",
                        retry_in_s=_STORE_RETRY_S,
                    )
                )
                await asyncio.sleep(_STORE_RETRY_S)
                continue
            except UpdaterError as error:
                self._log.error(
                    "feed_unusable", code=error.code, cause=error.cause, remedy=error.do
                )
                self._tell(
                    ConnectionState(phase="stopped", code=error.code, error=str(error))
                )
            await self._connect_request.wait()

    def _open(self) -> EventSource:
        feed = self._settings.feed
        return EventSource(
            feed.url,
            params=self._filters(),
            headers=feed.network.headers,
            headers_file=feed.network.headers_file,
            token_file=feed.network.token_file,
            ca_file=feed.network.ca_file,
            proxy=feed.network.proxy,
            last_event_id=self._inbox.cursor(),
            backoff=Backoff(base=feed.backoff_min_s, cap=feed.backoff_max_s),
            idle_timeout_s=feed.idle_timeout_s,
            limits=_LIMITS,
            max_rate=_MAX_RATE,
            on_state=self._tell,
            on_cursor=self._advance,
            draw=self._clocks.draw,
            wall=self._clocks.now,
        )

    def _filters(self) -> list[tuple[str, str]]:
        products = self._settings.products
        if len(products) > _MOST_FILTERS:
            return []  # servers bound a query; the inbox knows what is ours
        channels = sorted({product.channel for product in products.values()})
        return [("product", name) for name in sorted(products)] + [
            ("channel", channel) for channel in channels
        ]

    async def _gather(self, source: EventSource) -> bool:
        """In a flood, wait for more: each transaction costs what a thousand rows do.

        What was gathered and not stored when this is cancelled has not moved the
        cursor: it comes again.

        Returns:
            Whether the feed goes on.
        """
        loop = asyncio.get_running_loop()
        until, self._stored_at = self._stored_at + _GATHER_S, loop.time()
        if self._stored_at >= until:
            return True
        size = 0
        try:
            async with asyncio.timeout_at(until):
                while size < _GATHER_SIZE:
                    more = [await anext(source), *source.take_ready()]
                    size += sum(
                        _EVENT_SIZE + len(event.id) + len(event.data) for event in more
                    )
                    self._batch += more
        except TimeoutError:
            pass
        except StopAsyncIteration:
            return False
        self._stored_at = loop.time()
        return True

    def _advance(self, cursor: str) -> None:
        self._store()  # what came before it, first
        self._inbox.advance(cursor, now=self._clocks.now())

    def _store(self) -> None:
        events, self._batch = self._batch, []
        if not events:
            return
        answers = self._inbox.accept_all(events, now=self._clocks.now())
        for event, accepted in zip(events, answers, strict=True):
            if accepted.products:
                self._repeats.info(
                    "event_accepted",
                    alike=accepted.kind,
                    event_id=printable(event.id, longest=_SHOWN_ID),
                    kind=accepted.kind,
                    products=sorted(accepted.products),
                    reason=printable(accepted.reason, longest=_SHOWN_REASON),
                )
            elif accepted.kind == "quarantined":
                self._repeats.warning(
                    "event_quarantined",
                    alike=accepted.code,
                    event_id=printable(event.id, longest=_SHOWN_ID),
                    reason=printable(accepted.reason, longest=_SHOWN_REASON),
                )
        self._on_change()

    def _tell(self, state: ConnectionState) -> None:
        now = self._clocks.now()
        if state.phase == "open":
            self._inbox.opened(state.resumed_after)
        # While it tries again, what went wrong is still why nothing is heard.
        before = self.state if state.phase == "connecting" and self._outage else None
        self.state = status.Subscription(
            phase=state.phase,
            code=before.code if before else state.code,
            error=before.error if before else state.error,
            since=now,
            attempt=state.attempt,
            retry_at=None if state.retry_in_s is None else now + state.retry_in_s,
            note=state.note,
        )
        self._repeats.info(
            "feed_state",
            alike=f"{state.phase} {state.code}",
            phase=state.phase,
            code=state.code,
            error=state.error,
            retry_in_s=state.retry_in_s and round(state.retry_in_s, 1),
        )
        # A stream that ends and comes back at once is how a server rotates them.
        if state.phase == "waiting" and (state.code != "closed" or state.attempt > 1):
            self._outage = True
            self._absence.failed(state.code, state.error, now=now)
        elif state.phase == "open":
            self._absence.over(now=now)
        if state.phase == "open" and self._outage:
            self._outage = False
            self._on_return()
        self._on_change()
