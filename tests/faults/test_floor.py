# SPDX-License-Identifier: Apache-2.0
"""A release's signed floor counts from the moment it is installed, whoever dies."""

import pytest
from fakes.rig import Rig
from fakes.worker import killed, product_of, worker

from updaterd.errors import RejectedError
from updaterd.pipeline import by_hand, recover


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    made.push("1.0.0")
    made.update()
    made.push("1.1.0", floor=2)
    yield made
    made.close()


@pytest.mark.parametrize("state", ["ACTIVATING", "INSTALLED"])
def test_the_floor_of_a_release_outlives_its_run(rig, state):
    """Killed in the trial and finished by the next start; or right after its end."""
    assert killed(rig.machine, state, leaving=False)

    with worker(rig.machine) as services:
        recover.recover(product_of(rig.machine), services)
        assert rig.machine.running == "1.1.0"
        assert services.journal.floor("acme") == 2
        with pytest.raises(RejectedError) as caught:
            by_hand.roll_back(product_of(rig.machine), services)
    assert caught.value.code == "below_floor"


@pytest.mark.parametrize("state", ["STAGED", "PROBATION"])
def test_a_release_that_was_not_proven_raises_no_floor(rig, state):
    """What is left again must not forbid where the machine goes back to."""
    assert killed(rig.machine, state, leaving=False)

    with worker(rig.machine) as services:
        recover.recover(product_of(rig.machine), services)
        assert rig.machine.running == "1.0.0"
        assert services.journal.floor("acme") == 0
