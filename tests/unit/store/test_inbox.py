# SPDX-License-Identifier: Apache-2.0
import json
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.events import PushedMetadata
from updaterd.core.sse import Event
from updaterd.store.feed_facts import read_feed
from updaterd.store.inbox import Inbox
from updaterd.store.journal import Journal, Note, Release
from updaterd.store.schema import open_for_reading, open_state

PRODUCTS = {"acme": "stable", "beta": "edge"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture
def connection(path):
    with_layout = open_state(path)
    yield with_layout
    with_layout.close()


@pytest.fixture
def inbox(connection):
    return Inbox(connection, feed="https://f/", products=PRODUCTS)


def event(number=None, kind="update_available", data=None, **fields):
    if data is None:
        fields = {"schema": 1, "product": "acme", "channel": "stable"} | fields
        data = json.dumps(fields)
    name = "" if number is None else str(number)
    return Event(name, kind, data, None, number is not None)


def rows(connection, columns="event_id"):
    query = f"SELECT {columns} FROM inbox ORDER BY row"  # noqa: S608 # ours
    return [tuple(row) for row in connection.execute(query)]


def settle(inbox):
    for waiting in inbox.pending():
        inbox.done(waiting.product, waiting.up_to_row)


# ---- never lose, never repeat ----


def test_event_and_cursor_come_together(inbox):
    accepted = inbox.accept(event(1), now=5.0)
    assert accepted.kind == "update"
    assert accepted.products == {"acme"}
    assert inbox.cursor() == "1"
    (waiting,) = inbox.pending()
    assert (waiting.product, waiting.received_at) == ("acme", 5.0)


def test_neither_comes_when_the_disk_refuses(path, connection):
    """Killed or full between the two statements: the event comes again later."""
    inbox = Inbox(connection, feed="https://f/", products=PRODUCTS)
    inbox.accept(event(1), now=0.0)
    connection.execute("CREATE TEMP TRIGGER t BEFORE UPDATE ON main.cursor "
                       "BEGIN SELECT RAISE(ABORT, 'disk full'); END")  # fmt: skip
    with pytest.raises(sqlite3.Error):
        inbox.accept(event(2), now=0.0)
    assert inbox.cursor() == "1"
    assert rows(connection) == [("1",)]
    connection.execute("DROP TRIGGER t")
    assert inbox.accept(event(2), now=0.0).kind == "update"


def test_a_duplicate_after_a_reconnection_is_ignored(inbox, connection):
    inbox.accept(event(1), now=0.0)
    settle(inbox)
    assert inbox.accept(event(1), now=1.0).kind == "duplicate"
    assert inbox.pending() == ()
    assert len(rows(connection)) == 1


def test_equal_data_with_different_ids_is_two_events(inbox, connection):
    inbox.accept(event(1), now=0.0)
    assert inbox.accept(event(2), now=0.0).kind == "update"
    assert len(rows(connection)) == 2


def test_an_inherited_id_does_not_make_two_events_one(inbox, connection):
    """Only a block's own `id:` identifies it."""
    inbox.accept(event(1), now=0.0)
    inherited = event(1)._replace(identified=False)
    assert inbox.accept(inherited, now=0.0).kind == "update"
    assert inbox.cursor() == "1"
    assert len(rows(connection)) == 2


def test_a_feed_without_ids_still_counts(inbox):
    """No cursor, no deduplication: every event means look."""
    assert inbox.accept(event(), now=0.0).kind == "update"
    assert inbox.accept(event(), now=0.0).kind == "update"
    assert inbox.cursor() is None


def test_two_feeds_may_use_the_same_ids(inbox, connection):
    other = Inbox(connection, feed="https://g/", products=PRODUCTS)
    inbox.accept(event(1), now=0.0)
    assert other.accept(event(1), now=0.0).kind == "update"
    assert other.cursor() == "1"


def test_ids_of_any_length_are_told_apart(inbox):
    inbox.accept(event("x" * 9999 + "1"), now=0.0)
    assert inbox.accept(event("x" * 9999 + "2"), now=0.0).kind == "update"
    assert inbox.accept(event("x" * 9999 + "1"), now=0.0).kind == "duplicate"


def test_the_cursor_moves_without_an_event(inbox):
    inbox.advance("9", now=0.0)
    assert inbox.cursor() == "9"


def test_a_reset_id_empties_the_cursor(inbox):
    inbox.accept(event(1), now=0.0)
    inbox.accept(event(), now=0.0)
    assert inbox.cursor() is None


def test_everything_survives_reopening(path):
    connection = open_state(path)
    inbox = Inbox(connection, feed="https://f/", products=PRODUCTS)
    inbox.accept(event(1, urgency="critical", spread_s=30, version="2"), now=0.0)
    connection.close()
    connection = open_state(path)
    again = Inbox(connection, feed="https://f/", products=PRODUCTS)
    (waiting,) = again.pending()
    assert again.cursor() == "1"
    assert (waiting.urgency, waiting.spread_s) == ("critical", 30)
    assert waiting.version == "2"
    connection.close()


def test_a_batch_is_one_transaction(inbox, connection):
    taken = inbox.accept_all([event(1), event(1), event(2, data="{")], now=0.0)
    assert [a.kind for a in taken] == ["update", "duplicate", "quarantined"]
    assert inbox.cursor() == "2"
    assert inbox.accept_all([], now=0.0) == []
    assert inbox.cursor() == "2"


# ---- a feed whose ids start over ----


def test_ids_that_start_over_with_other_data_are_news(inbox, connection):
    """The simplest feed there is counts in memory: restarted, it says 1 and 2 again."""
    inbox.accept_all([event(1, version="1"), event(2, version="2")], now=0.0)
    settle(inbox)
    for number, version in ((1, "3"), (2, "4"), (1, "5")):
        again = event(number, version=version)
        assert inbox.accept(again, now=1.0).kind == "update"
        assert inbox.accept(again, now=1.0).kind == "duplicate"
    assert inbox.pending()[0].version == "5"
    assert len(rows(connection)) == 5


def test_ids_that_start_over_with_equal_data_are_news_on_another_stream(inbox):
    """Asked to go on after 2, a feed that says 1 is not going on: it counts anew."""
    inbox.accept_all([event(1), event(2)], now=0.0)
    settle(inbox)
    inbox.opened("2")
    assert inbox.accept(event(2), now=1.0).kind == "duplicate"  # it was asked for
    assert inbox.accept(event(1), now=1.0).kind == "update"
    assert inbox.accept(event(1), now=1.0).kind == "duplicate"  # on this very stream


def test_a_stream_that_was_not_resumed_makes_known_ids_news(inbox):
    """Nobody asked it to begin anywhere: what it says it says now."""
    inbox.accept(event(1), now=0.0)
    settle(inbox)
    inbox.opened("")
    assert inbox.accept(event(1), now=1.0).kind == "update"


def test_what_an_older_updaterd_has_stored_is_known_by_its_id_alone(inbox, connection):
    inbox.accept(event(1), now=0.0)
    connection.execute("UPDATE inbox SET digest = ''")
    assert inbox.accept(event(1, version="2"), now=0.0).kind == "duplicate"


def test_an_id_that_could_not_be_sent_back_does_not_move_the_cursor(inbox, path):
    """A megabyte of id would be written with each event, and help nobody."""
    inbox.accept(event(1), now=0.0)
    inbox.accept(event("x" * 2**21), now=0.0)
    inbox.advance("y" * 2**21, now=0.0)
    assert inbox.cursor() == "1"
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 2**19


@pytest.mark.slow
def test_a_flood_of_malformed_events_leaves_a_few(inbox, connection):
    """The newest are enough to see what comes; the count of rows and bytes is small."""
    connection.execute("PRAGMA synchronous = OFF")
    for start in range(0, 2000, 100):
        batch = [event(n, data="{" * 5000) for n in range(start, start + 100)]
        inbox.accept_all(batch, now=0.0)
        good = [event(f"g{n}", note="x" * 5000) for n in range(start, start + 100)]
        inbox.accept_all(good, now=0.0)
    assert inbox.quarantined() <= 60
    ((size,),) = rows(connection, "sum(length(data)) OVER ()")[:1]
    assert size < 2**20


# ---- what events mean here ----


def test_malformed_data_is_quarantined_and_the_cursor_moves_on(inbox, connection):
    accepted = inbox.accept(event(1, data="{"), now=0.0)
    assert accepted.kind == "quarantined"
    assert inbox.pending() == ()
    assert inbox.cursor() == "1"
    assert inbox.quarantined() == 1
    ((state, reason),) = rows(connection, "state, reason")
    assert state == "quarantined"
    assert "JSON" in reason
    assert inbox.accept(event(1, data="{"), now=0.0).kind == "duplicate"


@pytest.mark.parametrize(
    "fields",
    [{"product": "gamma"}, {"channel": "edge"}, {"product": "beta"}],
)
def test_other_products_and_channels_are_none_of_our_business(inbox, fields):
    assert inbox.accept(event(1, **fields), now=0.0).kind == "other"
    assert inbox.pending() == ()
    assert inbox.cursor() == "1"


@pytest.mark.parametrize("kind", ["message", "hello", "newer"])
def test_events_that_start_nothing_still_move_the_cursor(inbox, kind):
    inbox.accept(event(1, kind=kind, data="x"), now=0.0)
    assert inbox.pending() == ()
    assert inbox.cursor() == "1"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("update_available", '{"version": 5, "patch_url": "http://a/"}'),
        ("metadata", "{}"),
        ("resync", '{"reason": "trimmed"}'),
    ],
)
def test_what_names_no_product_concerns_them_all(inbox, kind, data):
    accepted = inbox.accept(event(1, kind=kind, data=data), now=0.0)
    assert accepted.products == set(PRODUCTS)
    acme, beta = inbox.pending()
    inbox.done("acme", acme.up_to_row)
    assert [waiting.product for waiting in inbox.pending()] == ["beta"]
    assert inbox.depth() == 1  # until the last product is done
    inbox.done("beta", beta.up_to_row)
    assert inbox.depth() == 0


