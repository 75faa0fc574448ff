# SPDX-License-Identifier: Apache-2.0
"""The file of codes and enrolled machines: SQLite in the state directory, 0600.

WAL with `synchronous=FULL`: what was answered survives a power cut, and a reader, which
every request for a stream or with reports is, never waits for the disk.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from updaterd.errors import BrokenError
from updaterd.server.scopes import Token

FILE = "enrolment.db"
_LAYOUT = 1
_PATIENCE_S = 5.0
_MOST_KNOWN = 50_000

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS codes (
    sha256 TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS machines (
    id TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    code_sha256 TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created INTEGER NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = {_LAYOUT};
"""

MACHINES = "SELECT id, sha256, name, scopes, created FROM machines"
"""What `token_of` reads."""


class EnrolmentFile:
    """The file, for one thread that reads and any that write.

    Args:
        state: the directory; the file in it is made by `writing(make=True)`.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / FILE
        self._reader: sqlite3.Connection | None = None
        self._file: tuple[int, int] = (0, 0)
        self._version = -1
        self._known: dict[tuple[str, str], Token | None] = {}

    def exists(self) -> bool:
        """Tell whether a code was ever made."""
        return self._path.exists()

    def look(self, column: str, value: str) -> Token | None:
        """Return the enrolled machine that has this value; None: there is none.

        Raises:
            BrokenError: the file cannot be read.
        """
        try:
            db = self._reading()
            if db is None:
                return None
            ((version,),) = db.execute("PRAGMA data_version")
            if version != self._version or len(self._known) > _MOST_KNOWN:
                self._known, self._version = {}, version
            key = (column, value)
            if key not in self._known:
                row = db.execute(f"{MACHINES} WHERE {column} = ?", (value,)).fetchone()
                self._known[key] = None if row is None else token_of(row)
            return self._known[key]
        except (sqlite3.Error, OSError) as error:
            raise self._unreadable(error) from error

    def all(self, query: str) -> list[Any]:
        """Return the rows of a query.

        Raises:
            BrokenError: the file cannot be read.
        """
        try:
            db = self._reading()
            return [] if db is None else db.execute(query).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise self._unreadable(error) from error

    def _reading(self) -> sqlite3.Connection | None:
        """Return a connection to the file that stands there now; None: there is none.

        Raises:
            OSError: the directory cannot be read.
        """
        try:
            stat = os.stat(self._path)
        except FileNotFoundError:
            self.close()
            return None
        if self._reader is None or self._file != (stat.st_dev, stat.st_ino):
            self.close()
            self._reader = self._open()
            self._file = (stat.st_dev, stat.st_ino)
        return self._reader

    def close(self) -> None:
        """Close the file; it is opened again when it is asked."""
        self._known, self._version = {}, -1
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self._path, timeout=_PATIENCE_S, isolation_level=None,
            check_same_thread=False,
        )  # fmt: skip
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            _prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def writing(self, *, make: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction of its own, for any thread.

        Raises:
            BrokenError: the file cannot be written.
        """
        try:
            if make:
                self._create()
            with closing(self._open()) as db:
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise
        except (sqlite3.Error, OSError) as error:
            raise BrokenError(
                f"cannot write {self._path}: {error}",
                means="nothing was changed: no code was made, used or revoked",
                do="see to free space and permissions; if it is damaged, move it "
                "away, and enrol the machines anew",
                code="tokens_unwritable",
            ) from error

    def _create(self) -> None:
        """Make the file, for the server's user alone, also where root runs this.

        SQLite gives the files beside it to the same user.
        """
        with suppress(FileExistsError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, 0o600)
            try:
                if os.geteuid() == 0:
                    state = os.stat(self._path.parent)
                    os.fchown(descriptor, state.st_uid, state.st_gid)
            finally:
                os.close(descriptor)

    def _unreadable(self, why: object) -> BrokenError:
        return BrokenError(
            f"cannot use {self._path}: {why}",
            means="no machine that was enrolled here gets in",
            do="fix its permissions or the disk; if it is damaged, move it away, and "
            "enrol the machines anew",
            code="tokens_unreadable",
        )


def _prepare(db: sqlite3.Connection) -> None:
    """Make the tables where they are missing.

    Raises:
        DatabaseError: they are a newer updaterd's.

    Power cut: they are there, or the next opening makes them.
    """
    ((layout,),) = db.execute("PRAGMA user_version")
    if layout not in (0, _LAYOUT):
        raise sqlite3.DatabaseError(f"it has layout {layout}, of a newer updaterd")
    if layout == 0:
        db.executescript(_SCHEMA)


def token_of(row: Any) -> Token:
    """Return what a row of `machines` stands for."""
    ident, digest, name, scopes, created = row
    return Token(
        id=ident,
        name=name,
        sha256=digest,
        scopes=tuple(scopes.split()),
        created=created,
    )
