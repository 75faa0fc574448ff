# SPDX-License-Identifier: Apache-2.0
"""systemd that does not know a unit, or will not restart it: the machine's fault."""

import pytest
from fakes.worker import Units, update, worker

from updaterd.errors import TransientError
from updaterd.install.restart_systemd import RefusedError


class Ungranted(Units):
    """Units that nobody may restart."""

    def restart(self, units) -> None:
        super().restart(units)
        raise RefusedError("Interactive authentication required.")


def with_unit(machine, unit):
    text = machine.config.read_text()
    machine.config.write_text(f'{text}\nunits = ["{unit}"]\n')
    return machine


def test_first_release_that_brings_its_own_unit_is_installed(releases, tmp_path):
    """The unit is a link into `current`: it is there once that is."""
    fresh = with_unit(releases.machine(tmp_path / "fresh"), "bin/app")
    manager = Units(app=fresh.app, linked=("bin/app",))
    with worker(fresh, manager=manager) as services:
        assert "installed" == update(fresh, services).result
    assert ("restart", ("bin/app",)) in manager.calls


def test_update_whose_unit_is_unknown_moves_nothing_and_blocks_nothing(machine):
    with_unit(machine, "no.service")
    manager = Units(app=machine.app, linked=("no.service",))
    with worker(machine, manager=manager) as services:
        with pytest.raises(TransientError) as caught:
            update(machine, services)
        assert "restart_refused" == caught.value.code
        assert {} == services.journal.failed("acme")
    assert "1.0.0" == machine.current.readlink().name
    assert [] == [asked for asked, _ in manager.calls if asked == "restart"]


def test_restart_that_is_not_granted_goes_back_and_blocks_nothing(machine):
    """Once a person has granted it, the same release installs."""
    with_unit(machine, "acme.service")
    with worker(machine, manager=Ungranted(app=machine.app)) as services:
        outcome = update(machine, services)
        assert ("rolled_back", "restart_refused") == (outcome.result, outcome.code)
        assert {} == services.journal.failed("acme")
        assert "1.0.0" == machine.current.readlink().name
    with worker(machine) as services:
        assert "installed" == update(machine, services).result
    assert "1.1.0" == machine.current.readlink().name
