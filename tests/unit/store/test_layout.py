# SPDX-License-Identifier: Apache-2.0
"""A database whose tables are not those of its version is noticed, and made anew."""

import sqlite3
from contextlib import closing

import pytest

from updaterd.store.journal import Journal, Release
from updaterd.store.rebuild import open_or_rebuild
from updaterd.store.schema import StateError, empty, open_state


def change(path, statement):
    open_state(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE installed RENAME COLUMN tree TO trees",
        "ALTER TABLE inbox DROP COLUMN digest",
        "DROP TABLE word",
        "ALTER TABLE meta ADD COLUMN more TEXT NOT NULL DEFAULT ''",
        "CREATE TRIGGER no BEFORE INSERT ON meta BEGIN SELECT raise(abort, 'x'); END",
    ],
)
def test_tables_that_a_failed_release_changed_are_set_aside(tmp_path, statement):
    """The daemon would crash at each start, with advice about disk space."""
    path = tmp_path / "state.db"
    change(path, statement)

    connection, told = open_or_rebuild(path, now=7)

    with closing(connection):
        Journal(connection).set_meta("a", "b")
        Journal(connection).record_installed("acme", Release("1", 1, "t"), "", now=1)
        Journal(connection).follow("acme", ["root"])
    harmless = "DEFAULT" in statement
    assert harmless == (told == "")
    assert harmless != (tmp_path / "state.db.set-aside-7").exists()


def test_column_that_must_be_filled_is_one_too_many(tmp_path):
    path = tmp_path / "state.db"
    change(path, "DROP TABLE claim")
    change(path, "CREATE TABLE claim (deployment, mine TEXT NOT NULL)")
    assert "claim" in open_or_rebuild(path, now=7)[1]


def test_whole_database_is_left_alone(tmp_path):
    open_state(tmp_path / "state.db").close()
    connection, told = open_or_rebuild(tmp_path / "state.db", now=7)
    connection.close()
    assert "" == told
    with closing(empty()) as fresh:
        assert fresh.execute("SELECT count(*) FROM word").fetchone()[0] >= 0


def test_advice_is_about_what_is_wrong(tmp_path):
    """A missing column is no full disk."""
    with pytest.raises(sqlite3.Error) as caught:
        sqlite3.connect(":memory:").execute("SELECT nothing FROM nowhere")
    assert "restart the daemon" in StateError(tmp_path / "state.db", caught.value).do
    full = sqlite3.OperationalError("database or disk is full")
    assert "free disk space" in StateError(tmp_path / "state.db", full).do
