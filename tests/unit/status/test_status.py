# SPDX-License-Identifier: Apache-2.0
"""Status tells the truth in one word, one exit code and one reason."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.schema import validate

from updaterd import status
from updaterd.cli.parts import page as status_page
from updaterd.core.lifecycle import State
from updaterd.core.settings import (
    Directories,
    Download,
    Feed,
    Product,
    Schedule,
    Settings,
    Trust,
)
from updaterd.core.words import Speakers, Word
from updaterd.status import Subscription
from updaterd.store.journal import Journal
from updaterd.store.records import Release, RoleSeen
from updaterd.store.schema import open_state

NOW = 1_800_000_000.0
DAY = 86400.0
OPEN = Subscription(phase="open", since=NOW - 60)
TARGET = Release("1.1.0", 11, "t" * 64)


@pytest.fixture
def settings(tmp_path):
    return Settings(
        feed=Feed(url="https://updates.example.com/v1/events"),
        trust=Trust(root=Path("/r"), repository="https://updates.example.com/repo"),
        download=Download(),
        schedule=Schedule(),
        products={"acme": Product(name="acme", root=tmp_path / "opt")},
        directories=Directories(
            config=tmp_path, state=tmp_path, cache=tmp_path, runtime=tmp_path
        ),
    )


@pytest.fixture
def journal(tmp_path):
    connection = open_state(tmp_path / "state.db")
    found = Journal(connection)
    found.connection = connection
    found.remember("acme", decision="current", decision_reason="1.1.0 is installed")
    yield found
    connection.close()


@pytest.fixture
def look(settings, journal):
    def _look(feed=OPEN, *, running=True):
        daemon = status.daemon_section(NOW - 100, feed) if running else None
        document = status.collect(journal.connection, settings, daemon=daemon, now=NOW)
        assert json.loads(status.encode(document)) == document
        assert status.headline(document)
        validate(document)
        return document

    return _look


def note(reason="", code=""):
    from updaterd.store.journal import Note

    return Note(NOW - 5, code=code, reason=reason)


def deploy(journal, *states, reason=""):
    ident = journal.begin("acme", "stable", TARGET, "event", note())
    for state in states:
        journal.move(ident, state, note(reason))
    return ident


def test_machine_without_a_database_yet(settings):
    document = status.collect(None, settings, daemon=None, now=NOW)

    assert ("not_running", 4) == (document["state"], document["exit_code"])
    assert document["products"][0]["installed"] is None


def test_all_is_well(look):
    assert ("current", 0) == (look()["state"], look()["exit_code"])


def test_nobody_listens(look):
    assert 4 == look(running=False)["exit_code"]


@pytest.mark.parametrize("phase", ["waiting", "stopped"])
def test_feed_down_is_degraded_and_says_why(look, phase):
    document = look(Subscription(phase=phase, code="dns", error="no such host"))

    assert 20 == document["exit_code"]
    assert "no such host" in document["problems"][0]


def test_feed_that_is_tried_again_is_still_down(look):
    """A server that lets connections hang must not look well half of the time."""
    document = look(Subscription(phase="connecting", code="timeout", error="silence"))

    assert ["feed down: silence"] == document["problems"]


@pytest.mark.parametrize(("attempt", "code"), [(1, 0), (2, 20)])
def test_stream_that_is_rotated_is_no_trouble_until_it_does_not_come_back(
    look, attempt, code
):
    feed = Subscription(phase="waiting", code="closed", error="gone", attempt=attempt)

    assert code == look(feed)["exit_code"]


def test_open_deployment_is_pending(look, journal):
    deploy(journal, State.PLANNED, State.FETCHING)

    document = look()

    assert 10 == document["exit_code"]
    assert "FETCHING" == document["products"][0]["deployment"]["state"]


def test_hold_is_pending_and_shows_until_when(look, journal):
    journal.hold("acme", until=NOW + DAY, reason="fair week")
    journal.remember("acme", decision="held", decision_reason="updates are on hold")

    document = look()

    assert 10 == document["exit_code"]
    assert "fair week" == document["products"][0]["hold"]["reason"]
    assert document["products"][0]["hold"]["until"].startswith("2027-01-16T")


def test_rolled_back_outranks_a_feed_that_is_down(look, journal):
    deploy(
        journal,
        State.PLANNED, State.STAGED, State.ACTIVATING, State.PROBATION,
        State.ROLLING_BACK, State.ROLLED_BACK, reason="health check: exit code 3",
    )  # fmt: skip

    document = look(Subscription(phase="waiting"))

    assert 30 == document["exit_code"]
    assert "exit code 3" in document["products"][0]["last"]["reason"]


@pytest.mark.parametrize(
    ("role", "days", "code"),
    [
        ("timestamp", 1, 20),
        ("timestamp", 6, 0),
        ("root", 59, 20),
        ("root", 61, 0),
        ("acme.stable", 29, 20),
        ("acme.stable", 44, 0),
        ("timestamp", -1, 20),
    ],
)
def test_expiring_metadata_is_told_in_time_to_act(look, journal, role, days, code):
    journal.set_roles([RoleSeen(role, 3, NOW + days * DAY)])

    assert code == look()["exit_code"]


def test_clock_behind_what_signed_metadata_vouched_for_is_suspect(look, journal):
    signed = Word(
        role="timestamp",
        root_version=1,
        version=1,
        keys=frozenset({"k"}),
        time=NOW + 2 * DAY,
    )
    who = {"timestamp": Speakers(keys=signed.keys, threshold=1)}
    here = journal.follow("acme", ["root"])
    journal.hear("acme", [signed], who, repository=here, root_version=1)

    document = look()

    assert document["trust"]["clock_suspect"]
    assert 20 == document["exit_code"]


def test_warnings_of_the_last_refresh_are_problems(look, journal):
    journal.set_meta("warnings", '[{"code": "stale_mirror", "what": "stale mirror"}]')

    document = look()

    assert 20 == document["exit_code"]
    assert ["stale mirror"] == document["problems"]
    assert "stale_mirror" == document["trust"]["warnings"][0]["code"]


def test_database_that_was_set_aside_is_told_and_is_no_problem(look, journal):
    journal.set_meta("set_aside", "kept as state.db.set-aside-1")

    assert "current" == look()["state"]
    assert "set-aside" in look()["notice"]


def test_failed_attempts_are_told_with_their_reason_and_the_next(look, journal):
    journal.note_failure(
        "acme",
        code="unreachable",
        reason="no route",
        next_attempt_at=NOW + 60,
        now=NOW,
        looked_up_to=0,
    )

    document = look()

    assert 20 == document["exit_code"]
    assert ["acme: no route"] == document["problems"]
    assert document["products"][0]["next_attempt_at"]


@pytest.mark.parametrize("code", ["metadata_rollback", "below_floor"])
def test_refused_repository_is_not_up_to_date(look, journal, code):
    """A replay or a stale mirror freezes a machine: somebody must hear of it."""
    journal.remember("acme", decision=code, decision_reason="a stale mirror")

    document = look()

    assert 20 == document["exit_code"]
    assert ["acme: a stale mirror"] == document["problems"]


def test_release_that_was_rejected_here_is_not_up_to_date(look, journal):
    """The next look clears the failure; the machine still is not where it should be."""
    deploy(journal, State.PLANNED, State.REJECTED, reason="no bundle can be used")
    journal.remember("acme", decision="blocked", decision_reason="1.1.0 failed here")

    document = look()

    assert 20 == document["exit_code"]
    assert ["acme: 1.1.0 failed here"] == document["problems"]


@pytest.mark.parametrize("code", ["blocked", "rolled_back_by_hand"])
def test_release_that_a_person_went_back_from_is_rolled_back(look, journal, code):
    """Right after it and at each later look, as `update` says."""
    states = State.PLANNED, State.STAGED, State.ACTIVATING, State.PROBATION
    deploy(journal, *states, State.INSTALLED)
    journal.remember("acme", decision=code, decision_reason="rolled back by hand")

    assert ("rolled_back", 30) == (look()["state"], look()["exit_code"])


def test_roll_back_is_over_when_the_channel_offers_what_is_installed(look, journal):
    """The publisher went back too: `update` says that nothing is left to do."""
    states = State.PLANNED, State.STAGED, State.ACTIVATING, State.PROBATION
    deploy(journal, *states, State.ROLLING_BACK, State.ROLLED_BACK)
    journal.remember("acme", decision="blocked", decision_reason="1.1.0 failed")
    assert 30 == look()["exit_code"]

    journal.remember("acme", decision="current", target_version="1.0.0", target_seq=10)
    assert 0 == look()["exit_code"]


def test_machine_that_nobody_has_looked_at_is_not_up_to_date(look, journal):
    journal.remember("acme", decision="", decision_reason="")

    assert "pending" == look()["state"]


@pytest.mark.parametrize("code", ["paused", "nothing_offered", "not_in_rollout"])
def test_machine_that_still_has_nothing_is_not_up_to_date(look, journal, code):
    """It waits for its first release, whatever keeps that away."""
    journal.remember("acme", decision=code, decision_reason="why")

    assert ("pending", 10) == (look()["state"], look()["exit_code"])


def test_page_that_a_daemon_published_says_how_old_it_is(look):
    """For who may not read the database: no old news that look like new."""
    page = status_page.render(look(), NOW + 7200)

    assert "as of     2h ago" in page
    assert "as of" not in status_page.render(look(), NOW)


@pytest.mark.parametrize(
    ("ahead_s", "shown_s"), [(0.0, 30 * DAY), (3 * 365 * DAY, DAY / 4)]
)
def test_plan_of_a_clock_that_was_ahead_is_not_shown(
    look, journal, settings, ahead_s, shown_s
):
    """The daemon's safety poll comes before; the plan of a right clock is kept to."""
    assert DAY / 4 == settings.feed.fallback_poll_s
    journal.note_failure(
        "acme",
        code="unreachable",
        reason="no route",
        next_attempt_at=NOW + ahead_s + 30 * DAY,
        now=NOW + ahead_s,
        looked_up_to=0,
    )

    (product,) = look()["products"]

    assert status.iso(NOW + shown_s) == product["next_attempt_at"]