def test_a_resync_may_bear_the_id_of_an_event(inbox):
    """Its id is where the feed stands; the event of that id is no duplicate."""
    inbox.accept(event(5, kind="resync", data="{}"), now=0.0)
    assert inbox.accept(event(5), now=0.0).kind == "update"
    assert inbox.accept(event(5, kind="resync", data="{}"), now=0.0).kind == "resync"


def test_pushed_metadata_goes_to_the_worker(inbox):
    import base64
    import zlib

    packed = base64.b64encode(zlib.compress(b"t")).decode()
    inbox.accept(event(1, tuf={"timestamp": packed}), now=0.0)
    assert inbox.pending()[0].pushed == PushedMetadata(timestamp=b"t")
    inbox.accept(event(2), now=0.0)  # a newer event without: the old is outdated
    assert inbox.pending()[0].pushed is None


# ---- coalescing ----


def test_events_while_a_worker_runs_wait_as_one(inbox):
    inbox.accept(event(1), now=1.0)
    (taken,) = inbox.pending()
    for number in range(2, 50):
        inbox.accept(event(number), now=float(number))
    inbox.done("acme", taken.up_to_row)
    (waiting,) = inbox.pending()
    assert waiting.received_at == 2.0
    inbox.done("acme", waiting.up_to_row)
    assert inbox.pending() == ()


