# SPDX-License-Identifier: Apache-2.0
"""`remove` takes what updaterd brought, all of it and nothing else; it stays away.

The kill points of it are a campaign of killpoints.py.
"""

import os
import subprocess
from pathlib import Path

import pytest
from fakes.tools import need, need_root
from fakes.trees import snapshot
from fakes.worker import Units, killed, product_of, update, worker

from updaterd.errors import BrokenError, UpdaterError
from updaterd.install.restart_systemd import RefusedError
from updaterd.pipeline import by_hand


def remove(machine, services):
    return by_hand.remove(product_of(machine), services)


@pytest.fixture
def updated(releases, machine):
    """A machine on which 1.0.0 ran and 1.1.0 runs, with a unit."""
    with machine.config.open("a") as file:
        file.write('\nunits = ["acme.service"]\n')
    with worker(machine) as services:
        assert "installed" == update(machine, services).result
    return machine


def test_removed_product_leaves_nothing_and_does_not_come_back(updated):
    units = Units()
    with worker(updated, manager=units) as services:
        removed = remove(updated, services)

        assert ("1.1.0", ()) == (removed.version, removed.others)
        assert ("stop", ("acme.service",)) in units.calls
        assert not updated.app.exists()
        assert services.journal.installed("acme") is None
        assert () == tuple(services.journal.releases("acme"))
        assert not (services.cache / "bundles" / "acme").exists()
        outcome = update(updated, services, forced=True, retry_blocked=True)
        assert ("held", "removed by hand" in outcome.reason) == (outcome.result, True)
        (row, *_) = services.journal.history("acme")
        assert ("remove", "removed", "1.1.0") == (row.trigger, row.code, row.version)


def test_removed_product_comes_again_when_the_hold_ends(updated):
    with worker(updated) as services:
        remove(updated, services)
        services.journal.unhold("acme")

        assert ("installed", None) == (
            (outcome := update(updated, services)).result, outcome.from_version,
        )  # fmt: skip
    assert "1.1.0" == updated.running


def test_what_is_not_updaterds_stays(updated):
    """In the root, and wherever a link leads that a person put among the releases."""
    outside = updated.root / "letters"
    outside.mkdir()
    (outside / "letter").write_text("mine")
    (updated.app / "data").mkdir()
    (updated.app / "data" / "letter").write_text("mine")
    (updated.app / "releases" / "0.9-letters").symlink_to(outside)

    with worker(updated) as services:
        removed = remove(updated, services)

    assert ("data",) == removed.others
    assert ["data"] == os.listdir(updated.app)
    assert "mine" == (updated.app / "data/letter").read_text()
    assert "mine" == (outside / "letter").read_text()


def test_a_current_that_a_person_replaced_stays(updated):
    """A directory by that name is nothing that updaterd made."""
    updated.current.unlink()
    updated.current.mkdir()
    (updated.current / "app").write_text("somebody's")

    with worker(updated) as services:
        removed = remove(updated, services)

    assert ("current",) == removed.others
    assert {"current"} == set(os.listdir(updated.app))


@pytest.mark.parametrize("where", ["releases/1.1.0/lib/mnt", "releases/1.0.0"])
def test_a_mounted_file_system_is_not_emptied(updated, where, tmp_path):
    need_root()
    tool = need("mount")
    disk, place = tmp_path / "disk", updated.app / where
    disk.mkdir()
    (disk / "photo").write_text("1")
    place.mkdir(exist_ok=True, parents=True)
    subprocess.run([tool, "--bind", disk, place], check=True)
    try:
        with worker(updated) as services, pytest.raises(BrokenError) as caught:
            remove(updated, services)
        assert "in_the_way" == caught.value.code
        assert "1" == (disk / "photo").read_text()
        assert not os.path.lexists(updated.current)
    finally:
        subprocess.run(["umount", place], check=True)
    with worker(updated) as services:
        assert "held" == update(updated, services).result  # which has finished it
    assert not updated.app.exists()
    assert "1" == (disk / "photo").read_text()


def test_a_unit_that_does_not_stop_keeps_its_files(updated):
    class Stubborn(Units):
        def stop(self, units):
            raise RefusedError("no")

    before = snapshot(updated.app)
    with worker(updated, manager=Stubborn()) as services:
        with pytest.raises(UpdaterError):
            remove(updated, services)
        assert before == snapshot(updated.app)


@pytest.mark.parametrize("state", ["STAGED", "ACTIVATING", "PROBATION"])
def test_what_an_update_left_half_done_goes_too(machine, state):
    """Each state of a dead run has a way out."""
    assert killed(machine, state, leaving=False)

    with worker(machine) as services:
        remove(machine, services)

        assert services.journal.open_deployment("acme") is None
        assert {} == dict(services.journal.failed("acme"))
    assert not machine.app.exists()


def test_a_removal_killed_after_its_order_is_finished_by_the_next_run(updated):
    assert killed(updated, "QUEUED", leaving=True, act=remove)  # at its very end
    assert not Path(updated.current).exists()

    with worker(updated) as services:
        assert "held" == update(updated, services).result
        assert services.journal.open_deployment("acme") is None


def test_updaterd_does_not_remove_itself(machine):
    with worker(machine) as services, pytest.raises(BrokenError) as caught:
        by_hand.remove(product_of(machine, name="updaterd"), services)
    assert "not_removable" == caught.value.code
