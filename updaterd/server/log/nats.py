# SPDX-License-Identifier: Apache-2.0
"""The shared log in NATS JetStream, for who has that already: replicas follow a stream.

An append is stored only if the stream still ends where its writer looked for the
idempotency key: that makes an order, and one event of any number of attempts. The
stream's own sequence number is the count in a position, which is found by it at once.

There is no consumer: events are asked for by position, and what NATS republishes only
wakes. As with Redis, a tail notices when events are lost that it was given (a stream
from an older backup, a new leader that had less), and begins a new epoch.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from nats.js import JetStreamContext
from nats.js.api import StreamInfo
from nats.js.errors import APIError

from updaterd.log import get
from updaterd.server.log.contract import (
    ZERO,
    Appended,
    Batch,
    Bounds,
    Event,
    LogDownError,
    Position,
    Record,
    Retention,
    Topic,
    check_key,
    digest_of,
)
from updaterd.server.log.nats_address import read_address
from updaterd.server.log.nats_line import Line
from updaterd.server.log.nats_state import State, States, new_epoch
from updaterd.server.log.nats_stream import MOST_SUBJECTS, WRONG_LAST, Streams

log = get()

_BATCH = 50  # an event may be half a megabyte
_LOOK_S = 5.0  # without being woken
_MOST_LOOKS = 8  # for an event that a leader may not have yet
_SYNCS = (2, 10)  # the first that can sync before it answers


class _Place(NamedTuple):
    """Where a tail is.

    Attributes:
        after: the newest event that it had.
        sequence: of the newest message that it saw, a stranger's maybe.
    """

    after: Position
    sequence: int


class NatsLog:
    """See `EventLog`.

    Args:
        url: `nats://` or `tls://`, as `nats_address` reads it.
        retention: what `trim` keeps.
        now: seconds since 1970.

    Attributes:
        file: None: replicas share this log.

    Raises:
        ValueError: the address cannot be read.
    """

    file = None

    def __init__(
        self, url: str, *, retention: Retention, now: Callable[[], float]
    ) -> None:
        address = read_address(url)
        self._retention = retention
        self._now = now
        self._streams = Streams(address.stream, address.replicas)
        self._states = States(self._streams)
        self._line = Line(address, self._streams.prepare, self._streams.stored)
        self._turn = asyncio.Lock()
        self._foreign = 0  # the newest message of somebody else that was told

    async def append(self, event: Event, key: str) -> Appended:
        """See `EventLog.append`.

        Raises:
            KeyReusedError: the key belongs to another event.

        Power cut: as much as the server's `sync_interval` promises.
        """
        return await self._line.ask(partial(self._append, event=event, key=key))

    async def _append(self, js: JetStreamContext, event: Event, key: str) -> Appended:
        streams = self._streams
        async with self._turn:  # or our own would be refused by turns
            while True:
                info, state = await self._states.life(js)
                # the end first: nothing up to there is missed by what comes now
                last, used = await asyncio.gather(
                    streams.last(js, streams.any_event), self._used(js, event, key)
                )
                if used is not None:
                    return Appended(state.epoch, used, fresh=False)
                newest = streams.record(last) if last else None
                # a clock that went back must not reorder the log
                ms = max(
                    int(self._now() * 1000),
                    newest.position.ms if newest else 0,
                    state.floor.ms,
                )
                try:
                    stored = await js.publish(
                        streams.subject(event.topic, key),
                        event.data,
                        headers=streams.headers(event, ms, info.state.last_seq),
                    )
                except APIError as error:
                    if error.err_code != WRONG_LAST:
                        raise
                    continue  # somebody else was faster, with this key maybe
                return Appended(state.epoch, Position(ms, stored.seq), fresh=True)

    async def find(self, event: Event, key: str) -> Appended | None:
        """See `EventLog.find`."""

        async def work(js: JetStreamContext) -> Appended | None:
            used = await self._used(js, event, key)
            if used is None:
                return None
            _, state = await self._states.life(js)
            return Appended(state.epoch, used, fresh=False)

        return await self._line.ask(work)

    async def _used(
        self, js: JetStreamContext, event: Event, key: str
    ) -> Position | None:
        """Return where the event of a key is.

        Raises:
            KeyReusedError: it is another event's.
        """
        message = await self._streams.last(js, self._streams.of_key(key))
        used = self._streams.record(message) if message else None
        if used is None or used.position.ms < self._before(self._retention.key_s):
            return None
        check_key(key, digest_of(used.event), event)
        return used.position

    def _before(self, seconds: float) -> int:
        return int((self._now() - seconds) * 1000)

    async def read(self, after: Position, limit: int) -> tuple[Record, ...]:
        """See `EventLog.read`."""

        async def work(js: JetStreamContext) -> tuple[Record, ...]:
            info, state = await self._states.life(js)
            start = max(after.seq, state.floor.seq)
            return (await self._scan(js, start, info, limit))[0]

        return await self._line.ask(work)

    async def _scan(
        self, js: JetStreamContext, after: int, info: StreamInfo, limit: int
    ) -> tuple[tuple[Record, ...], int]:
        """Return events after a sequence number, and where the next ones may be."""
        at = max(after, info.state.first_seq - 1)
        records: list[Record] = []
        while at < info.state.last_seq and len(records) < limit:
            end = min(at + min(limit - len(records), _BATCH), info.state.last_seq)
            messages = await asyncio.gather(
                *(self._streams.at(js, number) for number in range(at + 1, end + 1))
            )
            for message in filter(None, messages):  # somebody may have deleted one
                record = self._streams.record(message)
                if record is not None:
                    records.append(record)
                else:
                    self._tell_foreign(message.seq or 0, message.subject or "")
            at = end
        return tuple(records), at

    def _tell_foreign(self, sequence: int, subject: str) -> None:
        if sequence > self._foreign:
            self._foreign = sequence
            log.warning(
                "foreign_entry",
                id=f"{sequence}",
                key=subject[:80],
                means="something else writes to the event log; it was passed over",
                do="let nobody but updaterd publish there (operator.md, 'NATS')",
            )

    async def bounds(self) -> Bounds:
        """See `EventLog.bounds`."""

        async def work(js: JetStreamContext) -> Bounds:
            last = await self._last(js)
            info, state = await self._states.life(js)
            floor = await self._states.floor(js, info, state)
            return Bounds(state.epoch, floor, max(last, floor))

        return await self._line.ask(work)

    async def _last(self, js: JetStreamContext) -> Position:
        """Return the newest event's position."""
        message = await self._streams.last(js, self._streams.any_event)
        while message is not None:
            if record := self._streams.record(message):
                return record.position
            at = (message.seq or 0) - 1  # a stranger's
            message = await self._streams.at(js, at) if at > 0 else None
        return ZERO

    async def newest(self) -> Mapping[Topic, Position]:
        """See `EventLog.newest`."""
        return await self._line.ask(self._newest)

    async def _newest(self, js: JetStreamContext) -> dict[Topic, Position]:
        streams = self._streams
        _, state = await self._states.life(js)
        topics = list(await streams.topics(js))
        messages = await asyncio.gather(
            *(streams.last(js, streams.of_topic(topic)) for topic in topics)
        )
        newest = dict(state.newest)
        for topic, message in zip(topics, messages, strict=True):
            if message and (record := streams.record(message)):
                newest[topic] = record.position
        return newest

    async def tail(
        self, epoch: str, after: Position
    ) -> AsyncIterator[Batch | LogDownError]:
        """See `EventLog.tail`."""
        failed, looks = False, 0
        place = _Place(after, after.seq)
        async with self._line.awake() as woken:
            while True:
                try:
                    look = partial(self._read_on, epoch=epoch, place=place, looks=looks)
                    batch, place = await self._line.ask(look)
                except LogDownError as error:
                    if not failed:
                        failed = True
                        yield error
                    await self._line.rest()
                    continue
                if batch is None:
                    looks += 1
                    await self._line.rest()
                    continue
                looks = 0
                moves = batch.epoch != epoch or batch.gap is not None or batch.records
                epoch = batch.epoch
                if moves or failed:
                    failed = False
                    yield batch
                if batch.gap is None and len(batch.records) < _BATCH:
                    await woken(_LOOK_S)  # at once, if something came meanwhile

    async def _read_on(
        self, js: JetStreamContext, epoch: str, place: _Place, looks: int
    ) -> tuple[Batch | None, _Place]:
        """Return what comes after a place, and where to go on; None: look again."""
        info = await self._streams.info(js)
        records, reach = await self._scan(js, place.sequence, info, _BATCH)
        # afterwards: what was lost or trimmed before the read is missing from it
        message = (
            await self._streams.at(js, place.after.seq) if place.after.seq else None
        )
        info, state = await self._states.life(js)
        if state.epoch != epoch:
            gap = state.since if state.since != ZERO else None
            return Batch(state.epoch, (), gap), _Place(state.since, state.since.seq)
        floor = await self._states.floor(js, info, state)
        present = self._streams.record(message) if message else None
        is_lost = present is None or present.position != place.after
        if is_lost and place.after > max(floor, state.since):
            is_behind = info.state.last_seq < place.after.seq
            if (
                is_behind
                and (info.config.num_replicas or 1) > 1
                and looks < _MOST_LOOKS
            ):
                return None, place  # a new leader that has not all yet
            await self._begin_anew(js, state)
            return None, place
        if place.after < floor:
            records, reach = await self._scan(js, floor.seq, info, _BATCH)
            return Batch(epoch, records, floor), _end(records, floor, reach)
        return Batch(epoch, records), _end(records, place.after, reach)

    async def _begin_anew(self, js: JetStreamContext, state: State) -> None:
        """Begin a new life after what is there, once, whoever notices first."""
        since = await self._last(js)
        newest = {t: p for t, p in state.newest.items() if p <= since}
        floor = min(state.floor, since)
        successor = State(new_epoch(), state.log, floor, since, newest)
        await self._states.begin(js, successor, state)

    async def trim(self) -> int:
        """See `EventLog.trim`.

        Events are purged when their keys may be forgotten, too, and never the last
        one: JetStream has begun to count anew when it was killed with an empty stream.

        Power cut: the floor is written first; what is left below goes the next time.
        """
        return await self._line.ask(self._trim)

    async def _trim(self, js: JetStreamContext) -> int:
        info, state = await self._states.life(js)
        floor = await self._states.floor(js, info, state)
        first, last = floor.seq + 1, info.state.last_seq
        old = await self._states.older(
            js, first, last, self._before(self._retention.age_s)
        )
        sequence = max(last - self._retention.count, old)
        removed = sequence - floor.seq
        if removed > 0:
            floor = await self._states.position(js, sequence, floor.ms)
            newest = await self._newest(js)
            successor = replace(state, floor=floor, newest=newest)
            if not await self._states.write(js, successor, state):
                return 0  # another replica trims
        start = max(1, info.state.first_seq)
        end = min(floor.seq, last - 1)
        keyless = await self._states.older(
            js, start, end, self._before(self._retention.key_s)
        )
        if keyless >= start:
            await js.purge_stream(self._streams.events, seq=keyless + 1)
        return max(0, removed)

    async def warnings(self) -> tuple[str, ...]:
        """See `EventLog.warnings`."""

        async def work(js: JetStreamContext) -> tuple[str, ...]:
            info = await self._streams.info(js)
            warnings = []
            if self._line.version < _SYNCS:
                warnings.append(
                    "NATS before 2.10 syncs its files every two minutes: "
                    "a power cut forgets announcements"
                )
            if info.cluster and (info.config.num_replicas or 1) == 1:
                warnings.append(
                    "the stream has one replica in a cluster: "
                    "while its server is down, nothing can be announced"
                )
            if self._retention.count >= MOST_SUBJECTS:
                warnings.append(
                    f"of more than {MOST_SUBJECTS:,} events (--keep-events) NATS does "
                    "not list the topics: quiet ones may get resync"
                )
            return tuple(warnings)

        return await self._line.ask(work)

    async def close(self) -> None:
        """See `EventLog.close`."""
        await self._line.close()


def _end(records: tuple[Record, ...], at: Position, reach: int) -> _Place:
    after = records[-1].position if records else at
    return _Place(after, max(reach, after.seq))
