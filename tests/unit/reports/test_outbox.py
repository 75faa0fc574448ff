# SPDX-License-Identifier: Apache-2.0
"""A report is made with the end of its deployment, is bounded, and says no name."""

import json
import sqlite3
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core import report
from updaterd.core.lifecycle import State
from updaterd.core.report import Moment, elapsed
from updaterd.core.sse import Event
from updaterd.store import outbox, report_rows
from updaterd.store.inbox import Inbox
from updaterd.store.journal import Journal, Note, Release
from updaterd.store.outbox import Outbox
from updaterd.store.report_rows import Reporter
from updaterd.store.schema import open_state

MIB = 1 << 20
REPORTER = Reporter(platform="linux-x86_64", updater="0.2.0", tags=("staff",))
NEW = Release("1.1.0", 2, "b" * 64)
EVENT_MS = 1_700_000_000_123
CAME = EVENT_MS / 1000 + 0.05


@pytest.fixture
def database(tmp_path):
    connection = open_state(tmp_path / "state.db")
    yield connection
    connection.close()


@pytest.fixture
def journal(database):
    journal = Journal(database, REPORTER)
    journal.follow("acme", ["a" * 64])
    return journal


def note(after_s, code="", *, steady=100.0):
    return Note(CAME + after_s, code, "why, with /home/user", "b", steady + after_s)


def hear(database, version="1.1.0"):
    ticks = iter([100.0])
    inbox = Inbox(
        database, feed="f", products={"acme": "stable"}, steady=lambda: next(ticks)
    )
    data = {
        "schema": 1, "product": "acme", "channel": "stable", "version": version,
        "seq": 2, "urgency": "normal", "spread_s": 0,
    }  # fmt: skip
    event = Event(event="update_available", data=json.dumps(data), id=f"e:{EVENT_MS}-0")
    inbox.accept(event._replace(identified=True), now=CAME)


def begin(journal):
    return journal.begin("acme", "stable", NEW, "event", note(0.1, "upgrade"))


def bring(journal, end=State.INSTALLED, code="upgrade"):
    ident = begin(journal)
    journal.move(ident, State.PLANNED, note(0.2), bytes_full=9 * MIB)
    journal.move(ident, State.FETCHING, note(0.3), path='{"kind": "delta"}')
    journal.move(ident, State.STAGING, note(0.5), bytes_fetched=MIB)
    journal.stage(ident, "ab" * 32, NEW.tree, note(0.8))
    journal.move(ident, State.ACTIVATING, note(0.9))
    journal.move(ident, State.PROBATION, note(1.0))
    if end is State.INSTALLED:
        journal.install(ident, NEW.tree, note(1.5, code))
    else:
        journal.condemn(ident, note(1.2, code))
        journal.move(ident, end, note(1.5, code))
    return ident


def documents(journal):
    return [json.loads(row.body) for row in journal.outbox.all()]


def test_report_tells_outcome_clock_and_bytes(journal, database):
    hear(database)
    bring(journal)

    (told,) = documents(journal)

    assert told.pop("id")
    assert told == {
        "schema": 1, "machine": report_rows.machine_in(database, "a" * 64),
        "product": "acme", "channel": "stable", "platform": "linux-x86_64",
        "updater": "0.2.0", "tags": ["staff"], "outcome": "installed",
        "version": "1.1.0", "seq": 2, "trigger": "event", "code": "upgrade",
        "event_ms": EVENT_MS, "seen_s": 0.1, "fetched_s": 0.5, "staged_s": 0.8,
        "activated_s": 1.0, "ended_s": 1.5, "bytes_fetched": MIB,
        "bytes_full": 9 * MIB, "path": "delta",
    }  # fmt: skip
    assert report.parse_all(report.join([journal.outbox.all()[0].body]))


def test_text_for_people_is_never_reported(journal):
    bring(journal, State.ROLLED_BACK, "unhealthy")

    assert b"/home" not in journal.outbox.all()[0].body
    assert documents(journal)[0]["outcome"] == "rolled_back"


def test_end_that_is_not_written_is_not_reported(journal, database):
    """One transaction: a machine that dies in it has neither told nor ended."""
    ident = begin(journal)

    database.set_authorizer(
        lambda act, table, *_: (
            sqlite3.SQLITE_DENY
            if (act, table) == (sqlite3.SQLITE_INSERT, "outbox")
            else sqlite3.SQLITE_OK
        )
    )
    with pytest.raises(sqlite3.DatabaseError):
        journal.move(ident, State.FAILED, note(1.0, "disk_full"))
    database.set_authorizer(None)

    assert journal.open_deployment("acme").state is State.QUEUED
    assert journal.outbox.count() == 0
    journal.move(ident, State.FAILED, note(1.0, "disk_full"))
    assert [d["code"] for d in documents(journal)] == ["disk_full"]


def test_what_was_given_up_before_it_was_tried_is_nobodys_business(journal):
    journal.move(begin(journal), State.SKIPPED, note(1.0, "superseded"))

    assert documents(journal) == []


def test_delta_that_did_not_work_is_reported_and_the_update_goes_on(journal):
    ident = begin(journal)
    journal.move(ident, State.PLANNED, note(0.2))
    journal.move(ident, State.FETCHING, note(0.3), path='{"kind": "delta"}')
    journal.move(ident, State.FETCHING, note(0.4, "hash_mismatch"))

    assert [(d["outcome"], d["code"]) for d in documents(journal)] == [
        ("delta_refused", "hash_mismatch")
    ]


