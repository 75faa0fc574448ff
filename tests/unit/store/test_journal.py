"""The journal keeps what it was told, and only moves as the table allows."""

import math
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from updaterd.core.lifecycle import State
from updaterd.store import schema
from updaterd.store.journal import Journal, Note, Release, RoleSeen
from updaterd.store.rebuild import open_or_rebuild
from updaterd.store.records import Records
from updaterd.store.schema import StateError, open_for_reading, open_state

OLD = Release("1.0.0", 1, "a" * 64)
NEW = Release("1.1.0", 2, "b" * 64)
NOTE = Note(100.0, "upgrade", "because", "boot-1")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture
def journal(path):
    connection = open_state(path)
    yield Journal(connection)
    connection.close()


def begin(journal):
    return journal.begin("acme", "stable", NEW, "manual", NOTE)


def test_deployment_remembers_where_it_came_from_and_each_step(journal):
    journal.record_installed("acme", OLD, b"{}", now=1.0)
    ident = begin(journal)
    journal.move(ident, State.PLANNED, Note(101.0, reason="read"), bytes_full=9)

    found = journal.open_deployment("acme")

    assert ("1.0.0", 1, State.PLANNED, 9) == (
        found.from_version, found.from_seq, found.state, found.bytes_full,
    )  # fmt: skip
    assert [(State.QUEUED, "because"), (State.PLANNED, "read")] == [
        (step.state, step.reason) for step in journal.transitions(ident)
    ]


def test_a_move_outside_the_table_is_refused_and_leaves_no_trace(journal):
    ident = begin(journal)

    with pytest.raises(ValueError, match="QUEUED -> INSTALLED"):
        journal.move(ident, State.INSTALLED, NOTE)

    assert State.QUEUED is journal.deployment(ident).state
    assert 1 == len(journal.transitions(ident))


def test_a_product_has_one_open_deployment(journal):
    begin(journal)
    with pytest.raises(sqlite3.IntegrityError):
        begin(journal)


def test_install_is_one_step_that_also_lifts_the_block(journal):
    journal.block("acme", NEW, replace(NOTE, code="unhealthy"))
    ident = begin(journal)
    for state in (State.PLANNED, State.FETCHING, State.STAGING):
        journal.move(ident, state, NOTE)
    journal.stage(ident, b"manifest", NEW.tree, NOTE)
    for state in (State.ACTIVATING, State.PROBATION):
        journal.move(ident, state, NOTE)

    journal.install(ident, NEW.tree, NOTE)

    assert ("1.1.0", 2) == (
        journal.installed("acme").version, journal.installed("acme").seq,
    )  # fmt: skip
    assert {} == journal.failed("acme")
    assert journal.open_deployment("acme") is None
    assert b"manifest" == journal.manifest_bytes("acme", "1.1.0")


def test_failures_of_one_release_add_up_and_another_seq_starts_anew(journal):
    ill = replace(NOTE, code="unhealthy")

    assert [1, 2, 3] == [journal.block("acme", NEW, ill) for _ in range(3)]
    assert 1 == journal.block("acme", Release("1.1.0", 3, ""), ill)


def test_fault_of_the_machine_blocks_no_release(journal):
    """No grant, no unit, no space: whoever reports it, the release stays wanted."""
    for code in ("disk_full", "restart_refused", "hook_failed"):
        journal.block("acme", NEW, replace(NOTE, code=code))

    assert {} == journal.failed("acme")


def test_each_channel_counts_on_its_own(journal):
    """An owner who changes channels must not look like the victim of a replay."""
    here = journal.follow("acme", ["root"])
    journal.raise_authority("acme", "stable", (1, 57), repository=here)

    assert (0, 0) == journal.authority("acme", "beta", repository=here)


def test_each_repository_counts_on_its_own_and_is_remembered(journal):
    """Another repository starts at one; on the way back nothing was forgotten."""
    ours = journal.follow("acme", ["our-1"])
    journal.raise_authority("acme", "stable", (3, 57), repository=ours)
    journal.raise_floor("acme", 40)

    theirs = journal.follow("acme", ["their-1", "their-2"])
    assert (0, 0) == journal.authority("acme", "stable", repository=theirs)
    assert 0 == journal.product("acme").seq_floor
    assert 40 == journal.floor("acme", repository=ours)
    journal.raise_authority("acme", "stable", (1, 2), repository=theirs)
    journal.raise_floor("acme", 1)

    assert ours == journal.follow("acme", ["our-1"])
    assert (3, 57) == journal.authority("acme", "stable", repository=ours)
    assert 40 == journal.product("acme").seq_floor
    assert theirs == journal.follow("acme", ["their-2"])
    assert 1 == journal.product("acme").seq_floor


def test_a_newer_root_of_the_same_repository_is_the_same_repository(journal):
    """Packages bring newer bootstrap roots: marks stay, as far as roots connect."""
    first = journal.follow("acme", ["root-1", "root-2"])

    assert first == journal.follow("acme", ["root-2", "root-3"])
    assert first == journal.repository(["root-3"])
    assert "root-9" == journal.repository(["root-9"])


