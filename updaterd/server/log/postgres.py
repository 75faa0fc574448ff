# SPDX-License-Identifier: Apache-2.0
"""The shared log in PostgreSQL, for who has that already: tables that replicas follow.

Appends take turns at one row, so that events become visible in the order of their
positions. `NOTIFY` only wakes: the tail asks by position for what it has not had, also
when nobody woke it. As with Redis, a tail notices when the database has lost events
that it was given (a fail-over, an older backup), and begins a new epoch.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import psycopg

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
    read_topic,
    write_topic,
)
from updaterd.server.log.postgres_line import Line

log = get()

_BATCH = 50  # an event may be half a megabyte
_LOOK_S = 5.0  # without being woken

_EVENTS = """
SELECT ms, seq, name, topic, data FROM updaterd_event
WHERE (ms, seq) > (%s, %s) ORDER BY ms, seq LIMIT %s
"""
_LOCK = """
SELECT epoch, last_ms, last_seq, floor(extract(epoch FROM clock_timestamp()) * 1000)
FROM updaterd_log FOR UPDATE
"""
_USED = "SELECT digest, ms, seq FROM updaterd_key WHERE key = %s"
_LIFE = """
SELECT epoch, floor_ms, floor_seq, since_ms, since_seq, last_ms, last_seq,
    EXISTS (SELECT FROM updaterd_event WHERE (ms, seq) = (%s, %s))
