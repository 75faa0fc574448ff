"""`rm /opt/updaterd/current`: the way out of a bad updaterd holds until it is ended."""

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
