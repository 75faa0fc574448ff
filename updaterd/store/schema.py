# SPDX-License-Identifier: Apache-2.0
"""The tables of `state.db` and how they are opened.

One file holds the feed cursor, the inbox, the journal of deployments and what is
installed. WAL with `synchronous=FULL`: a commit that returned survives a power cut
(sqlite.org/pragma.html#pragma_synchronous), and readers never block the writer.

The version of the layout is SQLite's `user_version`; each entry of `_MIGRATIONS`
takes it one step up, inside one transaction.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from updaterd import places
from updaterd.errors import BrokenError

_BUSY_S = 10.0
_LOG_PAGES = 256  # 1 MiB of write-ahead log, not 4: it is as long as the disk has it

_MIGRATIONS = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

    -- feed: the subscription
    CREATE TABLE cursor (
        feed TEXT PRIMARY KEY,
        last_event_id TEXT NOT NULL,
        updated_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE inbox (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        feed TEXT NOT NULL,
        event_id TEXT,               -- NULL: the feed gave none, so no deduplication
        event TEXT NOT NULL,
        product TEXT,                -- NULL: every configured product
        channel TEXT,
        urgency TEXT NOT NULL DEFAULT 'normal',
        version TEXT,                -- the event's own word: for people, never believed
        spread_s INTEGER NOT NULL DEFAULT 0, -- over how long the fleet should come
        data TEXT NOT NULL,          -- its beginning, for people
        received_at REAL NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('pending', 'done', 'quarantined')),
        reason TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE UNIQUE INDEX inbox_once ON inbox (feed, event_id)
        WHERE event_id IS NOT NULL;
    CREATE INDEX inbox_state ON inbox (state, row);
    CREATE TABLE inbox_mark (                -- up to where each product is done
        product TEXT PRIMARY KEY,
        row INTEGER NOT NULL
    ) STRICT;

    -- journal: deployments and their ends
    CREATE TABLE deployment (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        product TEXT NOT NULL,
        channel TEXT NOT NULL,
        version TEXT NOT NULL,
        seq INTEGER NOT NULL,
        from_version TEXT,           -- NULL: first install
        from_seq INTEGER,
        trigger TEXT NOT NULL,       -- event, poll, boot, manual, rollback
        state TEXT NOT NULL,
        code TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT '',
        path TEXT NOT NULL DEFAULT '',       -- JSON: which bundles, for people
        bytes_planned INTEGER NOT NULL DEFAULT 0,
        bytes_fetched INTEGER NOT NULL DEFAULT 0,
        bytes_full INTEGER NOT NULL DEFAULT 0,
        boot TEXT NOT NULL DEFAULT '',       -- boot id of the last transition
        started_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        ended_at REAL
    ) STRICT;
    CREATE INDEX deployment_product ON deployment (product, id);
    CREATE UNIQUE INDEX deployment_one_open ON deployment (product)
        WHERE ended_at IS NULL;
    CREATE TABLE transition (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        deployment INTEGER NOT NULL REFERENCES deployment (id),
        state TEXT NOT NULL,
        at REAL NOT NULL,
        code TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE TABLE installed (
        product TEXT PRIMARY KEY,
        version TEXT NOT NULL,
        seq INTEGER NOT NULL,
        tree TEXT NOT NULL,
        installed_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE release (                   -- releases on this machine's disk
        product TEXT NOT NULL,
        version TEXT NOT NULL,
        seq INTEGER NOT NULL,
        tree TEXT NOT NULL,
        manifest BLOB NOT NULL,
        PRIMARY KEY (product, version)
    ) STRICT;
    CREATE TABLE blocked (
        product TEXT NOT NULL,
        version TEXT NOT NULL,
        seq INTEGER NOT NULL,
        code TEXT NOT NULL,
        reason TEXT NOT NULL,
        failures INTEGER NOT NULL,
        blocked_at REAL NOT NULL,
        PRIMARY KEY (product, version)
    ) STRICT;
    CREATE TABLE product (                   -- what is remembered about each product
        name TEXT PRIMARY KEY,
        seq_floor INTEGER NOT NULL DEFAULT 0,
        root_version INTEGER NOT NULL DEFAULT 0,     -- with pointer_version: the newest
        pointer_version INTEGER NOT NULL DEFAULT 0,  -- signed word seen, ever
        hold_until REAL,                     -- NULL: no hold, 9e999: no end date
        hold_reason TEXT NOT NULL DEFAULT '',
        target_version TEXT,                 -- last known, for `status`
        target_seq INTEGER,
        decision TEXT NOT NULL DEFAULT '',   -- code of the planner's last decision
        decision_reason TEXT NOT NULL DEFAULT '',
        checked_at REAL,
        first_seen_at REAL,                  -- of the current target: max_deferral
        failures INTEGER NOT NULL DEFAULT 0,
        next_attempt_at REAL,
        last_error_code TEXT NOT NULL DEFAULT '',
        last_error TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE TABLE role (                      -- trust, as last seen, for `status`
        name TEXT PRIMARY KEY,
        version INTEGER NOT NULL,
        expires_at REAL NOT NULL
    ) STRICT;
    """,
    # Each channel is signed by a role of its own, whose versions count on their own:
    # an owner who changes channels must not look like the victim of a replay.
    """
    CREATE TABLE authority (                 -- the newest signed word seen, ever
        product TEXT NOT NULL,
        channel TEXT NOT NULL,
        root_version INTEGER NOT NULL,
        pointer_version INTEGER NOT NULL,
        PRIMARY KEY (product, channel)
    ) STRICT;
    INSERT INTO authority
        SELECT name, channel, root_version, pointer_version
        FROM product JOIN deployment ON deployment.id = (
            SELECT max(id) FROM deployment WHERE product = name
        );
    ALTER TABLE product DROP COLUMN root_version;
    ALTER TABLE product DROP COLUMN pointer_version;
    """,
    # Versions and seq count in one repository: a machine that is given another one's
    # root must not look like the victim of a replay (docs/decisions/0011). The table
    # `authority` and `product.seq_floor` stay what older updaterd read.
    """
    CREATE TABLE lineage (                   -- roots that lead to each other
        root TEXT PRIMARY KEY,               -- sha256 of what is signed of it
        repository TEXT NOT NULL             -- the first of them that was seen
    ) STRICT;
    CREATE TABLE mark (                      -- the newest signed word seen, ever
        repository TEXT NOT NULL,
        product TEXT NOT NULL,
        channel TEXT NOT NULL,
        root_version INTEGER NOT NULL,
        pointer_version INTEGER NOT NULL,
        PRIMARY KEY (repository, product, channel)
    ) STRICT;
    CREATE TABLE floor (                     -- of repositories left for another one
        repository TEXT NOT NULL,
        product TEXT NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (repository, product)
    ) STRICT;
    ALTER TABLE product ADD COLUMN repository TEXT NOT NULL DEFAULT '';
    """,
    # A feed may use an id again for another event: what it said tells them apart.
    """
    ALTER TABLE inbox ADD COLUMN digest TEXT NOT NULL DEFAULT '';
    """,
    # Numbers that only grow, each with who said it: what a stolen key said goes with
    # the key (docs/decisions/0019). `mark`, `floor`, `product.seq_floor` and
    # `last_good_time` stay what older updaterd read. Of those it is not known who said
    # them: versions and floors end with the root they were heard under, the floor is
    # at most what is installed, the time was the machine's own and is dropped.
    """
    CREATE TABLE word (
        repository TEXT NOT NULL,
        product TEXT NOT NULL,               -- '': said of the whole repository
        role TEXT NOT NULL,
        keys TEXT NOT NULL,                  -- ids of those who signed, '': not known
        root_version INTEGER NOT NULL,
        version INTEGER NOT NULL,
        floor INTEGER NOT NULL,
        time REAL NOT NULL,
        PRIMARY KEY (repository, product, role, keys)
    ) STRICT;
    CREATE TABLE claim (                     -- what a release says once installed
        deployment INTEGER PRIMARY KEY REFERENCES deployment (id),
        repository TEXT NOT NULL,
        role TEXT NOT NULL,
        keys TEXT NOT NULL,
        root_version INTEGER NOT NULL,
        version INTEGER NOT NULL,
        floor INTEGER NOT NULL
    ) STRICT;
    INSERT INTO word
        SELECT repository, product, product || '.' || channel, '',
               root_version, pointer_version, 0, 0.0 FROM mark;
    INSERT OR IGNORE INTO word
        SELECT '', product, product || '.' || channel, '',
               root_version, pointer_version, 0, 0.0
        FROM authority JOIN product ON name = product WHERE repository = '';
    INSERT INTO word
        SELECT repository, '', 'root', '', max(root_version), max(root_version), 0, 0.0
        FROM mark GROUP BY repository;
    INSERT INTO word
        SELECT repository, name, name || '.releases', '',
               coalesce((SELECT max(root_version) FROM mark
                         WHERE mark.repository = product.repository), 0),
               0, min(seq_floor, seq), 0.0
        FROM product JOIN installed ON installed.product = name WHERE seq_floor > 0;
    INSERT OR IGNORE INTO word
        SELECT repository, product, product || '.releases', '',
               coalesce((SELECT max(root_version) FROM mark
                         WHERE mark.repository = floor.repository), 0),
               0, seq, 0.0
        FROM floor;
    """,
    # Waits are counted from the first pending update, and an announcement is one of a
    # release that failed only if it came later (docs/decisions/0023).
    """
    ALTER TABLE product ADD COLUMN pending_since REAL;
    ALTER TABLE product ADD COLUMN looked_up_to INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE blocked ADD COLUMN announced_at REAL;
    ALTER TABLE deployment ADD COLUMN bytes_cached INTEGER NOT NULL DEFAULT 0;
    UPDATE product SET pending_since = first_seen_at
        WHERE decision IN ('outside_window', 'splay', 'held');
    """,
)