FROM updaterd_log
"""
_CUT = """
SELECT ms, seq FROM updaterd_event
ORDER BY ms DESC, seq DESC LIMIT 1 OFFSET %s
"""
_OLD = """
SELECT ms, seq FROM updaterd_event WHERE ms < %s
ORDER BY ms DESC, seq DESC LIMIT 1
"""

_Db = psycopg.Connection[Any]


class PostgresLog:
    """See `EventLog`.

    Args:
        url: `postgresql://`, as libpq reads it.
        retention: what `trim` keeps.
        now: seconds since 1970, for what is too old; positions are by PostgreSQL's
            clock, which all replicas share.

    Attributes:
        file: None: replicas share this log.

    Raises:
        ValueError: the address cannot be read.
    """

    file = None

    def __init__(
        self, url: str, *, retention: Retention, now: Callable[[], float]
    ) -> None:
        self._retention = retention
        self._now = now
        self._line = Line(url, "event-log")
        self._listener = Line(url, "event-tail", listens=True)

    async def append(self, event: Event, key: str) -> Appended:
        """See `EventLog.append`.

        Raises:
            KeyReusedError: the key belongs to another event.

        Power cut: event, key and newest position are one transaction, synced.
        """
        return await self._line.ask(partial(_append, event=event, key=key))

    async def find(self, event: Event, key: str) -> Appended | None:
        """See `EventLog.find`."""

        def work(db: _Db) -> Appended | None:
            (epoch,) = _row(db, "SELECT epoch FROM updaterd_log")
            return _used(db, event, key, epoch)

        return await self._line.ask(work)

    async def read(self, after: Position, limit: int) -> tuple[Record, ...]:
        """See `EventLog.read`."""
        return await self._line.ask(lambda db: _read(db, after, limit))

    async def bounds(self) -> Bounds:
        """See `EventLog.bounds`."""

        def work(db: _Db) -> Bounds:
            epoch, *numbers = _row(db, _LIFE, ZERO)
            return Bounds(epoch, Position(*numbers[:2]), Position(*numbers[4:6]))

        return await self._line.ask(work)

    async def newest(self) -> Mapping[Topic, Position]:
        """See `EventLog.newest`."""

        def work(db: _Db) -> Mapping[Topic, Position]:
            rows = db.execute("SELECT topic, ms, seq FROM updaterd_newest").fetchall()
            return {read_topic(topic): Position(ms, seq) for topic, ms, seq in rows}

        return await self._line.ask(work)

    async def tail(
        self, epoch: str, after: Position
    ) -> AsyncIterator[Batch | LogDownError]:
        """See `EventLog.tail`."""
        failed = False
        while True:
            try:
                batch, at = await self._listener.ask(
                    partial(_read_on, epoch=epoch, after=after)
                )
            except LogDownError as error:
                if not failed:
                    failed = True
                    yield error
                await self._listener.rest()
                continue
            moves = batch.epoch != epoch or batch.gap is not None or batch.records
            epoch, after = batch.epoch, at
            if moves or failed:
                failed = False
                yield batch
            else:
                await self._listener.woken(_LOOK_S)

    async def trim(self) -> int:
        """See `EventLog.trim`.

        Power cut: floor and deletion are one transaction.
        """
        now_ms = int(self._now() * 1000)
        return await self._line.ask(
            partial(_trim, now_ms=now_ms, retention=self._retention)
        )

    async def warnings(self) -> tuple[str, ...]:
        """See `EventLog.warnings`."""

        def work(db: _Db) -> tuple[str, ...]:
            means = {
                "fsync": "a power cut may damage the database",
                "full_page_writes": "a power cut may damage the database",
            }
            return tuple(
                f"{name} is off: {why}"
                for name, why in means.items()
                if _row(db, f"SHOW {name}") != ("on",)
            )

        return await self._line.ask(work)

    async def close(self) -> None:
        """See `EventLog.close`."""
        await self._line.close()
        await self._listener.close()


def _row(db: _Db, sql: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    """Return the one row of an answer.

    Raises:
        LogDownError: there is none: somebody has emptied a table of ours.
    """
    row: tuple[Any, ...] | None = db.execute(sql.encode(), values).fetchone()
    if row is None:
        raise LogDownError(
            "the event log in PostgreSQL has lost its row in updaterd_log",
            means="nothing can be announced",
            do="drop its tables (updaterd_log, updaterd_event, updaterd_newest, "
            "updaterd_key): it begins anew, and subscribers reconcile",
        )
    return row


def _append(db: _Db, event: Event, key: str) -> Appended:
    with db.transaction():
        epoch, *last, now_ms = _row(db, _LOCK)
        if used := _used(db, event, key, epoch):
            return used
        # a clock that went back must not reorder the log
        position = Position(int(now_ms), 0)
        if position <= Position(*last):
            position = Position(last[0], last[1] + 1)
        topic = write_topic(event.topic)
        db.execute(
            "INSERT INTO updaterd_event VALUES (%s, %s, %s, %s, %s)",
            (*position, event.name, topic, event.data),
        )
        db.execute(
            "INSERT INTO updaterd_newest VALUES (%s, %s, %s) ON CONFLICT (topic) "
            "DO UPDATE SET ms = excluded.ms, seq = excluded.seq",
            (topic, *position),
        )
        db.execute(
            "INSERT INTO updaterd_key VALUES (%s, %s, %s, %s)",
            (key, digest_of(event), *position),
        )
        db.execute("UPDATE updaterd_log SET last_ms = %s, last_seq = %s", position)
        db.execute("NOTIFY updaterd_event")
    return Appended(epoch, position, fresh=True)


def _used(db: _Db, event: Event, key: str, epoch: str) -> Appended | None:
    """Return what the key was used for.

    Raises:
        KeyReusedError: for another event.
    """
    used = db.execute(_USED, (key,)).fetchone()
    if used is None:
        return None
    check_key(key, used[0], event)
    return Appended(epoch, Position(*used[1:]), fresh=False)


def _read(db: _Db, after: Position, limit: int) -> tuple[Record, ...]:
    rows = db.execute(_EVENTS, (*after, limit)).fetchall()
    return tuple(
        Record(Position(ms, seq), Event(name, read_topic(topic), bytes(data)))
        for ms, seq, name, topic, data in rows
    )


def _read_on(db: _Db, epoch: str, after: Position) -> tuple[Batch, Position]:
    """Return what comes after a position, and where to go on."""
    records = _read(db, after, _BATCH)
    # afterwards: what was lost or trimmed before the read is missing from it
    life, *numbers, is_present = _row(db, _LIFE, after)
    floor, since = Position(*numbers[:2]), Position(*numbers[2:4])
    if life != epoch:
        return Batch(life, (), since if since != ZERO else None), since
    if after > max(floor, since) and not is_present:
        _begin_anew(db, epoch)
        return Batch(epoch, ()), after
    if after < floor:
        records = _read(db, floor, _BATCH)
        return Batch(epoch, records, floor), _end(records, floor)
    return Batch(epoch, records), _end(records, after)


def _end(records: tuple[Record, ...], at: Position) -> Position:
    return records[-1].position if records else at


def _begin_anew(db: _Db, epoch: str) -> None:
    """Begin a new life after what is there, once, whoever notices first."""
    changed = db.execute(
        "UPDATE updaterd_log SET epoch = %s, since_ms = last_ms, since_seq = last_seq "
        "WHERE epoch = %s",
        (secrets.token_hex(4), epoch),
    ).rowcount
    if changed:
        log.error(
            "log_rewound",
            means="PostgreSQL has lost announcements that it had acknowledged, as "
            "after a fail-over or from an older backup; all subscribers look anew",
            do="announce again what was pushed lately (operator.md, 'Three replicas')",
        )


def _trim(db: _Db, now_ms: int, retention: Retention) -> int:
    with db.transaction():
        _row(db, _LOCK)
        cut = db.execute(_CUT, (retention.count,)).fetchone()
        old_ms = now_ms - int(retention.age_s * 1000)
        old = db.execute(_OLD, (old_ms,)).fetchone()
        floor = max(Position(*cut) if cut else ZERO, Position(*old) if old else ZERO)
        removed = 0
        if floor > ZERO:
            removed = db.execute(
                "DELETE FROM updaterd_event WHERE (ms, seq) <= (%s, %s)", floor
            ).rowcount
            db.execute("UPDATE updaterd_log SET floor_ms = %s, floor_seq = %s", floor)
        db.execute(
            "DELETE FROM updaterd_key WHERE ms < %s",
            (now_ms - int(retention.key_s * 1000),),
        )
    return removed
