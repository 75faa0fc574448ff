# SPDX-License-Identifier: Apache-2.0
"""All releases vanish: a disk that is not mounted is no reason to install again."""

import shutil

import pytest
from fakes.worker import killed, product_of, update, worker

from updaterd.errors import TransientError
from updaterd.pipeline import by_hand


def unmounted(machine) -> None:
    """The product's folder as it is below a mount point."""
    machine.app.rename(machine.root / "elsewhere")
    machine.app.mkdir()


def mounted(machine) -> None:
    machine.app.rmdir()
    (machine.root / "elsewhere").rename(machine.app)


@pytest.mark.parametrize("state", ["", "STAGING", "ACTIVATING", "PROBATION"])
def test_root_that_is_mounted_late_is_waited_for(machine, state):
    """Nothing is written below the mount point, and it is not a release's failure."""
    if state:
        assert killed(machine, state, leaving=False)
    unmounted(machine)
    with worker(machine) as services:
        for act in (
            lambda: update(machine, services),
            lambda: by_hand.roll_back(product_of(machine), services),
            lambda: by_hand.verify(product_of(machine), services, repair=True),
        ):
            with pytest.raises(TransientError, match="mount it") as caught:
                act()
            assert "tree_gone" == caught.value.code
        assert {} == services.journal.failed("acme")
        assert "1.0.0" == services.journal.installed("acme").version
        assert services.journal.next_attempt_at("acme") is not None
    assert [] == list(machine.app.iterdir())

    mounted(machine)
    with worker(machine) as services:
        update(machine, services)
        assert "1.1.0" == services.journal.installed("acme").version
    assert "1.1.0" == machine.running


def test_releases_that_are_mounted_late_are_waited_for(machine):
    """A file system of its own for `releases`; `current` leads nowhere."""
    releases = machine.app / "releases"
    releases.rename(machine.root / "elsewhere")
    releases.mkdir()
    with worker(machine) as services, pytest.raises(TransientError) as caught:
        update(machine, services)
    assert "tree_gone" == caught.value.code
    assert [] == list(releases.iterdir())


def test_person_who_deleted_everything_says_so(machine):
    """`updaterd update acme --retry`, as the message says."""
    shutil.rmtree(machine.app)
    machine("update", "acme", expect=1)
    said = machine("update", "acme", "--retry").stdout
    assert "no release is left on disk" in said
    assert "1.1.0" == machine.running
