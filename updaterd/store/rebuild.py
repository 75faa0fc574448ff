# SPDX-License-Identifier: Apache-2.0
"""Set aside a state database that cannot be used, and make it anew from the disk.

Damaged, of a layout that is too new, or with tables that are not those of its layout:
a release of updaterd that failed may have left them.

What is installed stands on the disk, with its signed listing beside it; the journal
is made again from there by the next run (`core/recovery`: RECORD). Lost are the
history, holds, what failed here, and the place in the feed (it answers with a
resync). The old file is kept for whoever wants to know.
"""

import sqlite3
from pathlib import Path

from updaterd import durable
from updaterd.store import layout
from updaterd.store.schema import StateError, empty, open_state, transaction

NOTE = "set_aside"
"""Name in `meta` of what happened, for `status`; `Journal.install` ends it."""
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA}


def open_or_rebuild(path: Path, *, now: float) -> tuple[sqlite3.Connection, str]:
    """Open `state.db`; one that is damaged, too new or altered is set aside first.

    Not while another process has it open: the daemon calls this when it starts, a
    worker only when no daemon runs.

    Args:
        path: the database.
        now: Unix seconds; part of the name under which the old file is kept.

    Returns:
        The connection, and what a person should know, if anything.

    Raises:
        StateError: it cannot be used for another reason (full disk, permissions).
        OSError: the disk refused to set it aside.

    Power cut: the old file has its old name or the new one; nothing is deleted.
    """
    try:
        connection = open_state(path)
    except StateError as error:
        if not _hopeless(error):
            raise
        return _start_anew(path, str(error.cause), now)
    problem = _damage(connection)
    if not problem:
        return connection, ""
    connection.close()
    return _start_anew(path, problem, now)


def _hopeless(error: StateError) -> bool:
    """Tell a damaged or newer file from a full disk or missing rights."""
    cause = error.__cause__
    if isinstance(cause, sqlite3.Error):
        return (getattr(cause, "sqlite_errorcode", 0) & 0xFF) in _DAMAGED
    return cause is None


def _damage(connection: sqlite3.Connection) -> str:
    try:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        return str(error)
    if verdict != "ok":
        return str(verdict)
    try:
        return layout.oddity(connection, empty())
    except sqlite3.DatabaseError as error:
        return str(error)


def _start_anew(path: Path, why: str, now: float) -> tuple[sqlite3.Connection, str]:
    aside = path.with_name(f"{path.name}.set-aside-{int(now)}")
    for suffix in ("-wal", "-shm", ""):  # the database last: then it is all done
        part = path.with_name(path.name + suffix)
        if part.exists():
            durable.rename(part, aside.with_name(aside.name + suffix))
    remark = (
        f"the state database could not be used ({why}); it was kept as {aside} and "
        "made anew from what is installed: history, holds and blocked releases are "
        "forgotten"
    )
    connection = open_state(path)
    _note(connection, remark, now)
    return connection, remark


def note_loss(connection: sqlite3.Connection, *, now: float) -> str:
    """Remember that the database was taken away while the daemon had it open.

    Args:
        connection: to what stands there now.
        now: Unix seconds.

    Returns:
        What a person should know.

    Power cut: the remark is there or it is not.
    """
    remark = (
        "the state database was removed or replaced while the daemon ran; what stands "
        "there now counts, and what is installed was read from the disk: history, "
        "holds and blocked releases that it does not have are forgotten"
    )
    _note(connection, remark, now)
    return remark


def _note(connection: sqlite3.Connection, remark: str, now: float) -> None:
    with transaction(connection):
        connection.executemany(
            "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)",
            [(NOTE, remark), (f"{NOTE}_at", now)],
        )
