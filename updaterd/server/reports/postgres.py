# SPDX-License-Identifier: Apache-2.0
"""A store of reports in PostgreSQL: several servers may write into it.

Writers take turns (an advisory lock for the length of a transaction): counts are
differences, and a transaction carries many requests, so nobody waits for long.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg

from updaterd.errors import BrokenError
from updaterd.server.postgres_address import check_address
from updaterd.server.reports.contract import Keeping, StoreDownError
from updaterd.server.reports.counting import CountingStore
from updaterd.server.reports.tables import LAYOUT, TYPES, Dialect, Row

_LOCK = 0x75706474  # "updt": of writers, in this database
_DIALECT = Dialect("INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "BYTEA", "")
_PATIENCE_S = 10
# By SET and not as `options`, which would take the place of those in the address. A
# server that froze as it wrote must not keep the writers' lock.
_SESSION = """
SET synchronous_commit = on;
SET lock_timeout = '20s';
SET idle_in_transaction_session_timeout = '15s'
"""

T = TypeVar("T")


class PostgresReports(CountingStore):
    """See `ReportStore`. A connection that broke is made anew with the next call.

    Args:
        url: `postgresql://USER@HOST/DATABASE`.
        keeping: how long what is kept.

    Raises:
        ValueError: the address cannot be read.
    """

    def __init__(self, url: str, *, keeping: Keeping) -> None:
        super().__init__(keeping)
        check_address(url)
        self._url = url
        self._open: psycopg.Connection | None = None

    def _connection(self) -> psycopg.Connection:
        if self._open is not None and not self._open.closed:
            return self._open
        self._forget()
        connection = psycopg.connect(
            self._url, autocommit=True, connect_timeout=_PATIENCE_S
        )
        try:
            connection.execute(_SESSION)
            _make(connection)
        except BaseException:
            connection.close()
            raise
        self._open = connection
        return connection

    def _down(self, error: psycopg.Error) -> StoreDownError:
        if self._open is not None and self._open.broken:
            self._open.close()
        return StoreDownError(
            f"the store of reports does not answer: {str(error).strip():.300}",
            means="machines keep their reports and send them again",
            do="look at PostgreSQL and its log",
        )

    def _ask(self, work: Callable[[psycopg.Connection], T]) -> T:
        try:
            return work(self._connection())
        except psycopg.Error as error:
            raise self._down(error) from error

    @contextmanager
    def _change(self) -> Iterator[None]:
        """See `CountingStore._change`.

        Raises:
            StoreDownError: it does not answer; whether it was kept is not known.
        """
        try:
            connection = self._connection()
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                yield
        except psycopg.Error as error:
            self._forget()
            raise self._down(error) from error
        except BaseException:
            self._forget()
            raise

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """See `CountingStore.rows`."""
        query = sql.replace("?", "%s").encode()
        return self._ask(lambda db: db.execute(query, values).fetchall())

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """See `CountingStore.run`."""
        query = sql.replace("?", "%s").encode()
        return self._ask(lambda db: db.execute(query, values).rowcount)

    def put(
        self, table: str, columns: Sequence[str], rows: Sequence[Row], clause: str
    ) -> None:
        """See `CountingStore.put`."""
        if not rows:
            return
        names, arrays = ", ".join(columns), _arrays(columns)
        query = f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays}) {clause}"  # noqa: S608 - our own names
        arrays_of = _literals(columns, rows)
        self._ask(lambda db: db.execute(query.encode(), arrays_of))

    def pick(
        self, table: str, columns: str, keys: Sequence[str], values: Sequence[Row]
    ) -> Iterable[Row]:
        """See `CountingStore.pick`."""
        if not values:
            return []
        key = ", ".join(keys)
        selected = f"{key}, {columns}" if columns else key
        query = (
            f"SELECT {selected} FROM {table} "  # noqa: S608 - our own names
            f"JOIN unnest({_arrays(keys)}) AS k ({key}) USING ({key})"
        )
        arrays_of = _literals(keys, values)
        return self._ask(lambda db: db.execute(query.encode(), arrays_of).fetchall())

    def close(self) -> None:
        """See `ReportStore.close`."""
        if self._open is not None:
            self._open.close()


def _arrays(columns: Sequence[str]) -> str:
    return ", ".join(f"%s::text::{_type(column)}[]" for column in columns)


def _type(column: str) -> str:
    return TYPES.get(column, "bigint")


def _literals(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Return each column as PostgreSQL writes an array: a tenth of psycopg's time."""
    return [
        f"{{{','.join(map(_WRITERS[_type(column)], values))}}}"
        for column, values in zip(columns, zip(*rows, strict=True), strict=True)
    ]


def _number(value: int | None) -> str:
    return "NULL" if value is None else str(value)


def _bytes(value: bytes) -> str:
    return f'"\\\\x{value.hex()}"'


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_WRITERS: dict[str, Callable[[Any], str]] = {
    "int": _number,
    "bigint": _number,
    "bytea": _bytes,
    "text": _text,
}


def _make(connection: psycopg.Connection) -> None:
    """Make the tables, if there are none yet.

    Raises:
        BrokenError: they are of another updaterd.
    """
    ((known,),) = connection.execute("SELECT to_regclass('reports_layout')").fetchall()
    if known is not None:
        # without the lock: who reads must not wait for who writes
        row = connection.execute("SELECT layout FROM reports_layout").fetchone()
        if row == (LAYOUT,):
            return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute(
            "CREATE TABLE IF NOT EXISTS reports_layout (layout INTEGER NOT NULL)"
        )
        row = connection.execute("SELECT layout FROM reports_layout").fetchone()
        if row is None:
            for statement in _DIALECT.tables():
                connection.execute(statement.encode())
            connection.execute("INSERT INTO reports_layout VALUES (%s)", (LAYOUT,))
        elif 0 < row[0] < LAYOUT:
            for step in _DIALECT.steps(row[0]):
                connection.execute(step.encode())
            connection.execute("UPDATE reports_layout SET layout = %s", (LAYOUT,))
        elif row[0] != LAYOUT:
            raise BrokenError(
                f"the store of reports has layout {row[0]}, this updaterd knows "
                f"{LAYOUT}",
                do="update the server, or give it another database",
                code="reports_unusable",
            )
