# SPDX-License-Identifier: Apache-2.0
"""`rollback` cut short, or to a release that is not well: it leads where it should."""

from dataclasses import replace

import pytest
from fakes.trees import snapshot
from fakes.worker import Units, killed, product_of, update, worker

from updaterd.core.lifecycle import State
from updaterd.errors import BrokenError, TransientError
from updaterd.pipeline import by_hand

UNITS = '\nunits = ["acme.service"]\n'


def roll_back(machine, services, **asked):
    return by_hand.roll_back(product_of(machine), services, **asked)


def blocked(services) -> dict[str, str]:
    return {row.version: row.code for row in services.journal.failed("acme").values()}


def previous(machine) -> str | None:
    link = machine.app / "previous"
    return link.readlink().name if link.is_symlink() else None


@pytest.fixture
def updated(releases, machine):
    """A machine on which 1.0.0 ran and 1.1.0 runs."""
    with machine.config.open("a") as file:
        file.write(UNITS)
    with worker(machine) as services:
        assert "installed" == update(machine, services).result
    return machine


@pytest.mark.parametrize("boot", ["boot-1", "boot-2"])
@pytest.mark.parametrize(
    ("state", "leaving"),
    [
        ("STAGED", False), ("STAGED", True), ("ACTIVATING", False),
        ("ACTIVATING", True), ("PROBATION", False), ("PROBATION", True),
    ],
)  # fmt: skip
def test_roll_back_killed_in_any_state_is_finished_by_the_next_run(
    releases, updated, state, leaving, boot
):
    """The good release runs, and what was left stays blocked."""
    assert killed(updated, state, leaving=leaving, act=roll_back)

    with worker(updated, boot=boot) as services:
        outcome = update(updated, services)

        assert ("blocked", "1.1.0") == (outcome.result, outcome.version)
        assert {"1.1.0": "rolled_back_by_hand"} == blocked(services)
        (row, *_) = services.journal.history("acme")
        assert ("INSTALLED", "1.0.0", "rollback") == (
            row.state,
            row.version,
            row.trigger,
        )
    assert releases.trees["1.0.0"] == snapshot(updated.current)


def test_roll_back_killed_before_its_order_is_journalled_has_changed_nothing(updated):
    assert killed(updated, "QUEUED", leaving=True, act=roll_back)

    with worker(updated) as services:
        assert "current" == update(updated, services).result
        assert {} == blocked(services)
        assert "1.0.0" == roll_back(updated, services).version
    assert "1.0.0" == updated.running


@pytest.mark.parametrize("state", ["STAGED", "ACTIVATING", "PROBATION"])
def test_roll_back_typed_again_after_a_kill_does_not_go_back_twice(updated, state):
    assert killed(updated, state, leaving=False, act=roll_back)

    with worker(updated) as services:
        outcome = roll_back(updated, services)

        assert ("installed", "1.1.0", "1.0.0") == (
            outcome.result, outcome.from_version, outcome.version,
        )  # fmt: skip
        assert {"1.1.0": "rolled_back_by_hand"} == blocked(services)
    assert "1.0.0" == updated.running


def test_roll_back_from_a_release_whose_trial_was_cut_short_stays_there(machine):
    """Recovery leaves it; a person wanted that too, so it does not come back."""
    assert killed(machine, "PROBATION", leaving=False)

    with worker(machine) as services:
        outcome = roll_back(machine, services)

        assert ("1.1.0", "1.0.0") == (outcome.from_version, outcome.version)
        assert "blocked" == update(machine, services).result
    assert "1.0.0" == machine.running


def test_roll_back_that_kills_its_worker_again_and_again_is_undone(updated):
    """It would never end otherwise: each start would try it once more."""
    assert killed(updated, "PROBATION", leaving=False, act=roll_back)
    for _ in range(3):
        assert killed(updated, "PROBATION", leaving=False)

    with worker(updated) as services:
        assert "current" == update(updated, services).result
        assert "interrupted_in_probation" == blocked(services)["1.0.0"]
    assert "1.1.0" == updated.running


