"""The supervisor: subscription, schedule, workers, and the status that it publishes.

    subscription   feed -> inbox (event and cursor in one transaction) -> wake
    schedule       what is due: events, retries, the safety poll, the boot check
    work           one worker at a time; the journal says how it went
    watchdog       tells systemd that the schedule still turns

Everything that must survive is in SQLite. Killed at any instant, the next start
reads it and goes on; nothing here needs to be undone.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from updaterd import durable, log, status
from updaterd.core.backoff import Backoff
from updaterd.core.pace import Pace
from updaterd.core.settings import Settings
from updaterd.core.sse import Event
from updaterd.daemon.workers import Ended, Workers
from updaterd.errors import UpdaterError
from updaterd.feed.client import ConnectionState, EventSource
from updaterd.notify import Notifier
from updaterd.store.inbox import Inbox, Pending
from updaterd.store.journal import Journal

_LONGEST_SLEEP_S = 3600.0  # notices a suspend or a changed clock within the hour
_STOP_GRACE_S = 15.0
_STORE_RETRY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Where time and chance come from; tests hand in their own.

    Attributes:
        now: Unix seconds.
        draw: uniform in [0, 1).
    """

    now: Callable[[], float]
    draw: Callable[[], float]


@dataclass(slots=True, kw_only=True)
class _Pacing:
    """What the schedule remembers about one product between two workers."""

    pace: Pace = field(default_factory=Pace)
    poll_at: float = 0.0
    trigger: str = "boot"


