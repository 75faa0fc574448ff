# SPDX-License-Identifier: Apache-2.0
"""Delivers events from the log to all streams: catch-up, then live, without a gap.

One reader follows the log. Each event is encoded once, put on the ring, and written
to every stream whose filter matches. A stream joins in one step of the event loop:
what the ring holds after its cursor is written to it, then it is in the group; the
step is not interrupted, so no event falls between, and none comes twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Protocol

from updaterd.server.log.contract import (
    ZERO,
    Bounds,
    EventLog,
    LogDownError,
    Position,
    Record,
    Topic,
    read_id,
    write_id,
)
from updaterd.server.streams import frames
from updaterd.server.streams.frames import Frame
from updaterd.server.streams.opening import Behind, Opening
from updaterd.server.streams.ring import Filter, Ring, Shelf

_PAGE = 50
_PAGE_BYTES = 64 << 10  # held for a reader that is behind, for as long as it likes
_FIRST_READ = 2  # then twice as many as the page took
_READS_AT_ONCE = 4
_SHELF_BYTES = 4 << 20
_NOTHING = Frame(b"", b"")
_KEPT, _KEPT_BYTES = 256, 8 << 10  # openings, and what each may be long


class Port(Protocol):
    """A transport: takes bytes that are ready for the wire."""

    def write(self, data: bytes) -> None:
        """Queue bytes; never blocks."""
        ...


class Sink(Protocol):
    """A stream, as the hub sees it.

    Attributes:
        port: takes chunks without the sink being asked; None where `write` must be.
    """

    port: Port | None

    def write(self, frame: Frame) -> None:
        """Queue a block; never blocks. A sink that cannot keep up drops itself."""
        ...


class Observer(Protocol):
    """Is called for what the hub does (metrics, metadata watch)."""

    def log_down(self, error: LogDownError) -> None:
        """The log does not answer; open streams are none the wiser."""
        ...

    def log_up(self) -> None:
        """The log answers; told with every batch."""
        ...

    def recalled(self, record: Record) -> None:
        """An event was in the log before this process began."""
        ...

    def arrived(self, record: Record) -> None:
        """An event came from the log, before any stream got it."""
        ...

    def first_write(self, record: Record) -> None:
        """The first stream got an event."""
        ...

    def delivered(self, count: int) -> None:
        """So many streams were written to."""
        ...


class _Group(dict[Sink, None]):
    """The streams of one filter, in the order in which they joined.

    So they lie in memory, too: in the order of a set, a delivery costs up to three in
    a hundred more.
    """

    def __init__(self, topics: Filter) -> None:
        super().__init__()
        self.topics = topics


class Hub:
    """Groups streams by filter and writes each event to those that want it.

    Args:
        log: where events come from.
        observer: told of deliveries.
        heartbeat_s: told to clients in `hello`, seconds.
        ring_bytes: how much of the newest events is kept in memory.
        slice_size: streams written to before others get the loop.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        observer: Observer,
        heartbeat_s: float,
        ring_bytes: int = 16 << 20,
        slice_size: int = 500,
    ) -> None:
        self._log = log
        self._observer = observer
        self._heartbeat_s = heartbeat_s
        self._slice_size = slice_size
        self._ring = Ring(ring_bytes)
        self._shelf = Shelf(_SHELF_BYTES)
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        self._groups: dict[Filter, _Group] = {}
        self._moved = asyncio.Event()
        self.epoch = ""
        self.last = ZERO
        self._hello: Frame | None = None
        # what many come back with in the same minute; for as long as nothing new comes
        self._openings: dict[tuple[Filter, str], tuple[Opening, Frame]] = {}

    async def start(self) -> None:
        """Fill the ring from the log.

        Raises:
            LogDownError: it cannot be reached.
        """
        bounds = await self._log.bounds()
        self._reset(bounds)
        self._ring.newest = dict(await self._log.newest())
        self._ring.floor = at = bounds.floor
        while records := await self._log.read(at, _PAGE):
            for record in records:
                self._keep(record)
                self._observer.recalled(record)
            at = records[-1].position
        # another process may have trimmed what was still to be read
        trimmed = (await self._log.bounds()).floor
        self._ring.floor = max(self._ring.floor, trimmed)
        self.last = max(at, bounds.last)

    def _reset(self, bounds: Bounds) -> None:
        self.epoch = bounds.epoch
        self.last = bounds.last
        self._ring.clear(bounds.last)
        self._shelf.clear()
        self._forget_greetings()

    async def run(self) -> None:
        """Follow the log and deliver, for ever."""
        async for batch in self._log.tail(self.epoch, self.last):
            if isinstance(batch, LogDownError):
                self._observer.log_down(batch)
                continue
            self._observer.log_up()
            if batch.epoch != self.epoch or batch.gap is not None:
                await self._start_over(batch.epoch, batch.gap or ZERO)
            for record in batch.records:
                await self._deliver(record)

    async def _start_over(self, epoch: str, at: Position) -> None:
        """Begin at a position with an empty ring: no cursor is valid any more."""
        reason = "log_lost" if epoch != self.epoch else "id_trimmed"
        self._reset(Bounds(epoch, at, at))
        # of everyone: which topics had events up to there is not known
        self._ring.newest = {Topic(None, None): at}
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        await self._write(frames.resync(epoch, at, reason), self._groups)

    async def _deliver(self, record: Record) -> None:
        block = self._keep(record)
        self.last = record.position
        self._forget_greetings()
        self._observer.arrived(record)
        topic = record.event.topic
        groups = [group for group in self._groups if group.matches(topic)]
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        await self._write(block, groups, record)

    async def _write(
        self, block: Frame, groups: Iterable[Filter], record: Record | None = None
    ) -> None:
        # a snapshot: who joins while this runs has had the block from the ring
        sinks = [sink for group in groups for sink in self._groups[group]]
        chunk = block.chunk
        for start in range(0, len(sinks), self._slice_size):
            part = sinks[start : start + self._slice_size]
            for sink in part:
                if (port := sink.port) is not None:
                    port.write(chunk)
                else:
                    sink.write(block)
            if record is not None and start == 0:
                self._observer.first_write(record)
            self._observer.delivered(len(part))
            await asyncio.sleep(0)

    def _keep(self, record: Record) -> Frame:
        block = frames.of_record(self.epoch, record)
        self._ring.keep(record.position, record.event.topic, block)
        return block

    def hello(self) -> Frame:
        """Return the greeting with the cursor now."""
        if self._hello is None:
            self._hello = frames.hello(self.epoch, self.last, self._heartbeat_s)
        return self._hello

    def _forget_greetings(self) -> None:
        self._hello = None
        self._openings.clear()

    def greeting(self, topics: Filter, cursor: str) -> tuple[Opening | Behind, Frame]:
        """Return the `opening` of a stream, and all that it is written in one piece."""
        key = topics, cursor
        known = self._openings.get(key)
        if known is not None:
            return known
        opening = self.opening(topics, cursor)
        if isinstance(opening, Behind):
            return opening, _NOTHING
        if opening.size > _KEPT_BYTES:
            return opening, opening.joined()
        greeting = opening, opening.joined()
        if len(self._openings) >= _KEPT:
            self._openings.clear()
        self._openings[key] = greeting
        return greeting

    async def reached(self, position: Position) -> None:
        """Return once an event is on its way to the streams."""
        while self.last < position:
            await self._moved.wait()

    def opening(self, topics: Filter, cursor: str) -> Opening | Behind:
        """Return what a stream with this cursor must be written.

        `hello` comes after the catch-up: its id is the newest, and must not stand
        in a client's memory before the events that lead there do.

        Args:
            topics: the stream's filter.
            cursor: its `Last-Event-ID`, empty when it has none.
        """
        if not cursor:
            return Opening((), self.hello(), "hello", self.last)
        read = read_id(cursor)
        if read is None or read[0] != self.epoch:
            return self._resync("unknown_id")
        after = read[1]
        if after > self.last:
            return Behind(after)  # another replica may be ahead of this one
        if after >= self._ring.floor:
            missed = self._ring.since(topics, after)
            return Opening(missed, self.hello(), "replay", self.last)
        if self._ring.missed_nothing(topics, after):
            return Opening((), self.hello(), "replay", self.last)
        return Behind(after)

    def _resync(self, reason: str) -> Opening:
        block = frames.resync(self.epoch, self.last, reason)
        return Opening((), block, "resync", self.last)

    async def backlog(
        self,
        topics: Filter,
        cursor: str,
        write: Callable[[Frame], None],
        drained: Callable[[], Awaitable[None]],
        *,
        most: int,
    ) -> Opening:
        """Bring a stream that is behind the ring close enough to join.

        Pages come from the log or the ring, each drained before the next. Whoever
        is behind and does not read holds one page, and no place that others need.

        Args:
            topics: the stream's filter.
            cursor: its `Last-Event-ID`.
            write: puts a block on the stream.
            drained: waits until the stream has taken most of it.
            most: bytes that may be written without waiting.

        Returns:
            The opening to write in the same step as the join.

        Raises:
            LogDownError: the log cannot be reached.
        """
        # a log that is lost meanwhile must not make this cursor one of the new log
        epoch = self.epoch
        limit = _FIRST_READ
        opening = self.opening(topics, cursor)
        while isinstance(opening, Behind) or opening.size > most:
            if isinstance(opening, Behind):
                page, limit = await self._page(topics, opening.after, limit)
            else:
                page = opening
            for block in page.missed:
                write(block)
                await drained()
            if page.kind == "resync":
                return page
            opening = self.opening(topics, write_id(epoch, page.upto))
        return opening

    async def _page(
        self, topics: Filter, after: Position, limit: int
    ) -> tuple[Opening, int]:
        """Return the next events that only the log has, or `resync`.

        Args:
            topics: the stream's filter.
            after: where it is.
            limit: most events to read.

        Returns:
            The page, and how many to read for the next one: large events make
            small pages, and what is read beyond a page is read in vain.
        """
        async with self._reads:
            records = await self._log.read(after, limit)
            # asked afterwards: what was trimmed before the read is missing from it
            bounds = await self._log.bounds()
        if bounds.epoch != self.epoch or after > bounds.last:
            return self._resync("id_ahead"), limit
        if after < bounds.floor:
            return self._resync("id_trimmed"), limit
        if after > self.last:
            await self._moved.wait()
            return Opening((), self.hello(), "replay", after), limit
        missed, size, upto, count = [], 0, after, 0
        for record in records:
            count += 1
            upto = record.position
            if topics.matches(record.event.topic):
                block = self._shelf.frame(
                    upto, partial(frames.of_record, self.epoch, record)
                )
                missed.append(block)
                size += len(block.plain)
            if size > _PAGE_BYTES:
                break
        # without events the hub has caught up meanwhile
        page = Opening(tuple(missed), self.hello(), "replay", upto)
        return page, min(_PAGE, max(_FIRST_READ, 2 * count))

    def join(self, sink: Sink, topics: Filter) -> Filter:
        """Put a stream into its group: from here on it gets what is delivered.

        Returns:
            The filter as the group has it, so that streams can share one.
        """
        group = self._groups.get(topics)
        if group is None:
            group = self._groups[topics] = _Group(topics)
        group[sink] = None
        return group.topics

    def audience(self, topic: Topic) -> int:
        """Return how many streams of this process are given events of this topic."""
        return sum(len(g) for t, g in self._groups.items() if t.matches(topic))

    def leave(self, sink: Sink, topics: Filter) -> None:
        """Take a stream out; harmless when it never joined."""
        group = self._groups.get(topics)
        if group is not None:
            group.pop(sink, None)
            if not group:
                del self._groups[topics]
