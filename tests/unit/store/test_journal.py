# SPDX-License-Identifier: Apache-2.0
"""The journal keeps what it was told, and only moves as the table allows."""

import math
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from updaterd.core.lifecycle import State
from updaterd.core.words import Speakers, Word
from updaterd.store import schema, tables
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
    journal.record_installed("acme", OLD, "", now=1.0)
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
    journal.stage(ident, "ab" * 32, NEW.tree, NOTE)
    for state in (State.ACTIVATING, State.PROBATION):
        journal.move(ident, state, NOTE)

    journal.install(ident, NEW.tree, NOTE)

    assert ("1.1.0", 2) == (
        journal.installed("acme").version, journal.installed("acme").seq,
    )  # fmt: skip
    assert {} == journal.failed("acme")
    assert journal.open_deployment("acme") is None
    assert "ab" * 32 == journal.manifest_hash("acme", "1.1.0")
    assert (("acme", "1.1.0"),) == journal.keeping("ab" * 32)


def test_failures_of_one_release_add_up_and_another_seq_starts_anew(journal):
    ill = replace(NOTE, code="unhealthy")

    assert [1, 2, 3] == [journal.block("acme", NEW, ill) for _ in range(3)]
    assert 1 == journal.block("acme", Release("1.1.0", 3, ""), ill)


def test_fault_of_the_machine_blocks_no_release(journal):
    """No grant, no unit, no space: whoever reports it, the release stays wanted."""
    for code in ("disk_full", "restart_refused", "hook_failed"):
        journal.block("acme", NEW, replace(NOTE, code=code))

    assert {} == journal.failed("acme")


def said(role: str, version: int, *, root: int = 1, by: str = "k", **more) -> Word:
    return Word(
        role=role,
        root_version=root,
        version=version,
        keys=frozenset(by.split()),
        **more,
    )


def hear(journal, here, *words, product="acme", root=1, trusted="k"):
    """Hear these words where `trusted` may speak for every role."""
    speakers = Speakers(keys=frozenset(trusted.split()), threshold=1)
    roles = ("timestamp", "acme.stable", "acme.beta", "acme.releases")
    journal.hear(
        product, words, dict.fromkeys(roles, speakers),
        repository=here, root_version=root,
    )  # fmt: skip


def places(journal, here, product="acme") -> dict[str, tuple[int, int]]:
    return {w.role: w.place for w in journal.words(product, repository=here)}


def test_each_channel_counts_on_its_own(journal):
    """An owner who changes channels must not look like the victim of a replay."""
    here = journal.follow("acme", ["root"])
    hear(journal, here, said("acme.stable", 57))

    assert {"acme.stable": (1, 57)} == places(journal, here)


def test_each_repository_counts_on_its_own_and_is_remembered(journal):
    """Another repository starts at one; on the way back nothing was forgotten."""
    ours = journal.follow("acme", ["our-1"])
    hear(journal, ours, said("acme.stable", 57, root=3, floor=40), root=3)

    theirs = journal.follow("acme", ["their-1", "their-2"])
    assert {} == places(journal, theirs)
    assert 0 == journal.floor("acme")
    hear(journal, theirs, said("acme.stable", 2, floor=1, by="t"), trusted="t")

    assert ours == journal.follow("acme", ["our-1"])
    assert {"acme.stable": (3, 57)} == places(journal, ours)
    assert 40 == journal.floor("acme")
    assert theirs == journal.follow("acme", ["their-2"])
    assert 1 == journal.floor("acme")


def test_a_newer_root_of_the_same_repository_is_the_same_repository(journal):
    """Packages bring newer bootstrap roots: marks stay, as far as roots connect."""
    first = journal.follow("acme", ["root-1", "root-2"])

    assert first == journal.follow("acme", ["root-2", "root-3"])
    assert first == journal.repository(["root-3"])
    assert "root-9" == journal.repository(["root-9"])


def older(path, layout: int) -> sqlite3.Connection:
    """Make a database as an updaterd with that layout left it."""
    connection = sqlite3.connect(path, isolation_level=None)
    for step in tables.STEPS[:layout]:
        for statement in step.split(";"):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {layout}")
    return connection


def test_authority_of_the_first_layout_is_kept(tmp_path):
    """It counts in the repository followed first, until that has a newer root."""
    connection = older(tmp_path / "state.db", 1)
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
        assert {"acme.beta": (2, 57)} == places(journal, "")
        here = journal.follow("acme", ["root"])
        hear(journal, here, root=2)
        assert {"acme.beta": (2, 57)} == places(journal, here)
        assert {} == places(journal, "other")
        hear(journal, here, root=3)
        assert {} == places(journal, here)


