# SPDX-License-Identifier: Apache-2.0
"""Each deployment that ends is told once, by a name that an alert can listen to."""

import pytest
from structlog.testing import capture_logs

from updaterd.core.lifecycle import State
from updaterd.daemon import outcomes
from updaterd.store.journal import Journal, Note
from updaterd.store.records import Release
from updaterd.store.schema import open_state

TO_TRIAL = (State.PLANNED, State.STAGED, State.ACTIVATING, State.PROBATION)
ROADS = {
    State.SKIPPED: (State.SKIPPED,),
    State.REJECTED: (State.PLANNED, State.REJECTED),
    State.FAILED: (State.FAILED,),
    State.INSTALLED: (*TO_TRIAL, State.INSTALLED),
    State.ROLLED_BACK: (*TO_TRIAL, State.ROLLING_BACK, State.ROLLED_BACK),
}


@pytest.fixture
def journal(tmp_path):
    connection = open_state(tmp_path / "state.db")
    yield Journal(connection)
    connection.close()


def deploy(journal, version, end):
    note = Note(now=1.0, code="because", reason="of it")
    release = Release(version, 1, "")
    ident = journal.begin("acme", "stable", release, "event", note)
    for state in ROADS.get(end, ()):
        journal.move(ident, state, note)


def told(journal, before):
    with capture_logs() as entries:
        outcomes.tell(journal, "acme", before)
    return entries


@pytest.mark.parametrize(
    ("end", "event", "level"),
    [
        (State.INSTALLED, "release_installed", "info"),
        (State.SKIPPED, "release_skipped", "info"),
        (State.ROLLED_BACK, "release_rolled_back", "warning"),
        (State.REJECTED, "release_rejected", "warning"),
        (State.FAILED, "release_failed", "error"),
    ],
)
def test_an_end_has_its_own_name_and_says_what_and_why(journal, end, event, level):
    before = outcomes.ended(journal, "acme")
    deploy(journal, "1.0.0", end)
    (entry,) = told(journal, before)
    assert (event, level) == (entry["event"], entry["log_level"])
    assert ("acme", "1.0.0", str(end)) == (
        entry["product"],
        entry["release"],
        entry["state"],
    )
    assert ("because", "of it") == (entry["code"], entry["reason"])


def test_what_was_told_before_and_what_goes_on_is_not_told(journal):
    deploy(journal, "1.0.0", State.REJECTED)
    before = outcomes.ended(journal, "acme")
    deploy(journal, "1.1.0", None)
    assert [] == told(journal, before)


def test_a_run_that_ended_two_tells_both_in_order(journal):
    """What a dead worker left, and then its own."""
    before = outcomes.ended(journal, "acme")
    deploy(journal, "1.0.0", State.ROLLED_BACK)
    deploy(journal, "1.1.0", State.INSTALLED)
    found = [entry["release"] for entry in told(journal, before)]
    assert ["1.0.0", "1.1.0"] == found
