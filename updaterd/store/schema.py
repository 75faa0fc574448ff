# SPDX-License-Identifier: Apache-2.0
"""How `state.db` is opened, and its layout brought up to date.

One file holds the feed cursor, the inbox, the journal of deployments and what is
installed. WAL with `synchronous=FULL`: a commit that returned survives a power cut
(sqlite.org/pragma.html#pragma_synchronous), and readers never block the writer.

The version of the layout is SQLite's `user_version`; each entry of `tables.STEPS`
takes it one step up, inside one transaction.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from updaterd.errors import BrokenError
from updaterd.files import places
from updaterd.store.tables import READABLE_FROM, STEPS

_BUSY_S = 10.0
_LOG_PAGES = 256  # 1 MiB of write-ahead log, not 4: it is as long as the disk has it

_OLDEST = "readable_from"

_BLAMELESS_DISK = frozenset({
    sqlite3.SQLITE_ERROR,  # no such table, no such column
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_SCHEMA,
})


class StateError(BrokenError):
    """The state database cannot be used; what is installed is not affected."""

    code = "state_unusable"

    def __init__(self, path: Path, error: object) -> None:
        super().__init__(
            f"cannot use the state database {path}: {error}",
            means="installed applications are untouched; updates wait",
            do=_advice(path, error),
        )


def _advice(path: Path, error: object) -> str:
    """Return what a person can do about a database that cannot be used."""
    if path.parent.is_dir() and _is_read_only(path):
        return "mount its file system writable, and look for why it is not (dmesg)"
    if not path.parent.is_dir() and os.geteuid() == 0:
        return f"look for why {path.parent} cannot be made: `findmnt -T`, `lsattr -d`"
    if not os.access(path.parent, os.R_OK | os.W_OK | os.X_OK):
        return "run this as root, or as the user that the daemon runs as"
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_FULL) & 0xFF
    if isinstance(error, sqlite3.Error) and code in _BLAMELESS_DISK:
        return (
            "restart the daemon: it sets aside a file whose tables are not what they "
            "should be, and makes it anew from what is installed"
        )
    return (
        "free disk space or fix permissions; if the file is damaged, move it away: "
        "updaterd rebuilds it from the disk"
    )


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)


def open_state(path: Path) -> sqlite3.Connection:
    """Open (or make) `state.db` and bring its layout up to date.

    The connection is in autocommit mode: a writer says `BEGIN IMMEDIATE` itself,
    or uses `transaction`.

    Raises:
        StateError: not a database, damaged, from a newer updaterd, or unreadable.

    Power cut: the file is as before the last commit that did not return.
    """
    try:
        places.make(path.parent)
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise StateError(path, error) from error
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise StateError(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def empty() -> sqlite3.Connection:
    """Return an empty database of the newest layout, in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for step in STEPS:
        connection.executescript(step)
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection | None:
    """Open `state.db` without the right to change it; None when there is none yet.

    Raises:
        StateError: not a database, damaged, or unreadable.
    """
    if not path.exists():
        return None
    try:
        connection = _connect_to_read(path)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == len(STEPS) or _is_readable(connection, version):
            return connection
    except sqlite3.Error as error:
        raise StateError(path, error) from error
    connection.close()
    if version == 0:
        return None  # just being made
    raise StateError(
        path,
        f"it has layout {version}, this updaterd reads {len(STEPS)}; "
        "restarting the daemon brings an older one up to date",
    )


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Connect without the right to change anything.

    SQLite needs files beside a database in WAL mode. Where a disk error has made the
    file system read-only and nobody has it open, there are none: a copy is read.

    Raises:
        sqlite3.OperationalError: it cannot be read.
        OSError: it cannot be copied.
    """
    connection = sqlite3.connect(
        f"file:{path}?mode=ro", uri=True, timeout=_BUSY_S, isolation_level=None
    )
    try:
        connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        if not _is_read_only(path):
            raise
        connection = _copy(path)
    connection.row_factory = sqlite3.Row
    return connection


def _copy(path: Path) -> sqlite3.Connection:
    """Return what is in the database, in memory."""
    import shutil  # noqa: PLC0415 - only on a machine in trouble
    import tempfile  # noqa: PLC0415 - as above

    memory = sqlite3.connect(":memory:", isolation_level=None)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):  # what a crash left in there counts
            part = path.with_name(path.name + suffix)
            if part.exists():
                shutil.copy(part, folder)
        with closing(sqlite3.connect(Path(folder) / path.name)) as copied:
            copied.backup(memory)
    return memory


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Make the statements of the block one durable step.

    Raises:
        sqlite3.Error: the disk refused; nothing of the block was kept.

    Power cut: all of the block or nothing of it.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite rolls back by itself when it must
            connection.execute("ROLLBACK")
        raise


def _is_readable(connection: sqlite3.Connection, version: int) -> bool:
    """Tell whether a newer layout says that this updaterd may use it all the same.

    So that a self-update that is taken back finds its holds, blocks and history.
    """
    if version <= len(STEPS):
        return False
    row = connection.execute(
        "SELECT value FROM meta WHERE name = ?", (_OLDEST,)
    ).fetchone()
    return row is not None and int(row[0]) <= len(STEPS)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == len(STEPS) or _is_readable(connection, version):
        return
    if version > len(STEPS):
        raise StateError(
            path,
            f"it has layout {version}, this updaterd knows {len(STEPS)}: "
            "a newer one wrote it",
        )
    # All steps at once: a reader sees the layout as it was or as it is, none between.
    connection.execute("BEGIN IMMEDIATE")
    try:
        # another process may have migrated while this one waited for the lock
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for step in STEPS[version:]:
            for statement in step.split(";"):
                connection.execute(statement)
        connection.execute(
            "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)",
            (_OLDEST, str(READABLE_FROM)),
        )
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk ends it, and says so
            connection.execute("ROLLBACK")
        raise