def test_numbers_of_an_older_layout_are_kept_and_bound(tmp_path):
    """Nobody noted who said them: floor at most what runs, all until the next root."""
    connection = older(tmp_path / "state.db", 3)
    connection.execute(
        "INSERT INTO product (name, seq_floor, repository) VALUES ('acme', ?, 'r')",
        (2**53 - 1,),
    )
    connection.execute("INSERT INTO installed VALUES ('acme', '1.0.0', 7, 't', 0)")
    connection.execute("INSERT INTO mark VALUES ('r', 'acme', 'stable', 1, 9)")
    connection.execute("INSERT INTO floor VALUES ('old', 'acme', 3)")
    connection.execute("INSERT INTO meta VALUES ('last_good_time', '9e9')")
    connection.close()

    with closing(schema.open_state(tmp_path / "state.db")) as connection:
        journal = Journal(connection)
        assert 7 == journal.floor("acme")
        assert 0.0 == journal.last_good_time()  # the machine's own clock had said it
        assert (1, 9) == places(journal, "r")["acme.stable"]
        assert (1, 1) == places(journal, "r")["root"]
        assert 3 == max(word.floor for word in journal.words("acme", repository="old"))
        hear(journal, "r", root=1)
        assert 7 == journal.floor("acme")
        hear(journal, "r", root=2)
        assert 0 == journal.floor("acme")


def test_words_of_the_same_keys_never_fall(journal):
    here = journal.follow("acme", ["root"])
    for seq in (5, 3):
        hear(journal, here, said("acme.releases", 1, floor=seq))
    for root, version in ((1, 9), (2, 1), (1, 99)):
        hear(journal, here, said("acme.stable", version, root=root))

    assert 5 == journal.floor("acme")
    assert (2, 1) == places(journal, here)["acme.stable"]


def test_the_newest_timestamp_says_the_time(journal):
    """Not the latest: a publisher whose clock was ahead puts it right by signing."""
    here = journal.follow("acme", ["root"])
    hear(journal, here, said("timestamp", 5, time=500.0))
    hear(journal, here, said("timestamp", 4, time=900.0))  # a replay
    assert 500.0 == journal.last_good_time()
    hear(journal, here, said("timestamp", 6, time=400.0))
    assert 400.0 == journal.last_good_time()


def test_what_a_key_said_goes_with_the_key(journal):
    """Floors, versions and times of a key that may not speak any more."""
    here = journal.follow("acme", ["root"])
    worst = 2**53 - 1
    hear(
        journal,
        here,
        said("acme.stable", worst, floor=worst),
        said("acme.releases", worst, floor=worst),
        said("timestamp", worst, time=9e9),
    )
    hear(journal, here, said("acme.stable", 3, root=2, by="n"), root=2, trusted="n")

    assert 0 == journal.floor("acme")
    assert 0.0 == journal.last_good_time()
    assert {"acme.stable": (2, 3)} == places(journal, here)


def test_the_floor_counts_in_the_transaction_that_installs(journal):
    """Also where the run that began it is dead: the deployment carries it."""
    journal.follow("acme", ["root"])
    ident = begin(journal)
    journal.claim(ident, said("acme.releases", 4, floor=2))
    for state in (State.PLANNED, State.FETCHING, State.STAGING):
        journal.move(ident, state, NOTE)
    journal.stage(ident, "ab" * 32, NEW.tree, NOTE)
    for state in (State.ACTIVATING, State.PROBATION):
        journal.move(ident, state, NOTE)
    assert 0 == journal.floor("acme")
    journal.install(ident, NEW.tree, NOTE)
    assert 2 == journal.floor("acme")


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
        Journal(connection).unhold("acme")
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


def test_a_manifest_that_an_older_updaterd_kept_is_read_in_pieces(journal, path):
    """In the journal itself, until its release is recorded anew."""
    manifest = bytes(range(256)) * 3000
    with closing(sqlite3.connect(path)) as older, older:
        older.execute(
            "INSERT INTO release (product, version, seq, tree, manifest) "
            "VALUES ('acme', '9', 9, 't', ?)",
            (manifest,),
        )
    assert not journal.manifest_hash("acme", "9")
    read, length = journal.manifest_source("acme", "9")
    assert len(manifest) == length
    assert manifest == read(0, 10**7)
    assert manifest[7:107] == read(7, 100)
    assert b"" == read(length, 5) == read(length + 9, 5)
    journal.remember_release("acme", Release("9", 9, "t"), "ab" * 32)
    assert journal.manifest_source("acme", "9") is None
    assert "ab" * 32 == journal.manifest_hash("acme", "9")
    assert journal.manifest_source("acme", "none") is None
