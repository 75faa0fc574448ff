# SPDX-License-Identifier: Apache-2.0
"""One contract for all stores of reports: each once, counted by machine, durable."""

import sqlite3
import threading

import pytest
from fakes.postgres import PostgresProcess
from fakes.reports import NOW_MS, received, report
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from updaterd.errors import BrokenError
from updaterd.server.reports.contract import (
    EDGES_S,
    Histogram,
    Keeping,
    Received,
    StoreDownError,
    bucket_of,
)
from updaterd.server.reports.registry import open_store
from updaterd.server.reports.sqlite import SqliteReports, picking
from updaterd.server.reports.tables import VERDICT_COLUMNS

DAY_MS = 86_400_000


@pytest.fixture(params=["sqlite", "postgres"])
def open_one(request, tmp_path):
    """Opens the store, as often as asked."""
    url, opened = "", []
    if request.param == "postgres":
        process = request.getfixturevalue("postgres_process")
        process.empty()
        url = process.url

    def make(keeping=Keeping()):  # noqa: B008 - frozen
        store = open_store(url, state=tmp_path, keeping=keeping)
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(open_one):
    return open_one()


def release(store, version="2.0.0"):
    return store.release("acme", "stable", version)


def test_report_that_comes_twice_counts_once(store):
    one = report()

    assert store.add(received(one, one)) == 1
    assert store.add(received(one)) == 0
    assert store.add(received(one, report(2))) == 1
    counts = release(store)
    assert counts.reports == {"installed": 2}
    assert counts.running == 2
    assert counts.bytes_fetched == 200


def test_machine_counts_where_it_is_and_not_where_it_was(store):
    store.add(received(report(1, "1.0.0", 1), report(2, "1.0.0", 1)))
    store.add(received(report(1)))

    assert release(store, "1.0.0").running == 1
    assert release(store).running == 1
    (channel,) = store.populations()
    assert channel.machines == 2


def test_machine_that_went_back_runs_what_it_had(store):
    store.add(received(report(1, outcome="rolled_back"), report(2, outcome="failed")))

    assert release(store).running == 0
    assert release(store, "1.0.0").running == 2
    assert release(store).outcomes == {"rolled_back": 1, "failed": 1}
    assert release(store).codes == {
        ("rolled_back", "unhealthy"): 1, ("failed", "disk_full"): 1,
    }  # fmt: skip


def test_machine_that_floods_is_one_machine(store):
    store.add(received(*(report(7, outcome="rolled_back") for _ in range(500))))
    store.add(received(report(8)))

    counts = release(store)
    assert counts.outcomes == {"rolled_back": 1, "installed": 1}
    assert counts.reports["rolled_back"] == 500
    assert release(store, "1.0.0").running == 1


def test_flood_of_good_news_does_not_make_the_clock(store):
    store.add(received(*(report(7, ended_s=0.01, event_ms=NOW_MS) for _ in range(99))))
    store.add(received(report(8)))

    assert release(store).clock["event", "total_s"].count == 2


def test_last_word_of_a_machine_counts(store):
    store.add(received(report(1, outcome="failed")))
    store.add(received(report(1)))
    store.add(received(report(1, outcome="current", trigger="poll")))

    assert release(store).outcomes == {"installed": 1}
    assert release(store).running == 1


def test_delta_that_was_refused_is_no_end(store):
    store.add(received(report(1, "1.0.0", 1)))
    store.add(received(report(1, outcome="delta_refused", code="hash_mismatch")))

    assert release(store).outcomes == {}
    assert release(store).reports == {"delta_refused": 1}
    assert release(store, "1.0.0").running == 1


def test_tags_and_platforms_are_told_apart(store):
    store.add(received(
        report(1, tags=("berlin", "staff")),
        report(2, tags=("staff",), platform="linux-aarch64"),
    ))  # fmt: skip

    counts = release(store)
    assert counts.tags == {"staff": 2, "berlin": 1}
    assert counts.platforms == {"linux-x86_64": 1, "linux-aarch64": 1}


