# SPDX-License-Identifier: Apache-2.0
"""One connection to PostgreSQL: made when needed, made anew when it broke, bounded.

libpq blocks, so a thread does the work, and a publisher that leaves does not take the
event with it. A server that accepts and never answers (stopped, or behind a network
that swallows) is given up after some seconds: then the socket is shut under libpq,
which ends the thread's wait.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.errors import (
    DiskFull,
    InsufficientPrivilege,
    LockNotAvailable,
    ReadOnlySqlTransaction,
    UndefinedTable,
)

from updaterd.server.log.contract import LogDownError
from updaterd.server.postgres_address import check_address

_TIMEOUT_S = 5
# By SET and not as `options`, which would take the place of those in the address. A
# replica that froze inside a transaction holds the row that all appends need: for
# seconds, and not until the network gives it up.
_SESSION = """
SET synchronous_commit = on;
SET client_min_messages = warning;
SET lock_timeout = '4s';
SET idle_in_transaction_session_timeout = '10s'
"""
_AGAIN_S = 0.25
_LOCK = 0x75706465  # "upde": who makes the tables, in this database
_LAYOUT = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS updaterd_log (
    layout INTEGER NOT NULL,
    epoch TEXT NOT NULL,
    floor_ms BIGINT NOT NULL DEFAULT 0,  -- the newest event that was trimmed
    floor_seq BIGINT NOT NULL DEFAULT 0,
    since_ms BIGINT NOT NULL DEFAULT 0,  -- where this epoch began
    since_seq BIGINT NOT NULL DEFAULT 0,
    last_ms BIGINT NOT NULL DEFAULT 0,
    last_seq BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS updaterd_event (
    ms BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    name TEXT NOT NULL,
    topic TEXT NOT NULL,
    data BYTEA NOT NULL,
    PRIMARY KEY (ms, seq)
);
CREATE TABLE IF NOT EXISTS updaterd_newest (
    topic TEXT PRIMARY KEY,
    ms BIGINT NOT NULL,
    seq BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS updaterd_key (
    key TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    ms BIGINT NOT NULL,
    seq BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS updaterd_key_age ON updaterd_key (ms);
"""
_MEANS = "nothing can be announced; open streams stay"
_DO = "look at PostgreSQL and its log; then send it again with the same key"
_REMEDIES: dict[type[psycopg.Error], str] = {
    LockNotAvailable: "look in pg_stat_activity for who holds a lock on updaterd_log; "
    "then send it again with the same key",
    DiskFull: "free disk space on PostgreSQL's machine",
    InsufficientPrivilege: "let its user create tables there and write to them",
    ReadOnlySqlTransaction: "point --log at the primary: this PostgreSQL is a standby",
}

Db = psycopg.Connection[Any]
T = TypeVar("T")


class Line:
    """A connection, and the thread that uses it.

    Args:
        url: as libpq reads it.
        name: of the thread.
        listens: it is woken by appends, of whoever.

    Raises:
        ValueError: the address cannot be read.
    """

    def __init__(self, url: str, name: str, *, listens: bool = False) -> None:
        check_address(url)
        self._url = url
        self._listens = listens
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._db: Db | None = None
        self._was_told = False
        self._is_closed = False

    async def ask(self, work: Callable[[Db], T]) -> T:
        """Return what `work` returns, which must be harmless when done twice.

        Raises:
            LogDownError: no answer, or a refusal.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await loop.run_in_executor(self._thread, self._try, work)
        except TimeoutError:
            self._cut()
        raise LogDownError(
            f"PostgreSQL gave the event log no answer in {_TIMEOUT_S} s",
            means=_MEANS,
            do=_DO,
        )

    def _try(self, work: Callable[[Db], T]) -> T:
        rested = self._db is not None
        try:
            return self._do(work)
        except psycopg.Error as error:
            if not rested or self._db is not None or self._is_closed:
                raise _down(error) from error
        # the connection had died while it rested, or somebody dropped a table: anew
        try:
            return self._do(work)
        except psycopg.Error as error:
            raise _down(error) from error

    def _do(self, work: Callable[[Db], T]) -> T:
        db = self._db
        if db is None or db.closed:
            db = self._connect()
        try:
            return work(db)
        except UndefinedTable:
            self._forget()  # they are made with the next connection
            raise
        finally:
            self._forget_broken()

    def _connect(self) -> Db:
        # known from its first moment on: what comes next may wait, too, and be cut
        db = self._db = psycopg.connect(
            self._url, autocommit=True, connect_timeout=_TIMEOUT_S
        )
        if self._is_closed:
            self._forget()
            raise psycopg.OperationalError("this server stops")
        try:
            db.execute(_SESSION)
            with db.transaction():
                db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                db.execute(_TABLES)
                _check_layout(db)
            if self._listens:
                db.add_notify_handler(self._on_notify)
                db.execute("LISTEN updaterd_event")
        except BaseException:
            self._forget()
            raise
        return db

    def _on_notify(self, _: psycopg.Notify) -> None:
        self._was_told = True

    def _forget_broken(self) -> None:
        if self._db is not None and self._db.closed:
            self._forget()

    def _forget(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _cut(self) -> None:
        """Shut the socket under a wait that lasts too long."""
        db = self._db
        if db is None:
            return  # it connects, which has a limit of its own
        with (
            suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(db.fileno())) as sock,
        ):
            sock.shutdown(socket.SHUT_RDWR)

    async def woken(self, at_most_s: float) -> None:
        """Return when something may have been appended, or after some seconds."""
        if self._was_told or self._db is None:
            self._was_told = False
            return
        loop = asyncio.get_running_loop()
        moved = asyncio.Event()
        fd = os.dup(self._db.fileno())  # ours, whatever becomes of the connection
        loop.add_reader(fd, moved.set)
        try:
            async with asyncio.timeout(at_most_s):
                await moved.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(fd)
            os.close(fd)

    async def rest(self) -> None:
        """Wait before the next attempt."""
        await asyncio.sleep(_AGAIN_S)

    async def close(self) -> None:
        """Close the connection, also under somebody who waits."""
        self._is_closed = True
        self._cut()
        loop = asyncio.get_running_loop()
        with suppress(RuntimeError):  # closed before
            await loop.run_in_executor(self._thread, self._forget)
            self._thread.shutdown()


def _check_layout(db: Db) -> None:
    """See that the tables are ours; make the one row when it is missing.

    Raises:
        LogDownError: they are of another updaterd.
    """
    row = db.execute("SELECT layout FROM updaterd_log").fetchone()
    if row is None:
        db.execute(
            "INSERT INTO updaterd_log (layout, epoch) VALUES (%s, %s)",
            (_LAYOUT, secrets.token_hex(4)),
        )
    elif row[0] != _LAYOUT:
        raise LogDownError(
            f"the event log has layout {row[0]}, this updaterd knows {_LAYOUT}",
            means="nothing can be announced or replayed",
            do="update the server, or give it another database",
        )


def _down(error: psycopg.Error) -> LogDownError:
    return LogDownError(
        f"PostgreSQL refused the event log: {str(error).strip():.300}",
        means=_MEANS,
        do=_REMEDIES.get(type(error), _DO),
    )
