# SPDX-License-Identifier: Apache-2.0
"""The journal's copy from before a trial: kept, compared, put back. For the guard.

By what is in a database, not by the version that it claims: a release on trial may
have changed its tables without a word.
"""

import contextlib
import os
import sqlite3

SUFFIXES = ("-wal", "-shm", "")  # the database last: then it is all done


def keep(used, copy):
    """Copy the journal, whole or not at all, whoever has it open."""
    if not os.path.exists(used):
        return
    fresh = copy + ".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    with reading(used) as source, contextlib.closing(sqlite3.connect(fresh)) as target:
        source.backup(target)
    os.replace(fresh, copy)


def has_changed(used, copy):
    """Tell whether the tables are not those of the copy, or cannot be read."""
    if not os.path.exists(copy):
        return False
    before = shape(copy)
    try:
        return shape(used) != before
    except sqlite3.Error:
        return True


def shape(path):
    """Return what a release relies on: the version of the layout, and all of it."""
    if not os.path.exists(path):
        return None
    with reading(path) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        rows = database.execute("SELECT type, name, sql FROM sqlite_schema")
        return version, sorted((kind, name, sql or "") for kind, name, sql in rows)


def restore(used, copy, name):
    """Put the copy back; what stood there is kept as `NAME`, for whoever wants it.

    Power cut: the old one, or none, or the copy; repeating it ends it.
    """
    for suffix in SUFFIXES:
        if os.path.exists(used + suffix):
            os.replace(used + suffix, name + suffix)
    with reading(copy) as source, contextlib.closing(sqlite3.connect(used)) as target:
        source.backup(target)


def reading(path):
    """Open a database for one block."""
    return contextlib.closing(sqlite3.connect(path, timeout=10))