def test_machine_that_changes_its_tags_leaves_the_old_ones(store):
    store.add(received(report(1, tags=("staff",))))
    store.add(received(report(1, tags=("berlin",))))

    assert release(store).tags == {"berlin": 1}


def test_releases_come_newest_first_and_page_by_page(store):
    store.add(received(*(report(n, f"{n}.0.0", n) for n in range(1, 9))))

    first = store.releases("acme", "stable", before_seq=None, limit=3)
    rest = store.releases("acme", "stable", before_seq=first[-1].seq, limit=9)
    assert [counts.seq for counts in (*first, *rest)] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert store.releases("acme", "beta", before_seq=None, limit=3) == ()
    assert release(store, "9.9.9") is None


def test_liar_pollutes_only_what_it_reports_about(store):
    store.add(received(report(1)))
    before = release(store)
    store.add(received(*(
        report(n, version=f"99.{n}", seq=10**15, product="other") for n in range(99)
    )))  # fmt: skip

    assert release(store) == before


def test_names_that_a_liar_invents_are_bounded(open_one):
    store = open_one(Keeping(releases=10))
    store.add(received(report(1, "1.0.0", 1), report(1)))
    store.add(received(*(report(n, f"99.{n}", n) for n in range(100, 200))))
    store.add(received(report(2)))

    assert release(store).running == 2  # what was known is still counted apart
    ((places,),) = store.rows("SELECT count(*) FROM place")
    assert places <= 11


def test_releases_that_a_liar_invents_hide_none_of_another_product(open_one):
    store = open_one(Keeping(releases=10))
    store.add(received(*(
        report(n, f"9.{n}", n, product="other", from_version=f"8.{n}", from_seq=n)
        for n in range(100)
    )))  # fmt: skip
    store.add(received(report(1), report(2)))

    assert release(store).running == 2
    assert {"acme": 2, "other": 100} == {
        population.product: population.machines for population in store.populations()
    }


def test_release_that_a_liar_numbers_higher_is_counted_as_the_others_do(store):
    store.add(received(report(1), report(2), report(3, seq=2**53 - 1)))

    assert (release(store).seq, release(store).running) == (2, 2)


def test_words_that_a_liar_invents_are_bounded(open_one):
    store = open_one(Keeping(words=10))
    store.add(received(*(
        report(n, code=f"c{n}", path=f"p{n}", tags=(f"t{n}",)) for n in range(100)
    )))  # fmt: skip

    assert release(store).running == 100
    for table in ("manner", "origin"):
        ((names,),) = store.rows(f"SELECT count(*) FROM {table}")  # noqa: S608 - our own names
        assert names <= 11


def test_counts_that_a_liar_drives_up_overflow_nothing(store):
    store.add(received(report(1)))
    for table in ("tally", "total"):
        query = f"UPDATE {table} SET bytes_fetched = ?"  # noqa: S608 - our own names
        store.run(query, ((1 << 50) + 1,))
    store.add(received(report(1, bytes_fetched=2**53 - 1), report(2)))
    assert release(store).bytes_fetched == (1 << 50) + 1


def test_names_of_what_is_kept_no_longer_go(open_one):
    store = open_one()
    store.add(received(*(report(n, f"9.{n}", n, code=f"c{n}") for n in range(50))))
    store.trim(NOW_MS + 500 * DAY_MS)

    for table in (
        "place",
        "manner",
        "origin",
        "adoption",
        "population",
        "latency",
        "total",
    ):
        query = f"SELECT count(*) FROM {table}"  # noqa: S608 - our own names
        assert [(0,)] == store.rows(query), table
    store.add(received(report(1)))
    assert release(store).running == 1