def test_hold_beyond_the_calendar_does_not_silence_the_status(look, journal):
    journal.hold("acme", until=NOW + 1e13)
    journal.remember("acme", next_attempt_at=NOW + 1e13)

    (product,) = look()["products"]

    assert {"until": None, "reason": "", "at": None} == product["hold"]


def test_last_hour_of_a_role_is_not_yet_expired(look, journal):
    journal.set_roles([RoleSeen("timestamp", 3, NOW + 1800)])

    (problem,) = look()["problems"]

    assert problem.startswith("metadata expiring")


@pytest.mark.parametrize(
    ("at_current", "said"),
    [
        ("releases/1.1.0", None),
        ("releases/1.0.0", "names 1.0.0"),
        ("releases/9.9.9", "leads nowhere"),
        ("directory", "is not a link any more"),
        (None, "leads nowhere"),
    ],
)
def test_what_a_person_did_to_current_is_told(
    look, journal, settings, at_current, said
):
    """Not what the journal remembers: what runs."""
    root = settings.products["acme"].root
    for version in ("1.0.0", "1.1.0"):
        (root / "releases" / version).mkdir(parents=True)
    if at_current == "directory":
        (root / "current").mkdir()
    elif at_current:
        (root / "current").symlink_to(at_current)
    journal.record_installed("acme", TARGET, "", now=NOW)

    document = look()

    (product,) = document["products"]
    assert (said is None) == (product["at_odds"] is None)
    assert (0 if said is None else 20) == document["exit_code"]
    assert all(said in problem for problem in document["problems"])
    assert all("updaterd update acme" in problem for problem in document["problems"])