class Supervisor:
    """Keeps one machine's products up to date until it is told to stop.

    Args:
        settings: the configuration.
        connection: `state.db`, from `store.schema.open_state`.
        workers: how worker processes are made.
        clocks: time and chance.
        notifier: systemd's ear.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        connection: sqlite3.Connection,
        workers: Workers,
        clocks: Clocks,
        notifier: Notifier,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._workers = workers
        self._clocks = clocks
        self._notifier = notifier
        self._log = log.get()
        self._inbox = Inbox(
            connection,
            feed=settings.feed.url,
            products={name: p.channel for name, p in settings.products.items()},
        )
        self._journal = Journal(connection)
        self._wake = asyncio.Event()
        self._resubscribe = asyncio.Event()
        self._stopping = False
        self._turns = 0
        self._feed: status.Subscription | None = None
        self._source_in_use: EventSource | None = None
        self._outage = False
        self._pacing = {name: _Pacing() for name in settings.products}
        self._started_at = clocks.now()

    async def run(self) -> None:
        """Run until `stop` is called; workers in their critical section may finish.

        Raises:
            ExceptionGroup: a defect; systemd restarts the daemon, nothing is lost.
        """
        self._notifier.ready()
        self._log.info("daemon_started", products=sorted(self._settings.products))
        async with asyncio.TaskGroup() as group:
            side = [
                group.create_task(self._subscription(), name="subscription"),
                group.create_task(self._watchdog(), name="watchdog"),
            ]
            await self._schedule(group)
            self._notifier.stopping()
            for task in side:
                task.cancel()
            await self._workers.stop(grace_s=_STOP_GRACE_S)
        self._log.info("daemon_stopped")

    def stop(self) -> None:
        """Ask `run` to return."""
        self._stopping = True
        self._wake.set()

    def look_again(self) -> None:
        """Connect now, also to a feed that told us to go away; reread the journal.

        It starts no worker by itself: `updaterd check` must not install anything.
        """
        self._resubscribe.set()
        if self._source_in_use is not None:
            self._source_in_use.wake()
        self._wake.set()

    # ---- the subscription -------------------------------------------------------

    async def _subscription(self) -> None:
        while True:
            self._resubscribe.clear()
            try:
                async with self._source() as source:
                    self._source_in_use = source
                    async for event in source:
                        self._take([event, *source.take_ready()])
                # The feed said 204: go away until told otherwise.
                await self._resubscribe.wait()
            except sqlite3.Error as error:
                # Nothing was stored, so the cursor has not moved: it comes again.
                self._log.error("inbox_failed", error=str(error))
                await asyncio.sleep(_STORE_RETRY_S)
            except UpdaterError as error:
                self._log.error("feed_unusable", code=error.code, error=str(error))
                self._feed = status.Subscription(
                    phase="stopped",
                    code=error.code,
                    error=str(error),
                    since=self._clocks.now(),
                )
                self._wake.set()
                await self._resubscribe.wait()

    def _source(self) -> EventSource:
        feed = self._settings.feed
        return EventSource(
            feed.url,
            params=self._filters(),
            headers=feed.network.headers,
            headers_file=feed.network.headers_file,
            ca_file=feed.network.ca_file,
            proxy=feed.network.proxy,
            last_event_id=self._inbox.cursor(),
            backoff=Backoff(base=feed.backoff_min_s, cap=feed.backoff_max_s),
            idle_timeout_s=feed.idle_timeout_s,
            on_state=self._on_feed_state,
            on_cursor=self._on_cursor,
            draw=self._clocks.draw,
            wall=self._clocks.now,
        )

    def _filters(self) -> list[tuple[str, str]]:
        products = self._settings.products
        named = [("product", name) for name in sorted(products)]
        channels = sorted({product.channel for product in products.values()})
        return named + [("channel", channel) for channel in channels]

    def _take(self, events: list[Event]) -> None:
        for event, accepted in zip(
            events, self._inbox.accept_all(events, now=self._clocks.now()), strict=True
        ):
            if accepted.products:
                self._log.info(
                    "event_accepted",
                    event_id=event.id,
                    kind=accepted.kind,
                    products=sorted(accepted.products),
                    reason=accepted.reason,
                )
                self._wake.set()
            elif accepted.kind == "quarantined":
                self._log.warning(
                    "event_quarantined", event_id=event.id, reason=accepted.reason
                )
                self._wake.set()

    def _on_cursor(self, last_event_id: str) -> None:
        self._inbox.advance(last_event_id, now=self._clocks.now())

    def _on_feed_state(self, state: ConnectionState) -> None:
        now = self._clocks.now()
        self._feed = status.Subscription(
            phase=state.phase,
            code=state.code,
            error=state.error,
            since=now,
            attempt=state.attempt,
            retry_at=None if state.retry_in_s is None else now + state.retry_in_s,
            note=state.note,
        )
        if state.phase == "waiting" and state.code != "closed":
            self._outage = True
        elif state.phase == "open" and self._outage:
            # What was released meanwhile may never have been announced. A fleet that
            # comes back does not ask at once: its reconnections are spread already.
            self._outage = False
            for pacing in self._pacing.values():
                pacing.poll_at = min(pacing.poll_at, now)
        self._log.info(
            "feed_state",
            phase=state.phase,
            code=state.code,
            error=state.error,
            retry_in_s=state.retry_in_s,
        )
        self._wake.set()

    # ---- the schedule -----------------------------------------------------------

    async def _schedule(self, group: asyncio.TaskGroup) -> None:
        work: asyncio.Task[None] | None = None
        while not self._stopping:
            self._turns += 1
            self._wake.clear()
            now = self._clocks.now()
            if work is None or work.done():
                product = self._due(now)
                if product is not None:
                    work = group.create_task(self._work(product), name="work")
            self._publish()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._sleep_s(now, work))
        if work is not None:
            await self._workers.stop(grace_s=_STOP_GRACE_S)

    def _due(self, now: float) -> str | None:
        """Return the product to work on now, the most urgent first."""
        return min(
            (name for name in self._pacing if self._due_at(name, now) <= now),
            key=lambda name: self._due_at(name, now),
            default=None,
        )

    def _due_at(self, name: str, now: float) -> float:
        """Return when a product is due next; sets what triggers it."""
        pacing = self._pacing[name]
        times = [(pacing.poll_at, "boot" if pacing.poll_at == 0.0 else "poll")]
        retry = self._journal.next_attempt_at(name)
        if retry is not None:
            # A clock set back must not park a retry for years.
            times.append((
                min(retry, now + self._settings.feed.fallback_poll_s),
                "poll",
            ))
        if any(pending.product == name for pending in self._inbox.pending()):
            times.append((now + pacing.pace.wait_s(now), "event"))
        due, pacing.trigger = min(times)
        return due

    def _sleep_s(self, now: float, work: asyncio.Task[None] | None) -> float:
        if work is not None and not work.done():
            return _LONGEST_SLEEP_S  # its end wakes us
        due = min((self._due_at(name, now) for name in self._pacing), default=now)
        return min(max(due - now, 0.05), _LONGEST_SLEEP_S)

    # ---- the work ---------------------------------------------------------------

    async def _work(self, product: str) -> None:
        pacing = self._pacing[product]
        pending = [p for p in self._inbox.pending() if p.product == product]
        pushed = self._write_pushed(pending)
        before = self._journal.product(product), self._journal.installed(product)
        self._log.info("worker_started", product=product, trigger=pacing.trigger)
        ended = await self._workers.update(
            product, trigger=pacing.trigger, pushed=pushed
        )
        now = self._clocks.now()
        facts = self._journal.product(product)
        if ended.crashed and facts.checked_at == before[0].checked_at:
            self._note_crash(product, ended, now)
        for item in pending:
            self._inbox.done(product, item.up_to_row)
        useful = self._journal.installed(product) != before[1]
        poll_s = self._settings.feed.fallback_poll_s
        self._pacing[product] = _Pacing(
            pace=pacing.pace.after(now=now, useful=useful),
            poll_at=now + poll_s * (0.9 + 0.2 * self._clocks.draw()),
        )
        self._log.info(
            "worker_ended",
            product=product,
            exit_code=ended.code,
            decision=facts.decision,
            reason=facts.decision_reason,
        )
        self._wake.set()

    def _note_crash(self, product: str, ended: Ended, now: float) -> None:
        """Schedule a retry for a worker that died without leaving word."""
        failures = self._journal.failures(product) + 1
        delay = Backoff(base=10.0, cap=3600.0).delay(failures, draw=self._clocks.draw())
        self._journal.note_failure(
            product,
            code="worker_died",
            reason=f"the worker ended early: {ended}",
            next_attempt_at=now + delay,
            now=now,
        )
        self._log.error("worker_died", product=product, how=str(ended))

    def _write_pushed(self, pending: list[Pending]) -> Path | None:
        """Hand the worker the signed files that came with the event, unverified."""
        pushed = next((p.pushed for p in pending if p.pushed), None)
        if pushed is None:
            return None
        folder = Path(self._settings.directories.runtime) / "pushed"
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, data in (
            ("timestamp.json", pushed.timestamp),
            ("snapshot.json", pushed.snapshot),
        ):
            if data is None:
                (folder / name).unlink(missing_ok=True)
            else:
                durable.publish_file(folder / name, data, mode=0o600)
        return folder

    # ---- what others see --------------------------------------------------------

    def _publish(self) -> None:
        document = status.collect(
            self._connection,
            self._settings,
            daemon=status.daemon_section(self._started_at, self._feed),
            now=self._clocks.now(),
        )
        path = Path(self._settings.directories.runtime) / "status.json"
        try:
            durable.publish_file(path, status.encode(document), mode=0o644)
        except OSError as error:
            self._log.warning("status_unwritable", path=str(path), error=str(error))
        self._notifier.status(status.headline(document))

    async def _watchdog(self) -> None:
        """Feed systemd's watchdog with turns of the schedule, not a bare timer."""
        period_s = self._notifier.watchdog_s
        if period_s is None:
            return
        while True:
            seen = self._turns
            self._wake.set()
            await asyncio.sleep(period_s / 3)
            if self._turns > seen:
                self._notifier.watchdog()