def test_name_that_another_host_forgot_is_numbered_anew(open_one):
    """Two servers, one store: one sweeps what the other holds in memory."""
    here, there = open_one(), open_one()
    here.add(received(report(1, outcome="rolled_back")))
    here.add(received(report(1, version="1.5.0")))  # nobody runs 1.0.0 any more
    there.trim(NOW_MS)
    here.add(received(report(2, outcome="rolled_back")))
    assert [state.version for state in here.machine(f"{2:032x}")] == ["1.0.0"]
    assert here.release("acme", "stable", "1.0.0").running == 1


def test_newest_are_those_of_the_largest_channels(store):
    store.add(received(report(1), report(2)))
    store.add(received(*(report(3, product=f"a{n:03}") for n in range(250))))

    assert "acme" in [product for product, _, _ in store.newest(1)]


# ---- the clock


@pytest.mark.parametrize(
    "event_ms", [0, 1, NOW_MS + 60_000, 7_258_118_400_000, 2**53 - 1]
)
def test_announcement_of_1970_and_of_2200_makes_no_clock(store, event_ms):
    store.add(received(report(1, event_ms=event_ms, ended_s=None)))

    assert release(store).running == 1
    assert release(store).clock == {}


def test_publish_to_installed_is_by_the_servers_clock_and_the_reports_age(store):
    store.add(received(report(1, event_ms=NOW_MS - 7_000, ended_s=2.0), age_s=3.0))

    clock = release(store).clock
    assert clock["event", "total_s"].counts[bucket_of(4.0)] == 1
    assert clock["event", "ended_s"].counts[bucket_of(2.0)] == 1


def test_report_of_unknown_age_has_no_total_and_keeps_its_parts(store):
    store.add(received(report(1), age_s=None))

    assert set(release(store).clock) == {("event", "ended_s")}