def test_urgency_is_the_highest_of_what_waits(inbox):
    inbox.accept(event(1, urgency="critical"), now=0.0)
    inbox.accept(event(2), now=0.0)
    assert inbox.pending()[0].urgency == "critical"


@pytest.mark.slow
def test_a_flood_is_coalesced_and_the_inbox_stays_at_its_cap(connection):
    """A hundred times the cap: one refresh waits, the cap holds all the way."""
    inbox = Inbox(connection, feed="f", products=PRODUCTS, cap=200)
    connection.execute("PRAGMA synchronous = OFF")
    inbox.accept(event("first", product="beta", channel="edge"), now=0.0)
    inbox.accept(event("urgent", urgency="critical"), now=0.0)
    for start in range(0, 20_000, 1000):
        batch = [event(number) for number in range(start, start + 1000)]
        inbox.accept_all(batch, now=1.0)
        assert len(rows(connection)) <= 200
    acme, beta = inbox.pending()
    assert acme.urgency == "critical"  # although its row is long gone
    assert beta.product == "beta"  # nobody's flood drowns another product
    assert inbox.cursor() == "19999"
    settle(inbox)
    assert inbox.pending() == ()


def test_a_flood_of_rubbish_does_not_push_out_what_waits(connection):
    inbox = Inbox(connection, feed="f", products=PRODUCTS, cap=20)
    inbox.accept(event("good"), now=0.0)
    for number in range(100):
        inbox.accept(event(number, data="{"), now=0.0)
    assert len(rows(connection)) <= 20
    assert [waiting.product for waiting in inbox.pending()] == ["acme"]


def test_large_events_are_not_kept_whole(inbox, connection):
    inbox.accept(event(1, note="x" * 100_000), now=0.0)
    assert rows(connection, "length(data)") == [(4096,)]


