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
from updaterd.server.reports.tables import LAYOUT, STEPS, Row, tables

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
            statements = tables("INTEGER PRIMARY KEY", "BLOB", " WITHOUT ROWID")
            self._db.executescript(
                f"BEGIN IMMEDIATE; {statements}; "
                f"PRAGMA user_version = {LAYOUT}; COMMIT;"
            )
        elif 0 < layout < LAYOUT:
            steps = "; ".join(step for n in range(layout, LAYOUT) for step in STEPS[n])
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
        key = ", ".join(keys)
        selected = f"{key}, {columns}" if columns else key
        row = f"({', '.join('?' * len(keys))})"
        for at in range(0, len(values), _AT_ONCE):
            part = values[at : at + _AT_ONCE]
            query = (
                f"SELECT {selected} FROM {table} "  # noqa: S608 - our own names
                f"WHERE ({key}) IN (VALUES {', '.join([row] * len(part))})"
            )
            yield from self._db.execute(
                query, [value for row_values in part for value in row_values]
            )

    def close(self) -> None:
        """See `ReportStore.close`."""
        self._db.close()
