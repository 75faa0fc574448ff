# SPDX-License-Identifier: Apache-2.0
"""`rm /opt/updaterd/current`: the way out of a bad updaterd holds until it is ended."""

import json

import pytest
from fakes.releases import Releases, clone
from fakes.worker import killed, update, worker

ITSELF = "updaterd"


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Releases of the product that updaterd itself is; 1.1.0 is offered."""
    found = Releases(tmp_path_factory.mktemp("itself"), product=ITSELF)
    found.push("1.0.0")
    machine = found.machine(found.root / "machine")
    machine("update", ITSELF)
    found.push("1.1.0")
    clone(machine.root, found.root / "template")
    found.updated = machine
    yield found
    found.close()


@pytest.fixture
def machine(releases):
    clone(releases.root / "template", releases.updated.root)
    return releases.updated


@pytest.mark.parametrize("state", ["", "STAGED", "PROBATION"])
def test_current_that_a_person_removed_stays_removed(machine, state):
    """Also with an update under way, and by events and polls; `status` says why."""
    if state:
        assert killed(machine, state, leaving=False)
    machine.current.unlink()

    for trigger in ("boot", "event", "poll", "manual"):
        with worker(machine) as services:
            outcome = update(machine, services, trigger=trigger, forced=True)
        assert "held" == outcome.result
        assert not machine.current.is_symlink()
    found = machine.product_status()
    assert "`current` was removed by hand" in found["hold"]["reason"]
    assert "`updaterd unhold updaterd`" in found["hold"]["reason"]


def test_person_ends_it_and_the_offered_release_comes(machine):
    machine.current.unlink()
    machine("update", ITSELF, expect=10)

    machine("unhold", ITSELF)
    machine("update", ITSELF)

    assert "1.1.0" == machine.running


def guard_says(machine, **note) -> None:
    (machine.root / "state/guard.json").write_text(json.dumps(note))


def forget_journal(machine) -> None:
    for path in (machine.root / "state").glob("state.db*"):
        path.unlink()


def test_way_out_holds_when_the_journal_is_lost(machine):
    """The guard has noted it; a person ends it once, and it does not come back."""
    machine.current.unlink()
    guard_says(machine, aside=True)
    forget_journal(machine)
    for _ in range(2):
        machine("update", ITSELF, expect=10)
        assert machine.running is None

    machine("unhold", ITSELF)
    machine("update", ITSELF)

    assert "1.1.0" == machine.running


def left(version, seq):
    return {"left": {version: {"seq": seq, "why": "it crashed", "at": 1.0}}}


def test_condemned_release_stays_away_when_the_journal_is_lost(releases, machine):
    """Else the loop would begin again: install, crash, crash, back."""
    guard_says(machine, **left("1.1.0", releases.seq("1.1.0")))
    forget_journal(machine)
    with worker(machine) as services:
        outcome = update(machine, services)
        assert ("blocked", "1.1.0") == (outcome.result, outcome.version)
        failed = services.journal.failed(ITSELF)["1.1.0"]
        assert ("self_update_failed", "the guard left it: it crashed") == (
            failed.code,
            failed.reason,
        )
    assert "1.0.0" == machine.running

    machine("update", ITSELF, "--retry")  # a person may try it again

    assert "1.1.0" == machine.running
    with worker(machine) as services:
        assert "current" == update(machine, services).result


def test_current_that_the_guard_took_away_is_no_persons_way_out(releases, machine):
    """The very first self-update failed: the package runs, and newer ones may come."""
    machine.current.unlink()
    (machine.app / "releases/1.0.0").rename(machine.app / "releases/.condemned-1.0.0")
    guard_says(machine, **left("1.0.0", releases.seq("1.0.0")))
    machine("update", ITSELF)
    assert "1.1.0" == machine.running
    assert machine.product_status()["hold"] is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"left": []}', '{"left": {"1.1.0": 7}}', "\0"]
)
def test_note_that_cannot_be_read_says_nothing(machine, text):
    (machine.root / "state/guard.json").write_text(text)
    with worker(machine) as services:
        assert "installed" == update(machine, services).result
