# SPDX-License-Identifier: Apache-2.0
"""Killed in a state, started again: it ends right. One test a state, twice each.

Once right after the state was journalled, before its work; once after its work,
before the next state is journalled. SIGKILL, in a process of its own.
"""

import pytest
from fakes.trees import snapshot
from fakes.worker import Units, killed, product_of, update, worker

from updaterd.core.lifecycle import State
from updaterd.pipeline import recover

MOMENTS = pytest.mark.parametrize("leaving", [False, True], ids=["entered", "leaving"])


def whole(releases, machine, version: str) -> bool:
    return snapshot(machine.current) == releases.trees[version]


def ended(services) -> list[tuple[str, str, str]]:
    """Return state, version and code of each deployment, oldest first."""
    rows = reversed(services.journal.history("acme"))
    return [(str(row.state), row.version, row.code) for row in rows]


@MOMENTS
@pytest.mark.parametrize(
    "state", ["QUEUED", "PLANNED", "FETCHING", "STAGING", "STAGED", "ACTIVATING"]
)
def test_up_to_activation_the_same_deployment_goes_on(
    releases, machine, state, leaving
):
    assert killed(machine, state, leaving=leaving)
    assert any(whole(releases, machine, version) for version in ("1.0.0", "1.1.0"))

    with worker(machine) as services:
        outcome = update(machine, services)

        assert whole(releases, machine, "1.1.0")
        assert outcome.result in ("installed", "current")
        assert ["1.0.0", "1.1.0"] == [row[1] for row in ended(services)]
        assert {"INSTALLED"} == {row[0] for row in ended(services)}
        assert services.journal.open_deployment("acme") is None


@MOMENTS
def test_in_probation_it_goes_back_and_tries_again(releases, machine, leaving):
    """The worker was killed, not the release: nothing is held against it yet."""
    assert killed(machine, "PROBATION", leaving=leaving)
    assert whole(releases, machine, "1.1.0")

    with worker(machine) as services:
        outcome = update(machine, services)

        assert "installed" == outcome.result
        assert [
            ("ROLLED_BACK", "1.1.0", "interrupted_in_probation"),
            ("INSTALLED", "1.1.0", "upgrade"),
        ] == ended(services)[1:]
    assert whole(releases, machine, "1.1.0")


@MOMENTS
def test_a_reboot_in_probation_rolls_back_and_blocks(releases, machine, leaving):
    """The release may be what brought the machine down: it waits."""
    assert killed(machine, "PROBATION", leaving=leaving)
    units = Units()

    with worker(machine, boot="boot-2", manager=units) as services:
        outcome = update(machine, services)

        assert ("blocked", "1.1.0") == (outcome.result, outcome.version)
        assert ("ROLLED_BACK", "1.1.0", "rebooted_in_probation") == ended(services)[-1]
        assert ("restart", ()) in units.calls
    assert whole(releases, machine, "1.0.0")


def test_killed_in_probation_again_and_again_the_release_is_left_alone(
    releases, machine
):
    """Three kills are the worker's bad luck; more look like the release's doing."""
    for _ in range(4):
        assert killed(machine, "PROBATION", leaving=False)

    with worker(machine) as services:
        assert "blocked" == update(machine, services).result
    assert whole(releases, machine, "1.0.0")


@MOMENTS
def test_while_rolling_back_it_goes_on_rolling_back(releases, machine, leaving):
    """With the verdict that was found, not a new one, and 1.1.0 stays blocked."""
    sick = Units(faults={"1.1.0": "acme.service is failed"}, app=machine.app)
    with machine.config.open("a") as file:
        file.write('\nunits = ["acme.service"]\n')
    assert killed(machine, "ROLLING_BACK", leaving=leaving, manager=sick)

    with worker(machine, manager=sick) as services:
        recover.recover(product_of(machine), services)

        (row, *_) = services.journal.history("acme")
        assert (State.ROLLED_BACK, "unhealthy") == (row.state, row.code)
        assert "acme.service is failed" == row.reason
        restarted, watched = sick.calls  # those of the fork are not seen here
        assert ("restart", ("acme.service",)) == restarted
        assert "watch" in watched[0]
        assert "blocked" == update(machine, services).result
    assert whole(releases, machine, "1.0.0")


def test_after_the_end_nothing_is_left_to_do(releases, machine):
    assert killed(machine, "INSTALLED", leaving=False)

    with worker(machine) as services:
        assert "current" == update(machine, services).result
        assert 2 == len(ended(services))
    assert whole(releases, machine, "1.1.0")


def test_staged_work_is_not_done_again(releases, machine):
    """A release that is whole on disk is not downloaded again after a kill."""
    assert killed(machine, "STAGED", leaving=False)

    with worker(machine) as services:
        update(machine, services)
        (row, *_) = services.journal.history("acme")
        states = [step.state for step in services.journal.transitions(row.id)]

    assert "its tree is on disk already" in row.reason
    assert row.bytes_fetched
    assert "nothing downloaded" not in row.reason
    assert 1 == states.count(State.FETCHING) == states.count(State.STAGING)


def test_first_install_that_is_not_well_leaves_nothing_running(releases, machine):
    """Nothing ran before, so nothing runs after, and the units are stopped."""
    fresh = releases.machine(releases.root / "fresh")
    sick = Units(faults={"1.1.0": "dead"}, app=fresh.app)
    fresh.config.write_text(fresh.config.read_text() + '\nunits = ["acme.service"]\n')

    with worker(fresh, manager=sick) as services:
        outcome = update(fresh, services)

        assert ("rolled_back", None) == (outcome.result, outcome.version)
        assert ("stop", ("acme.service",)) == sick.calls[-1]
        assert "blocked" == update(fresh, services).result
    assert not fresh.current.is_symlink()