@pytest.mark.parametrize("state", [State.ACTIVATING, State.PROBATION])
def test_link_that_moves_is_no_contradiction(look, journal, state):
    journal.record_installed("acme", Release("1.0.0", 10, "o" * 64), "", now=NOW)
    way = (State.PLANNED, State.STAGED, State.ACTIVATING, State.PROBATION)
    deploy(journal, *way[: way.index(state) + 1])

    assert [] == look()["problems"]


def test_problem_names_its_product_once(look, journal):
    journal.note_failure(
        "acme",
        code="busy",
        reason="acme: no disk",
        next_attempt_at=None,
        now=NOW,
        looked_up_to=0,
    )

    assert ["acme: no disk"] == look()["problems"]


def test_headline_of_many_products_stays_a_line(settings, journal):
    products = {
        f"p{n}": Product(name=f"p{n}", root=Path("/opt/x")) for n in range(1000)
    }
    many = replace(settings, products=products)

    document = status.collect(journal.connection, many, daemon=None, now=NOW)

    assert status.headline(document).endswith(" and 995 more)")
    assert len(status.headline(document)) < 200


def test_expired_metadata_is_not_said_to_expire_in_days(look, journal):
    journal.set_roles([RoleSeen("timestamp", 3, NOW - 3 * DAY)])

    page = status_page.render(look(), NOW)

    assert "timestamp (version 3) expired 3 days ago" in page


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ((State.PLANNED,), False),
        ((State.PLANNED, State.STAGED, State.ACTIVATING), True),
    ],
)
def test_product_taken_out_on_trial_is_not_forgotten(settings, journal, states, told):
    """Nobody will end the trial; what runs there was not proven."""
    deploy(journal, *states)
    without = replace(settings, products={})
    daemon = status.daemon_section(NOW, OPEN)

    document = status.collect(journal.connection, without, daemon=daemon, now=NOW)

    assert (20 if told else 0) == document["exit_code"]
    assert told == any("taken out" in problem for problem in document["problems"])


class Chooser:
    """The package's: which release of updaterd an interpreter runs."""

    PLACES = "/opt"

    def __init__(self, chosen):
        self._chosen = str(chosen)

    def daemon(self):
        return "updaterd"

    def choose(self):
        return self._chosen


def test_updaterd_that_is_installed_and_never_run_is_told(tmp_path, monkeypatch):
    """Another root than the package's: `status` must not say that all is well."""
    from updaterd.core.settings import Product
    from updaterd.status.disk import at_odds
    from updaterd.store.journal import Journal, Release
    from updaterd.store.schema import open_state

    release = tmp_path / "own/releases/2"
    release.mkdir(parents=True)
    (tmp_path / "own/current").symlink_to("releases/2")
    product = Product(name="updaterd", root=tmp_path / "own")
    journal = Journal(open_state(tmp_path / "state.db"))
    journal.record_installed("updaterd", Release("2", 2, "t"), "", now=1)
    monkeypatch.setattr("os.geteuid", lambda: 997)

    for chosen, said in (("/usr/lib/updaterd/site", True), (release, False)):
        monkeypatch.setitem(sys.modules, "_updaterd_site", Chooser(chosen))
        assert said == ("/opt/updaterd" in (at_odds(journal, product) or ""))