def test_authority_of_the_first_layout_is_kept(tmp_path):
    connection = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    for statement in schema._MIGRATIONS[0].split(";"):
        connection.execute(statement)
    connection.execute("PRAGMA user_version = 1")
    connection.execute(
        "INSERT INTO product (name, root_version, pointer_version) "
        "VALUES ('acme', 2, 57)"
    )
    connection.execute(
        "INSERT INTO deployment (product, channel, version, seq, trigger, state, "
        "started_at, updated_at) VALUES ('acme', 'beta', '1', 1, 'event', 'FAILED', "
        "0, 0)"
    )
    connection.close()

    with closing(schema.open_state(tmp_path / "state.db")) as connection:
        journal = Journal(connection)
        assert (2, 57) == journal.authority("acme", "beta", repository="any")
        here = journal.follow("acme", ["root"])
        assert (2, 57) == journal.authority("acme", "beta", repository=here)
        assert (0, 0) == journal.authority("acme", "beta", repository="other")


def test_floor_authority_and_good_time_never_fall(journal):
    here = journal.follow("acme", ["root"])
    for seq in (5, 3):
        journal.raise_floor("acme", seq)
    for pair in ((1, 9), (2, 1), (1, 99)):
        journal.raise_authority("acme", "stable", pair, repository=here)
    for now in (10.0, 5.0):
        journal.set_last_good_time(now)

    facts = journal.product("acme")
    assert 5 == facts.seq_floor
    assert (2, 1) == journal.authority("acme", "stable", repository=here)
    assert 10.0 == journal.last_good_time()


def test_hold_without_end_and_its_end(journal):
    journal.hold("acme", reason="fair")
    assert (math.inf, "fair") == (
        journal.product("acme").hold_until, journal.product("acme").hold_reason,
    )  # fmt: skip
    journal.unhold("acme")
    assert journal.product("acme").hold_until is None


def test_reading_needs_no_right_to_write(journal, path):
    journal.set_roles([RoleSeen("root", 1, 5.0)])
    begin(journal)

    connection = open_for_reading(path)
    records = Records(connection)

    assert (RoleSeen("root", 1, 5.0),) == records.roles()
    assert "1.1.0" == records.history()[0].version
    assert 0 == records.failures("nobody")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        Journal(connection).raise_floor("acme", 1)
    connection.close()


def test_unknown_columns_are_refused_not_ignored(journal):
    with pytest.raises(ValueError, match="nonsense"):
        journal.remember("acme", nonsense=1)


def test_self_update_that_is_taken_back_finds_its_holds(path):
    """A newer layout that says it may be read by this updaterd is not set aside."""
    connection = open_state(path)
    Journal(connection).hold("acme")
    connection.execute("ALTER TABLE product ADD COLUMN of_the_future TEXT")
    connection.execute("PRAGMA user_version = 999")
    connection.close()

    connection, told = open_or_rebuild(path, now=7.0)

    assert "" == told
    assert Journal(connection).product("acme").hold_until is not None
    connection.close()
    connection = open_for_reading(path)
    assert connection is not None
    connection.close()


@pytest.mark.parametrize("damage", ["garbage", "newer", "torn"])
def test_unusable_database_is_set_aside_made_anew_and_told(path, damage):
    connection = open_state(path)
    Journal(connection).hold("acme")
    if damage == "newer":
        connection.execute("PRAGMA user_version = 999")
        connection.execute("UPDATE meta SET value = 999 WHERE name = 'readable_from'")
    connection.close()
    if damage == "garbage":
        path.write_bytes(b"not a database" * 1000)
    if damage == "torn":
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 4096 * 3)

    connection, told = open_or_rebuild(path, now=7.0)

    assert "set-aside-7" in told
    assert path.with_name("state.db.set-aside-7").exists()
    assert Journal(connection).product("acme").hold_until is None
    connection.close()
    connection, told = open_or_rebuild(path, now=8.0)
    assert "" == told
    connection.close()


@pytest.mark.parametrize(
    ("days", "is_told"), [(0.1, True), (6.9, True), (7.1, False), (-7.1, False)]
)
def test_loss_is_told_until_a_release_is_installed_a_week_later(path, days, is_told):
    """Long enough to be read, not for ever; a clock that was wrong changes nothing."""
    path.write_bytes(b"not a database" * 1000)
    began = 1_800_000_000.0
    connection, told = open_or_rebuild(path, now=began)
    journal = Journal(connection)
    ident = begin(journal)
    for state in (
        *(State.PLANNED, State.FETCHING, State.STAGING, State.STAGED),
        *(State.ACTIVATING, State.PROBATION),
    ):
        journal.move(ident, state, Note(began))
    assert told == journal.meta("set_aside")

    journal.install(ident, "t", Note(began + days * 86400.0))

    assert is_told == (journal.meta("set_aside") is not None)
    connection.close()


def test_database_without_rights_is_not_thrown_away(path):
    """What cannot be opened now may be fine: a person is asked, nothing is moved."""
    path.mkdir()

    with pytest.raises(StateError):
        open_or_rebuild(path, now=7.0)

    assert path.is_dir()
