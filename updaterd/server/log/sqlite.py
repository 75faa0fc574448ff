# SPDX-License-Identifier: Apache-2.0
"""The embedded log: one SQLite file, one process. The default.

WAL with `synchronous=FULL`: an append that returned survives a power cut. SQLite
blocks, so one worker thread does all of it and the event loop never waits for the
disk. The only writer is this process (`resources.lock_embedded`), so the tail is handed
what was appended and need not ask the file for it.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

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
from updaterd.server.log.file import DAMAGED, LogFile

_BATCH = 50  # an event may be half a megabyte
_MOST_HANDED = 16  # so may these; a tail that is further behind reads the file
_AGAIN_S = 1.0

T = TypeVar("T")


class _Added(NamedTuple):
    """An event, and the one before it: whoever has that misses nothing between."""

    before: Position
    record: Record


class SqliteLog:
    """See `EventLog`.

    Args:
        path: the file; made when missing, with its directory's permissions.
        retention: what `trim` keeps.
        now: seconds since 1970.

    Attributes:
        file: the same.
    """

    def __init__(
        self, path: Path, *, retention: Retention, now: Callable[[], float]
    ) -> None:
        self.file = path
        self._retention = retention
        self._now = now
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="event-log")
        self._moved = asyncio.Event()
        self._handed: deque[_Added] = deque(maxlen=_MOST_HANDED)
        self._log_file = LogFile(path)
        self._closed = False

    async def _run(
        self, work: Callable[[sqlite3.Connection], T], *, writes: bool = False
    ) -> T:
        def call() -> T:
            try:
                return work(self._log_file.open(writes=writes))
            except sqlite3.Error as error:
                raise LogDownError(
                    f"the event log {self.file} failed: {error}",
                    means="the event may not have been stored",
                    do="restart the server: it says how to begin anew"
                    if getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED
                    else "free disk space, then send it again with the same key",
                ) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def append(self, event: Event, key: str) -> Appended:
        """See `EventLog.append`.

        Power cut: event, key and newest position are one transaction.
        """
        now_ms = int(self._now() * 1000)
        loop = asyncio.get_running_loop()

        def work(db: sqlite3.Connection) -> Appended:
            db.execute("BEGIN IMMEDIATE")
            try:
                before = _last(db)
                answer = _append(db, event, key, now_ms, before)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite ends it itself when the disk is full
                    db.execute("ROLLBACK")
                raise
            if answer.fresh:
                # here, not after the wait: who asked may have gone meanwhile
                self._handed.append(_Added(before, Record(answer.position, event)))
                loop.call_soon_threadsafe(self._moved.set)
            return answer

        return await self._run(work, writes=True)

    async def find(self, event: Event, key: str) -> Appended | None:
        """See `EventLog.find`."""
        return await self._run(lambda db: _used(db, event, key))

    async def read(self, after: Position, limit: int) -> tuple[Record, ...]:
        """See `EventLog.read`."""
        return await self._run(lambda db: _read(db, after, limit))

    async def bounds(self) -> Bounds:
        """See `EventLog.bounds`."""
        return await self._run(
            lambda db: Bounds(_meta(db, "epoch"), _floor(db), _last(db))
        )

    async def newest(self) -> Mapping[Topic, Position]:
        """See `EventLog.newest`."""

        def work(db: sqlite3.Connection) -> Mapping[Topic, Position]:
            rows = db.execute("SELECT topic, ms, seq FROM newest")
            return {read_topic(topic): Position(ms, seq) for topic, ms, seq in rows}

        return await self._run(work)

    async def tail(
        self, epoch: str, after: Position
    ) -> AsyncIterator[Batch | LogDownError]:
        """See `EventLog.tail`: handed in memory, read when it is behind."""
        failed = False
        while True:
            self._moved.clear()
            gap: Position | None = None
            handed = self._after(after)
            if handed is not None:
                records = handed
            else:
                try:
                    records, gap = await self._run(partial(_read_on, after=after))
                except LogDownError as error:
                    if not failed:
                        failed = True
                        yield error
                    await asyncio.sleep(_AGAIN_S)
                    continue
            if records or failed or gap is not None:
                failed = False
                yield Batch(epoch, records, gap)
            after = gap or after
            if records:
                after = records[-1].position
            elif not self._moved.is_set():
                await self._moved.wait()

    def _after(self, position: Position) -> tuple[Record, ...] | None:
        """Return what was appended after a position; None when only the file knows."""
        handed = list(self._handed)  # at once: the thread appends to it
        if handed and handed[-1].record.position <= position:
            return ()
        for at, added in enumerate(handed):
            if added.before == position:
                return tuple(later.record for later in handed[at:])
        return None

    async def trim(self) -> int:
        """See `EventLog.trim`.

        Power cut: floor and deletion are one transaction.
        """
        now_ms = int(self._now() * 1000)
        retention = self._retention

        def work(db: sqlite3.Connection) -> int:
            db.execute("BEGIN IMMEDIATE")
            try:
                cut = db.execute(
                    "SELECT ms, seq FROM event "
                    "ORDER BY ms DESC, seq DESC LIMIT 1 OFFSET ?",
                    (retention.count,),
                ).fetchone()
                floor = Position(*cut) if cut else ZERO
                old = db.execute(
                    "SELECT ms, seq FROM event WHERE ms < ? "
                    "ORDER BY ms DESC, seq DESC LIMIT 1",
                    (now_ms - int(retention.age_s * 1000),),
                ).fetchone()
                floor = max(floor, Position(*old) if old else ZERO)
                removed = 0
                if floor > ZERO:
                    removed = db.execute(
                        "DELETE FROM event WHERE (ms, seq) <= (?, ?)", floor
                    ).rowcount
                    db.execute(
                        "UPDATE meta SET value = ? WHERE name = 'floor'",
                        (f"{floor.ms}-{floor.seq}",),
                    )
                db.execute(
                    "DELETE FROM used WHERE ms < ?",
                    (now_ms - int(retention.key_s * 1000),),
                )
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite ends it itself when the disk is full
                    db.execute("ROLLBACK")
                raise
            return removed

        return await self._run(work, writes=True)

    async def warnings(self) -> tuple[str, ...]:
        """See `EventLog.warnings`: WAL and full syncs leave nothing to say."""
        return ()

    async def close(self) -> None:
        """See `EventLog.close`."""
        if not self._closed:
            self._closed = True
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._log_file.close)
            self._thread.shutdown()


def _read(db: sqlite3.Connection, after: Position, limit: int) -> tuple[Record, ...]:
    rows = db.execute(
        "SELECT ms, seq, name, product, channel, data FROM event "
        "WHERE (ms, seq) > (?, ?) ORDER BY ms, seq LIMIT ?",
        (*after, limit),
    )
    return tuple(
        Record(Position(ms, seq), Event(name, Topic(product, channel), data))
        for ms, seq, name, product, channel, data in rows
    )


def _read_on(
    db: sqlite3.Connection, after: Position
) -> tuple[tuple[Record, ...], Position | None]:
    """Return what comes next, and the floor if more was trimmed than was read."""
    floor = _floor(db)  # the only thread: nothing is trimmed in between
    return _read(db, max(after, floor), _BATCH), floor if after < floor else None


def _floor(db: sqlite3.Connection) -> Position:
    ms, _, seq = _meta(db, "floor").partition("-")
    return Position(int(ms), int(seq))


def _meta(db: sqlite3.Connection, name: str) -> str:
    (value,) = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return str(value)


def _last(db: sqlite3.Connection) -> Position:
    # of the topics, not of the events: those may all have been trimmed
    row = db.execute(
        "SELECT ms, seq FROM newest ORDER BY ms DESC, seq DESC LIMIT 1"
    ).fetchone()
    return Position(*row) if row else ZERO


def _append(
    db: sqlite3.Connection,
    event: Event,
    key: str,
    now_ms: int,
    last: Position,
) -> Appended:
    if used := _used(db, event, key):
        return used
    # a clock that went back must not reorder the log
    position = Position(now_ms, 0)
    if position <= last:
        position = Position(last.ms, last.seq + 1)
    db.execute(
        "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)",
        (*position, event.name, *event.topic, event.data),
    )
    db.execute(
        "INSERT OR REPLACE INTO newest VALUES (?, ?, ?)",
        (write_topic(event.topic), *position),
    )
    db.execute(
        "INSERT INTO used VALUES (?, ?, ?, ?)", (key, digest_of(event), *position)
    )
    return Appended(_meta(db, "epoch"), position, fresh=True)


def _used(db: sqlite3.Connection, event: Event, key: str) -> Appended | None:
    """Return what the key was used for.

    Raises:
        KeyReusedError: for another event.
    """
    used = db.execute(
        "SELECT digest, ms, seq FROM used WHERE key = ?", (key,)
    ).fetchone()
    if used is None:
        return None
    check_key(key, used[0], event)
    return Appended(_meta(db, "epoch"), Position(used[1], used[2]), fresh=False)
