# SPDX-License-Identifier: Apache-2.0
"""The embedded store of reports: one SQLite file, one process. The default.

WAL with `synchronous=FULL`: what `add` returned for survives a power cut. A commit
costs a sync of the disk, so `ingest` puts many requests into one.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from updaterd.errors import BrokenError
from updaterd.server.reports.contract import Keeping, StoreDownError
from updaterd.server.reports.counting import CountingStore
from updaterd.server.reports.tables import LAYOUT, Dialect, Row

_DIALECT = Dialect("INTEGER PRIMARY KEY", "BLOB", " WITHOUT ROWID")
_AT_ONCE = 400  # keys in one query; SQLite takes 32,766 values


class SqliteReports(CountingStore):
    """See `ReportStore`.

    Args:
        path: the file; made when missing, with its directory's permissions.
        keeping: how long what is kept.

    Raises:
        BrokenError: not a usable store.
    """

    def __init__(self, path: Path, *, keeping: Keeping) -> None:
        super().__init__(keeping)
        self.path = path
        try:
            self._db = sqlite3.connect(
                path, timeout=10, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA cache_size = -65536")
            self._make()
        except sqlite3.Error as error:
            raise BrokenError(
                f"cannot use the store of reports {path}: {error}",
                means="no report is taken",
                do="free disk space or fix permissions; a damaged one may be moved "
                "away: counting then begins anew",
                code="reports_unusable",
            ) from error

    def _make(self) -> None:
        (layout,) = self._db.execute("PRAGMA user_version").fetchone()
        if layout == 0:
            self._db.executescript(
                f"BEGIN IMMEDIATE; {'; '.join(_DIALECT.tables())}; "
                f"PRAGMA user_version = {LAYOUT}; COMMIT;"
            )
        elif 0 < layout < LAYOUT:
            steps = "; ".join(_DIALECT.steps(layout))
            self._db.executescript(
                f"BEGIN IMMEDIATE; {steps}; PRAGMA user_version = {LAYOUT}; COMMIT;"
            )
        elif layout != LAYOUT:
            raise BrokenError(
                f"the store of reports {self.path} has layout {layout}, this updaterd "
                f"knows {LAYOUT}",
                do="update the server, or move the file away: counting begins anew",
                code="reports_unusable",
            )

    @contextmanager
    def _change(self) -> Iterator[None]:
        """See `CountingStore._change`.

        Raises:
            StoreDownError: the disk refused.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._forget()
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StoreDownError(
                f"the store of reports {self.path} failed: {error}",
                means="machines keep their reports and send them again",
                do="free disk space, or look at its rights",
            ) from error

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """See `CountingStore.rows`.

        Raises:
            StoreDownError: the disk refused.
        """
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise StoreDownError(
                f"the store of reports {self.path} failed: {error}",
                do="look at the disk",
            ) from error

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """See `CountingStore.run`."""
        return self._db.execute(sql, values).rowcount

    def put(
        self, table: str, columns: Sequence[str], rows: Sequence[Row], clause: str
    ) -> None:
        """See `CountingStore.put`."""
        holes = ", ".join("?" * len(columns))
        self._db.executemany(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({holes}) {clause}",  # noqa: S608 - our own names
            rows,
        )

    def pick(
        self, table: str, columns: str, keys: Sequence[str], values: Sequence[Row]
    ) -> Iterable[Row]:
        """See `CountingStore.pick`."""
        for at in range(0, len(values), _AT_ONCE):
            part = values[at : at + _AT_ONCE]
            yield from self._db.execute(
                picking(table, columns, keys, len(part)),
                [value for row_values in part for value in row_values],
            )

    def close(self) -> None:
        """See `ReportStore.close`."""
        self._db.close()


def picking(table: str, columns: str, keys: Sequence[str], count: int) -> str:
    """Return the query for so many rows, each by its key; see `CountingStore.pick`.

    CROSS JOIN, so that SQLite looks each key up. Of `(a, b) IN (VALUES ...)` it makes a
    list, and goes through the whole table: each commit would cost as much as the fleet
    is large.
    """
    selected = ", ".join(f"{table}.{name}" for name in keys)
    selected += f", {columns}" if columns else ""
    row = f"({', '.join('?' * len(keys))})"
    match = " AND ".join(
        f"{table}.{name} = wanted.column{n}" for n, name in enumerate(keys, 1)
    )
    return (
        f"SELECT {selected} FROM (VALUES {', '.join([row] * count)}) AS wanted "  # noqa: S608 - our own names
        f"CROSS JOIN {table} ON {match}"
    )