_OLDEST = "readable_from"
_READABLE_FROM = 2
"""Oldest layout whose updaterd can work with the newest: to be raised only with a
step that changes or drops what older ones use. Adding tables or columns does not."""


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
    for step in _MIGRATIONS:
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
        if version == len(_MIGRATIONS) or _is_readable(connection, version):
            return connection
    except sqlite3.Error as error:
        raise StateError(path, error) from error
    connection.close()
    if version == 0:
        return None  # just being made
    raise StateError(
        path,
        f"it has layout {version}, this updaterd reads {len(_MIGRATIONS)}; "
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
    if version <= len(_MIGRATIONS):
        return False
    row = connection.execute(
        "SELECT value FROM meta WHERE name = ?", (_OLDEST,)
    ).fetchone()
    return row is not None and int(row[0]) <= len(_MIGRATIONS)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == len(_MIGRATIONS) or _is_readable(connection, version):
        return
    if version > len(_MIGRATIONS):
        raise StateError(
            path,
            f"it has layout {version}, this updaterd knows {len(_MIGRATIONS)}: "
            "a newer one wrote it",
        )
    # All steps at once: a reader sees the layout as it was or as it is, none between.
    connection.execute("BEGIN IMMEDIATE")
    try:
        # another process may have migrated while this one waited for the lock
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for step in _MIGRATIONS[version:]:
            for statement in step.split(";"):
                connection.execute(statement)
        connection.execute(
            "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)",
            (_OLDEST, str(_READABLE_FROM)),
        )
        connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk ends it, and says so
            connection.execute("ROLLBACK")
        raise
