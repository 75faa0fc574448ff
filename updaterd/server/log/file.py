# SPDX-License-Identifier: Apache-2.0
"""The file of the embedded log: opened for as much as the disk allows.

A server on a full disk must come up: subscribers and machines want what is there. So
nothing that only reads may need room. SQLite's shared index of a write-ahead log is a
file mapped into memory, which a full disk ends with SIGBUS; with the file to itself
(`locking_mode = EXCLUSIVE`) SQLite keeps the index in memory.
"""

import sqlite3
from pathlib import Path

from updaterd.errors import BrokenError
from updaterd.server.log.contract import LogDownError

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""SQLite's codes of a file that is not what it was."""

_REFUSED = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
}
_LAYOUT = 1
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE event (
    ms INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    name TEXT NOT NULL,
    product TEXT,
    channel TEXT,
    data BLOB NOT NULL,
    PRIMARY KEY (ms, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE newest (              -- of each topic, also when it was trimmed
    topic TEXT PRIMARY KEY,        -- PRODUCT/CHANNEL, '/' for everyone
    ms INTEGER NOT NULL,
    seq INTEGER NOT NULL
) STRICT;
CREATE TABLE used (                -- idempotency keys
    key TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    ms INTEGER NOT NULL,
    seq INTEGER NOT NULL
) STRICT;
CREATE INDEX used_age ON used (ms);
INSERT INTO meta VALUES ('epoch', lower(hex(randomblob(4)))), ('floor', '0-0');
PRAGMA user_version = 1;
"""


class LogFile:
    """The SQLite file of a log; used by one thread.

    Args:
        path: made when missing, with its directory's permissions.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._refusal = ""

    def open(self, *, writes: bool) -> sqlite3.Connection:
        """Return the connection, opened on first use.

        Args:
            writes: whether it is to be written to. Where the disk refused that, it is
                tried again.

        Raises:
            BrokenError: not a usable log.
            LogDownError: the file that was opened is no longer there, or it can only
                be read.

        Power cut: the tables are made in one transaction, or not at all.
        """
        if self._db is not None and self._identify() != self._identity:
            # what is written to a file without a name is gone with the process
            raise LogDownError(
                f"the event log {self._path} was moved or deleted",
                means="nothing can be announced",
                do="put it back, or restart the server: it begins with an empty "
                "log, and subscribers reconcile from signed metadata",
            )
        if self._db is None:
            self._db = self._connect()
            self._identity = self._identify()
        elif writes and self._refusal:
            self._reopen(self._db)
        if writes and self._refusal:
            raise LogDownError(
                f"the event log {self._path} can only be read: {self._refusal}",
                means="streams and files are served, nothing can be announced",
                do="free disk space, or look at its rights, then send it again",
            )
        return self._db

    def _reopen(self, db: sqlite3.Connection) -> None:
        """Try to write where the disk refused it before.

        Raises:
            LogDownError: the disk refuses more than before; what was open stays so.
        """
        try:
            self._db = self._connect()
        except BrokenError as error:
            # it was a log a moment ago: that ends no server and no stream
            raise LogDownError(
                error.cause, means="nothing can be announced", do=error.do
            ) from error
        db.close()

    def close(self) -> None:
        """Close it; harmless when it is not open."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _identify(self) -> tuple[int, int]:
        try:
            stat = self._path.stat()
        except OSError:
            return 0, 0
        return stat.st_dev, stat.st_ino

    def _connect(self) -> sqlite3.Connection:
        try:
            db = _checked(str(self._path))
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _REFUSED:
                raise self._unusable(error) from error
            self._refusal = str(error)
            return self._only_read(error)
        except _UnusableError as error:
            raise self._unusable(error) from error
        self._refusal = ""
        return db

    def _only_read(self, refusal: sqlite3.Error) -> sqlite3.Connection:
        """Open what is there without writing anything.

        Raises:
            BrokenError: there is nothing, or what was written last cannot be read so.
        """
        wal = self._path.with_name(f"{self._path.name}-wal")
        try:
            if self._path.stat().st_size == 0 or (
                wal.exists() and wal.stat().st_size > 0
            ):
                raise self._unusable(refusal) from refusal
            uri = f"{self._path.resolve().as_uri()}?mode=ro&immutable=1"
            return _checked(uri, uri=True)
        except (OSError, sqlite3.Error, _UnusableError) as error:
            raise self._unusable(error) from error

    def _unusable(self, why: object) -> BrokenError:
        return BrokenError(
            f"cannot use the event log {self._path}: {why}",
            means="nothing can be announced or replayed",
            do="free disk space or fix permissions; a damaged log may be moved "
            "away: subscribers then reconcile from signed metadata",
            code="log_unusable",
        )


class _UnusableError(Exception):
    """The file is no usable log."""


def _checked(address: str, *, uri: bool = False) -> sqlite3.Connection:
    """Open the file and check that it is an undamaged log.

    Raises:
        sqlite3.Error: the disk refused, or it is no database.
        _UnusableError: it is damaged, or of another layout.
    """
    db = sqlite3.connect(
        address, timeout=10, isolation_level=None, check_same_thread=False, uri=uri
    )
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        if not uri:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
        (layout,) = db.execute("PRAGMA user_version").fetchone()
        if layout == 0:
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        fault = _fault(db, layout or _LAYOUT)
    except BaseException:
        db.close()
        raise
    if fault:
        db.close()
        raise _UnusableError(fault)
    return db


def _fault(db: sqlite3.Connection, layout: int) -> str:
    if layout != _LAYOUT:
        return f"layout {layout}, a newer updaterd wrote it"
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    return "" if verdict == "ok" else f"it is damaged: {verdict.splitlines()[-1]}"