def test_a_cap_too_small_is_refused(connection):
    with pytest.raises(ValueError):
        Inbox(connection, feed="f", products=PRODUCTS, cap=3)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["acme", "beta", "any", "bad", "resync", "done"]),
        st.integers(0, 30),
        st.booleans(),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_what_waits_is_known(tmp_path_factory, steps):
    """Against a model: a product waits exactly when an event for it came after its
    last `done`, urgent exactly when one of those was; the cap always holds.
    """
    connection = open_state(tmp_path_factory.mktemp("db") / "state.db")
    connection.execute("PRAGMA synchronous = OFF")
    inbox = Inbox(connection, feed="f", products=PRODUCTS, cap=6)
    waiting = {}
    for what, number, urgent in steps:
        if what == "done":
            settle(inbox)
            waiting.clear()
            continue
        urgency = "critical" if urgent else "normal"
        sent = {
            "acme": event(urgency=urgency),
            "beta": event(product="beta", channel="edge", urgency=urgency),
            "any": event(data=json.dumps({"version": 1, "urgency": urgency})),
            "bad": event(number, data="{"),
            "resync": event(number, kind="resync", data="{}"),
        }[what]
        accepted = inbox.accept(sent, now=0.0)
        for product in accepted.products:
            waiting[product] = (
                waiting.get(product, False) or accepted.urgency == "critical"
            )
        assert len(rows(connection)) <= 6
        found = {p.product: p.urgency == "critical" for p in inbox.pending()}
        assert found == waiting
    connection.close()


# ---- reading ----


def test_status_reads_without_writing(path, inbox):
    inbox.accept(event(1), now=3.0)
    inbox.accept(event(2, data="{"), now=4.0)
    reader = open_for_reading(path)
    facts = read_feed(reader, PRODUCTS)
    reader.close()
    assert (facts.cursor, facts.cursor_at) == ("2", 4.0)
    assert (facts.pending, facts.quarantined) == (1, 1)
    assert facts.last_event_at == 4.0
    assert "JSON" in facts.quarantine_reason


def test_status_of_nothing(path, connection):
    facts = read_feed(connection, PRODUCTS)
    assert (facts.cursor, facts.pending, facts.last_event_at) == (None, 0, None)


# ---- products that come and go, releases that failed ----


def test_what_waits_for_a_product_that_was_removed_is_settled(connection, inbox):
    """ "1 events waiting" was told for ever."""
    inbox.accept(event(1, product="acme"), now=0.0)
    inbox.accept(event(2, product="beta", channel="edge"), now=0.0)
    left = {"acme": "stable"}

    assert read_feed(connection, left).pending == 1  # by `status`, before a restart
    started = Inbox(connection, feed="https://f/", products=left)

    assert started.depth() == 1
    settle(started)
    assert started.depth() == 0


def test_what_concerns_everybody_waits_for_those_that_are_left(connection, inbox):
    inbox.accept(event(1, data='{"version": 5}'), now=0.0)
    inbox.done("acme", 1)
    assert read_feed(connection, PRODUCTS).pending == 1
    left = {"acme": "stable"}

    assert read_feed(connection, left).pending == 0
    assert Inbox(connection, feed="https://f/", products=left).depth() == 0
    assert Inbox(connection, feed="https://f/", products={}).depth() == 0


@pytest.fixture
def failed(connection):
    """1.2.0 failed on this machine."""
    journal = Journal(connection)
    journal.block("acme", Release("1.2.0", 12, "t"), Note(5.0, "unhealthy", "no"))
    return lambda: journal.failed("acme")["1.2.0"].announced_at


@pytest.mark.parametrize(
    "said",
    [
        event(1, kind="metadata", data='{"schema": 1, "metadata": {}}'),
        event(1, kind="resync", data="{}"),
        event(1),
        event(1, version="1.3.0"),
        event(1, product="beta", channel="edge", version="1.2.0"),
        event(1, channel="edge", version="1.2.0"),
        event(1, data='{"version": "1.2.0"}'),
    ],
    ids=[
        "metadata",
        "resync",
        "no version",
        "another version",
        "another product",
        "another channel",
        "no product",
    ],
)
def test_an_event_about_something_else_does_not_announce_what_failed(
    inbox, failed, said
):
    inbox.accept(said, now=9.0)

    assert failed() is None


def test_a_release_that_failed_is_announced_anew_once(connection, inbox, failed):
    """By an event that names it; what it said before it failed again is over."""
    inbox.accept(event(1, version="1.2.0"), now=9.0)
    inbox.accept(event(1, version="1.2.0"), now=10.0)  # the same, delivered twice
    assert failed() == 9.0

    journal = Journal(connection)
    journal.block("acme", Release("1.2.0", 12, "t"), Note(20.0, "unhealthy", "no"))

    assert failed() is None