@given(st.lists(st.floats(0.01, 500_000), min_size=1, max_size=50), st.floats(0.01, 1))
def test_quantile_lies_in_the_bucket_of_the_exact_one(values, share):
    histogram = Histogram()
    for value in values:
        histogram.counts[bucket_of(value)] += 1
    rank = max(1, -int(-share * len(values) // 1))
    bucket = bucket_of(sorted(values)[rank - 1])

    low = EDGES_S[bucket - 1] if bucket else 0.0
    assert low <= histogram.quantile(share) <= EDGES_S[bucket] + 0.001


# ---- what is kept


def test_store_that_is_opened_again_has_it_all(open_one):
    first, one = open_one(), report()
    first.add(received(one))
    before = release(first)
    first.close()
    second = open_one()

    assert release(second) == before
    assert second.add(received(one)) == 0


def test_old_reports_go_and_their_counts_stay(store):
    store.add(received(report(1)))

    assert store.trim(NOW_MS + 91 * DAY_MS) == 1
    assert release(store).outcomes == {"installed": 1}
    assert release(store).running == 1


def test_machine_that_was_never_heard_of_again_is_counted_no_longer(store):
    store.add(received(report(1)))
    store.add(received(report(2), at_ms=NOW_MS + 300 * DAY_MS))
    store.trim(NOW_MS + 401 * DAY_MS)

    assert release(store).running == 1
    assert store.populations()[0].machines == 1


def test_hours_are_the_servers(store):
    store.add(received(report(1)))
    store.add(received(report(2), at_ms=NOW_MS + 3_600_000))

    assert [hour.count for hour in store.hours("acme", "stable", "2.0.0")] == [1, 1]


def test_everything_or_nothing_of_a_batch(store):
    """A value that the database cannot hold leaves no half of its batch."""
    bad = Received(report(2, seq=2**70), NOW_MS, 1.0)
    with pytest.raises((StoreDownError, OverflowError, BrokenError)):
        store.add([*received(report(1)), bad])

    assert release(store) is None
    assert store.add(received(report(1))) == 1


@settings(
    deadline=None, max_examples=10,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.lists(st.tuples(
    st.integers(1, 4), st.sampled_from(["1.0.0", "2.0.0", "3.0.0"]),
    st.sampled_from(["installed", "rolled_back", "failed", "current"]),
    st.integers(1, 3),
), min_size=1, max_size=30))  # fmt: skip
def test_counts_are_those_of_a_plain_reckoning(tmp_path_factory, words):
    """Whatever the order and the batches: the sums are those of the last words."""
    store = open_store("", state=tmp_path_factory.mktemp("s"), keeping=Keeping())
    runs, verdicts, batch = {}, {}, []
    for machine, version, outcome, size in words:
        one = report(machine, version, int(version[0]), outcome)
        batch.append(one)
        back = outcome in {"rolled_back", "failed"}
        runs[machine] = "1.0.0" if back else version
        if outcome != "current":
            verdicts[version, machine] = outcome
        if len(batch) >= size:
            store.add(received(*batch))
            batch = []
    store.add(received(*batch))
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        counts = release(store, version)
        outcomes = [o for (v, _), o in verdicts.items() if v == version]
        assert (counts.running if counts else 0) == list(runs.values()).count(version)
        assert (counts.outcomes if counts else {}) == {
            o: outcomes.count(o) for o in outcomes
        }
    store.close()


def test_two_writers_in_postgres_count_as_one(postgres_process, tmp_path):
    postgres_process.empty()
    url = postgres_process.url
    stores = [open_store(url, state=tmp_path, keeping=Keeping()) for _ in range(2)]
    same = [report(n) for n in range(200)]

    def write(store):
        for at in range(0, 200, 20):
            store.add(received(*same[at : at + 20]))

    threads = [threading.Thread(target=write, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = release(stores[0])
    for store in stores:
        store.close()

    assert counts.reports == counts.outcomes == {"installed": 200}
    assert counts.running == 200


def test_postgres_that_is_killed_comes_back_with_what_was_acknowledged(
    tmp_path_factory, tmp_path
):
    """What `add` returned for is there; what it failed for is sent again, once."""
    process = PostgresProcess(tmp_path_factory.mktemp("pgk")).init().start()
    store = open_store(process.url, state=tmp_path, keeping=Keeping())
    waiting = [[report(8 * n + k) for k in range(8)] for n in range(40)]
    store.add(received(*waiting[0]))
    killer = None
    failures = 0
    for number, batch in enumerate(waiting):
        if number == 15:
            killer = threading.Thread(target=process.kill)
            killer.start()
        while True:
            try:
                store.add(received(*batch))
                break
            except StoreDownError:
                failures += 1
                killer.join()
                if process.process.poll() is not None:
                    process.start()
    counts = release(store)
    store.close()
    process.stop()

    assert failures
    assert counts.reports == counts.outcomes == {"installed": 320}


def test_disk_that_is_full_keeps_nothing_and_goes_on_later(tmp_path):
    store = open_store("", state=tmp_path, keeping=Keeping())
    store.add(received(report(1)))
    ((pages,),) = store.rows("PRAGMA page_count")
    store.rows(f"PRAGMA max_page_count = {pages}")
    many = [report(n) for n in range(5000)]
    with pytest.raises(StoreDownError):
        store.add(received(*many))
    assert release(store).running == 1
    store.rows("PRAGMA max_page_count = 1000000")

    assert store.add(received(*many)) == 5000
    store.close()


@pytest.mark.parametrize("url", ["mysql://x", "http://x/", "sqlite:relative", "x"])
def test_address_of_no_store_is_refused(url, tmp_path):
    with pytest.raises(BrokenError):
        open_store(url, state=tmp_path, keeping=Keeping())


def test_file_of_another_layout_is_not_touched(tmp_path):
    with sqlite3.connect(tmp_path / "reports.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(BrokenError, match="layout 99"):
        open_store("", state=tmp_path, keeping=Keeping())


def test_overview_has_the_newest_release_of_each_channel(store):
    store.add(received(*(report(n, "1.0.0", 1) for n in range(4))))
    store.add(
        received(
            report(0, "2.0.0"),
            report(1, "2.0.0", outcome="rolled_back"),
            report(9, "7.0.0", 7, product="other"),
        )
    )

    acme, other = store.overview(since_ms=NOW_MS - DAY_MS, limit=10)
    assert (acme.product, acme.machines, acme.version) == ("acme", 4, "2.0.0")
    assert (acme.running, acme.recent) == (1, 2)
    assert acme.codes == {("installed", "upgrade"): 1, ("rolled_back", "unhealthy"): 1}
    assert (other.version, other.running) == ("7.0.0", 1)
    (largest,) = store.overview(since_ms=NOW_MS + DAY_MS, limit=1)
    assert (largest.product, largest.recent) == ("acme", 0)


def test_samples_are_machines_where_it_failed_and_none_else(store):
    bad = [report(n, outcome="rolled_back") for n in range(4)]
    store.add(received(*bad, report(8), report(9, outcome="failed")))
    store.add(received(report(0)))  # it succeeded at last

    samples = store.samples("acme", "stable", "2.0.0", limit=3)
    assert set(samples) == {("rolled_back", "unhealthy"), ("failed", "disk_full")}
    rolled_back = samples["rolled_back", "unhealthy"]
    assert len(rolled_back) == 3
    assert set(rolled_back) <= {f"{n:032x}" for n in (1, 2, 3)}


def test_machine_has_its_state_and_its_way(store):
    store.add(received(report(5, "1.0.0", 1, tags=("staff",))))
    bad = report(5, outcome="rolled_back", seen_s=0.5, tags=("staff",))
    store.add(received(bad, at_ms=NOW_MS + 1000))

    (state,) = store.machine(f"{5:032x}")
    assert (state.version, state.tags, state.at_ms) == ("1.0.0", "staff", NOW_MS + 1000)
    last, first = state.endings
    assert (last.version, last.outcome) == ("2.0.0", "rolled_back")
    assert last.clock == {"total_s": 5.0, "seen_s": 0.5, "ended_s": 3.0}
    assert (first.version, first.outcome) == ("1.0.0", "installed")
    assert store.machine(f"{6:032x}") == ()


def test_rollouts_are_counted_by_hour_and_release(store):
    hour = NOW_MS // 3_600_000 * 3_600_000
    store.add(received(report(1, "1.0.0", 1), report(2), report(3)))
    store.add(received(report(4), at_ms=NOW_MS + 3_600_000))

    step = {"step_ms": 3_600_000}
    rows = store.rollouts("acme", "stable", since_ms=hour, seq=2, **step)
    assert [(r.version, r.at_ms - hour, r.count) for r in rows] == [
        ("2.0.0", 0, 2), ("2.0.0", 3_600_000, 1),
    ]  # fmt: skip
    late = store.rollouts("acme", "stable", since_ms=hour + DAY_MS, seq=0, **step)
    assert late == ()


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        ("report", ("id",)),
        ("machine", ("product", "machine")),
        ("verdict", ("machine", "place")),
    ],
)
def test_report_costs_the_same_in_a_fleet_of_any_size(tmp_path, table, keys):
    """Nothing is gone through from its beginning to its end for a report."""
    store = open_store("", state=tmp_path, keeping=Keeping())
    query = picking(table, "", keys, 3)
    plan = store.rows(f"EXPLAIN QUERY PLAN {query}", (b"x",) * 3 * len(keys))
    steps = [row[-1] for row in plan]
    assert any(step.startswith(f"SEARCH {table} ") for step in steps)
    assert not any(step.startswith(f"SCAN {table}") for step in steps), steps


def test_store_of_the_second_layout_is_taken_along(open_one):
    """There the verdicts lay by release; now the machine's are together."""
    store = open_one()
    store.add(received(report(1), report(2, outcome="rolled_back")))
    store.run("DROP INDEX verdict_failed")
    store.run("DROP TABLE sweep")
    store.run("ALTER TABLE verdict RENAME TO new")
    store.run("CREATE TABLE verdict AS SELECT * FROM new")
    store.run("DROP TABLE new")
    store.run("CREATE INDEX verdict_failed ON verdict (place)")
    if isinstance(store, SqliteReports):
        store.run("PRAGMA user_version = 2")
    else:
        store.run("UPDATE reports_layout SET layout = 2")
    store.close()

    later = open_one()
    ((now,), (then,)) = (later.machine(f"{n:032x}") for n in (1, 2))
    assert [end.outcome for end in (*now.endings, *then.endings)] == [
        "installed", "rolled_back",
    ]  # fmt: skip
    later.add(received(report(3), report(2)))
    assert release(later).outcomes == {"installed": 3}


def test_store_of_the_first_layout_is_taken_along(open_one):
    store = open_one()
    store.add(received(report(1), report(2, outcome="rolled_back")))
    store.run("DROP INDEX verdict_failed")
    store.run("DROP TABLE sweep")
    store.run("DROP TABLE total")
    for column in VERDICT_COLUMNS[4:]:
        store.run(f"ALTER TABLE verdict DROP COLUMN {column}")
    if isinstance(store, SqliteReports):
        store.run("PRAGMA user_version = 1")
    else:
        store.run("UPDATE reports_layout SET layout = 1")
    store.close()

    later = open_one()
    samples = later.samples("acme", "stable", "2.0.0", limit=3)
    assert samples == {("rolled_back", "unhealthy"): [f"{2:032x}"]}
    assert release(later).reports == {"installed": 1, "rolled_back": 1}
    later.add(received(report(3, outcome="rolled_back")))
    assert len(later.samples("acme", "stable", "2.0.0", limit=3)[
        "rolled_back", "unhealthy"]) == 2  # fmt: skip


def test_who_reads_postgres_does_not_wait_for_who_writes(postgres_process, tmp_path):
    """A writer may be long at work: pages are shown meanwhile."""
    import psycopg

    postgres_process.empty()
    first = open_store(postgres_process.url, state=tmp_path, keeping=Keeping())
    assert first.populations() == ()
    first.close()
    with psycopg.connect(postgres_process.url) as writer:
        writer.execute("SELECT pg_advisory_xact_lock(%s)", (0x75706474,))
        reader = open_store(postgres_process.url, state=tmp_path, keeping=Keeping())
        assert reader.populations() == ()
        reader.close()


def test_password_that_breaks_an_address_is_not_said(tmp_path):
    """As with the log: libpq quotes what it cannot read."""
    url = "postgresql://feed:100%sure@db.example/feed"
    with pytest.raises(BrokenError) as refused:
        open_store(url, state=tmp_path, keeping=Keeping())
    assert "sure" not in str(refused.value)
    assert "%XX" in refused.value.do


def test_channel_that_comes_or_goes_while_the_fleet_is_read_spoils_no_page(tmp_path):
    """Queries of one page are no transaction: another server writes in between."""

    class Watched(SqliteReports):
        between = None

        def rows(self, sql, values=()):
            found = super().rows(sql, values)
            act, self.between = self.between, None
            if act is not None:
                act()
            return found

    store = Watched(tmp_path / "reports.db", keeping=Keeping())
    store.add(received(report()))
    late = report(2, product="late")
    store.between = lambda: store.add(received(late))
    shown = store.overview(since_ms=0, limit=10)
    assert [row.product for row in shown] == ["acme"]

    store.between = lambda: store.trim(NOW_MS + 1000 * DAY_MS)
    assert store.rollouts("acme", "stable", since_ms=0, seq=0, step_ms=DAY_MS) == ()
    store.close()


def test_clock_that_was_ahead_once_puts_off_no_sweep(store):
    """Years ahead at one trim, right at the next: what is old goes all the same."""
    store.trim(NOW_MS + 3650 * DAY_MS)
    store.add(received(report(), at_ms=NOW_MS - 500 * DAY_MS))
    assert store.hours("acme", "stable", "2.0.0")
    store.trim(NOW_MS)
    assert not store.hours("acme", "stable", "2.0.0")