@pytest.mark.parametrize("state", ["PROBATION", "ROLLING_BACK"])
def test_roll_back_that_failed_can_be_asked_for_again(updated, state):
    """Also when it was killed while it returned: 1.0.0 is whole, and has run here."""
    sick = Units(faults={"1.0.0": "a database that both need is down"}, app=updated.app)
    if state == "ROLLING_BACK":
        assert killed(updated, state, leaving=False, act=roll_back, manager=sick)
    with worker(updated, manager=sick) as services:
        if state == "PROBATION":
            assert "rolled_back" == roll_back(updated, services).result
        update(updated, services)
        assert {"1.0.0": "unhealthy"} == blocked(services)
        assert "1.0.0" == previous(updated)
    assert "1.1.0" == updated.running

    with worker(updated) as services:
        outcome = roll_back(updated, services)

        assert ("installed", "1.0.0") == (outcome.result, outcome.version)
        (note,) = outcome.notes
        assert "1.0.0 was blocked here (a database that both need is down)" in note
    assert "1.0.0" == updated.running


def test_what_goes_on_running_after_a_failed_roll_back_is_not_blocked_once_it_is_well(
    updated,
):
    sick = Units(faults={"1.0.0": "down", "1.1.0": "down"}, app=updated.app)
    with worker(updated, manager=sick) as services:
        with pytest.raises(
            BrokenError, match=r"`updaterd rollback acme` goes to 1\.0\.0"
        ):
            roll_back(updated, services)
        assert "blocked" == update(updated, services).result
    assert "1.1.0" == updated.running

    with worker(updated, manager=Units(app=updated.app)) as services:
        outcome = update(updated, services)

        assert ("current", "1.1.0") == (outcome.result, outcome.version)
        assert {"1.0.0": "unhealthy"} == blocked(services)
        assert "1.0.0" == roll_back(updated, services).version


def test_refused_by_a_hook_nothing_is_blocked(updated):
    with worker(updated) as services:
        no = product_of(updated)
        no = replace(no, hooks=replace(no.hooks, pre_activate=("/bin/false",)))
        with pytest.raises(TransientError):
            by_hand.roll_back(no, services)
        assert {} == blocked(services)
        assert "current" == update(updated, services).result


def test_advice_names_no_way_back_that_there_is_not(releases, machine):
    """1.1.0 fails, and 1.0.0 after it; nothing older has run here."""
    with machine.config.open("a") as file:
        file.write(UNITS)
    sick = Units(faults={"1.0.0": "down", "1.1.0": "down"}, app=machine.app)

    with (
        worker(machine, manager=sick) as services,
        pytest.raises(BrokenError) as error,
    ):
        update(machine, services)

    assert "rollback" not in error.value.do


def test_second_roll_back_does_not_lead_to_what_the_first_one_left(updated):
    """Twice in haste is not back on the bad one; by its name it can be reached."""
    with worker(updated) as services:
        roll_back(updated, services)
        with pytest.raises(BrokenError) as error:
            roll_back(updated, services)
        assert "--to 1.1.0" in error.value.do
        assert "1.0.0" == updated.running

        outcome = roll_back(updated, services, to="1.1.0")

        assert ("installed", "1.1.0") == (outcome.result, outcome.version)
        assert "current" == roll_back(updated, services, to="1.1.0").result
        assert State.INSTALLED == services.journal.history("acme")[0].state
    assert "1.1.0" == updated.running


def test_release_that_never_ran_here_is_nothing_to_return_to(releases, machine):
    """1.1.0 is whole on disk, staged and no more."""
    assert killed(machine, "STAGED", leaving=False)

    with worker(machine) as services:
        for asked in ({}, {"to": "1.1.0"}):
            with pytest.raises(BrokenError) as error:
                roll_back(machine, services, **asked)
            assert "nothing_to_return_to" == error.value.code
    assert "1.0.0" == machine.running