def test_machine_that_reports_nothing_writes_nothing(database):
    journal = Journal(database)
    journal.follow("acme", ["a" * 64])
    bring(journal)

    assert journal.outbox.all() == ()
    assert (
        database.execute("SELECT 1 FROM meta WHERE name LIKE 'rep%'").fetchone() is None
    )


def test_two_repositories_cannot_link_a_machine(database):
    one, other = (report_rows.machine_in(database, root * 64) for root in "ab")

    assert one != other
    assert one == report_rows.machine_in(database, "a" * 64)


def test_forgotten_machine_is_another_one(journal, database):
    bring(journal)
    before = documents(journal)[0]["machine"]

    assert journal.outbox.forget() == 1
    assert journal.outbox.all() == ()
    assert report_rows.machine_in(database, "a" * 64) != before


def fill(database, count, size=100):
    database.executemany(
        "INSERT INTO outbox (id, product, body, at, state) "
        "VALUES (?, 'acme', zeroblob(?), ?, 'waiting')",
        [(f"old-{n}", size, CAME) for n in range(count)],
    )


@pytest.mark.parametrize(
    ("count", "size"), [(report_rows.MOST_ROWS + 5, 100), (40, MIB // 30)]
)
def test_flood_is_bounded_and_the_next_report_tells_what_was_lost(
    journal, database, count, size
):
    fill(database, count, size)
    bring(journal)

    rows = journal.outbox.all()
    told = json.loads(rows[-1].body)
    assert len(rows) <= report_rows.MOST_ROWS
    assert sum(len(row.body) for row in rows[:-1]) <= report_rows.MOST_BYTES
    assert told["lost"] == count - (len(rows) - 1) > 0
    assert rows[0].id == f"old-{told['lost']}"  # the oldest went
    assert journal.outbox.sending().lost == 0
    assert journal.outbox.sending().lost_ever == told["lost"]


def test_reports_of_last_year_are_not_sent(journal, database):
    fill(database, 3)
    database.execute("UPDATE outbox SET at = ?", (CAME - 400 * 86400,))
    bring(journal)

    assert len(journal.outbox.all()) == 1


def test_what_was_sent_is_kept_for_people_and_not_for_ever(journal, database):
    fill(database, outbox.KEPT + 10)
    rows = journal.outbox.waiting(most=1000, most_bytes=MIB)
    journal.outbox.sent(rows, now=CAME, next_at=0.0)

    assert len(journal.outbox.all()) == outbox.KEPT
    assert journal.outbox.count() == 0


def test_sign_of_life_comes_once_a_day(journal):
    journal.record_installed("acme", NEW, "", now=1.0)
    for after in (0, 10, 86_300, 86_401):
        journal.say_alive("acme", "stable", note(after))

    assert [d["outcome"] for d in documents(journal)] == ["current", "current"]


# ---- the clock


def test_update_over_a_reboot_has_no_clock_for_what_came_after():
    came = Moment(1000.0, 500.0)

    assert elapsed(came, Moment(1010.0, 510.0)) == 10.0
    assert elapsed(came, Moment(1060.0, 20.0)) is None  # it counts anew
    assert elapsed(came, Moment(5000.0, 900.0)) is None  # and is past it again


def test_clock_that_was_set_tells_nothing():
    assert elapsed(Moment(0.0, 5.0), Moment(1.7e9, 6.0)) is None
    assert elapsed(Moment(1.7e9, 5.0), Moment(1.7e9 - 3600, 6.0)) is None


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(-1e9, 1e9))
def test_clock_that_is_wrong_all_along_measures_right(start, length, wrong):
    since = Moment(start + wrong, start)
    until = Moment(start + length + wrong, start + length)

    assert elapsed(since, until) == pytest.approx(length, abs=0.01)


@pytest.mark.parametrize("event_id", [None, "", "17", "e:12-3", "2024-01-01T00:00Z"])
def test_foreign_feeds_ids_are_no_times(event_id):
    assert report.announced_ms(event_id) is None


def test_row_that_waits_is_due_at_once_and_after_a_failure_later(journal):
    assert journal.outbox.due_at(CAME) is None
    bring(journal)
    assert journal.outbox.due_at(CAME) == pytest.approx(CAME + 1.5)

    journal.outbox.failed(code="dns", error="?", next_at=CAME + 100)

    assert journal.outbox.due_at(CAME) == CAME + 100
    assert journal.outbox.sending().failures == 1


def test_outbox_reads_without_the_right_to_write(journal, tmp_path):
    bring(journal)
    with sqlite3.connect(f"file:{tmp_path}/state.db?mode=ro", uri=True) as reader:
        rows = Outbox(reader).all()
    reader.close()

    assert [row.state for row in rows] == ["waiting"]
    assert replace(rows[0], body=b"") == replace(journal.outbox.all()[0], body=b"")


@pytest.mark.parametrize(
    "noted", ['{"lost": 3, "of_a_newer_updaterd": 1}', "[]", "not JSON", '"text"']
)
def test_a_deployment_ends_whatever_is_noted_of_sending(database, journal, noted):
    """A newer updaterd wrote it, before this one came back; or the disk did."""
    database.execute(
        "INSERT INTO meta (name, value) VALUES (?, ?)", (report_rows.SENDING, noted)
    )
    bring(journal)
    assert journal.installed("acme").version == "1.1.0"
    (row,) = Outbox(database).waiting(most=9, most_bytes=MIB)
    assert json.loads(row.body).get("lost", 0) == (3 if "lost" in noted else 0)
