# SPDX-License-Identifier: Apache-2.0
"""The machine, or updaterd, is told to stop during a trial: nobody's failure."""

import os
import signal

import pytest
from fakes.trees import snapshot
from fakes.worker import Units, killed, product_of, update, worker

from updaterd.core.lifecycle import State
from updaterd.daemon import outcomes
from updaterd.errors import TransientError
from updaterd.install.restart_systemd import RefusedError, RestartError, Systemd
from updaterd.pipeline import recover

CANCELED = "Job for acme.service canceled."


class Stopping(Units):
    """systemd on its way down: nothing starts any more, and it says why, or nothing.

    With `signals`, this process is told to end meanwhile, as its unit is.
    """

    def __init__(self, error, *, answer=True, signals=False, **more):
        super().__init__(**more)
        self._error, self._answer, self._signals = error, answer, signals

    def restart(self, units) -> None:
        super().restart(units)
        if self._signals:
            os.kill(os.getpid(), signal.SIGTERM)
        raise self._error

    def is_stopping(self):
        return self._answer


@pytest.fixture
def served(machine):
    with machine.config.open("a") as file:
        file.write('\nunits = ["acme.service"]\n')
    return machine


def state(services):
    found = services.journal.open_deployment("acme")
    return (str(found.state), found.code) if found else None


@pytest.mark.parametrize(
    "error",
    [RestartError(CANCELED), RefusedError("Failed to restart: transport endpoint")],
)
def test_release_on_trial_when_the_machine_stops_is_not_blamed(releases, served, error):
    """It stays on trial, and after the boot its trial is held again, and passes."""
    with worker(served, manager=Stopping(error, app=served.app)) as services:
        with pytest.raises(TransientError) as caught:
            update(served, services)
        assert "system_stopping" == caught.value.code
        assert ("PROBATION", "system_stopping") == state(services)
        assert {} == services.journal.failed("acme")

    with worker(served, boot="boot-2") as services:
        update(served, services)
        assert ("1.1.0", {}) == (
            services.journal.installed("acme").version,
            services.journal.failed("acme"),
        )
    assert releases.trees["1.1.0"] == snapshot(served.current)


def test_health_that_fails_because_the_machine_stops_is_nobodys(served):
    """What it asks was stopped first."""
    manager = Stopping(None, app=served.app, faults={"1.1.0": "acme is inactive"})
    manager.restart = lambda _: None
    with worker(served, manager=manager) as services:
        with pytest.raises(TransientError, match="told to stop"):
            update(served, services)
        assert ("PROBATION", "system_stopping") == state(services)


def test_bus_that_is_gone_and_a_signal_to_end_are_a_machine_that_stops(served):
    """In a fork: the signal that was put off ends the process afterwards."""
    pid = os.fork()
    if pid == 0:
        try:
            manager = Stopping(RestartError(CANCELED), answer=None, signals=True)
            with worker(served, manager=manager) as services:
                update(served, services)
        finally:
            os._exit(70)
    _, ended = os.waitpid(pid, 0)
    assert -signal.SIGTERM == os.waitstatus_to_exitcode(ended)

    with worker(served, boot="boot-2") as services:
        assert ("PROBATION", "system_stopping") == state(services)
        update(served, services)
        assert {} == services.journal.failed("acme")
    assert "1.1.0" == served.running


def test_stop_of_updaterd_alone_excuses_no_release_that_is_not_well(served):
    """The machine goes on: what failed then failed by itself."""
    manager = Units(app=served.app, faults={"1.1.0": "acme.service is failed"})
    with worker(served, manager=manager) as services:
        assert "rolled_back" == update(served, services).result
        assert "unhealthy" == services.journal.failed("acme")["1.1.0"].code


def test_return_that_the_machines_stop_interrupts_goes_on_after_the_boot(served):
    """The release was not well before; that the old one does not start says nothing."""

    class Late(Units):
        down = False

        def fault(self, units, *, active_s):
            self.down = self.down or "1.0.0" == served.running
            return "acme.service is inactive"

        def is_stopping(self):
            return self.down

    with worker(served, manager=Late()) as services:
        with pytest.raises(TransientError, match="was being left for"):
            update(served, services)
        assert "ROLLING_BACK" == state(services)[0]

    with worker(served, boot="boot-2") as services:
        assert "blocked" == update(served, services).result
        (row, *_) = services.journal.history("acme")
        assert ("ROLLED_BACK", "unhealthy") == (row.state, row.code)


def test_worker_killed_by_the_stop_of_the_daemon_is_excused(releases, machine):
    """It did not come to its verdict in the time that a unit has to stop."""
    assert killed(machine, "PROBATION", leaving=False)
    with worker(machine) as services:
        outcomes.excuse(services.journal, now=1.0)

    with worker(machine, boot="boot-2") as services:
        update(machine, services)
        assert {} == services.journal.failed("acme")
        (row, *_) = services.journal.history("acme")
        assert ("INSTALLED", "1.1.0") == (row.state, row.version)


def test_machine_that_stops_in_each_trial_is_stopped_by_the_release(served):
    """A release that shuts the machine down as it starts would do so for ever."""
    for number in range(6):
        manager = Stopping(RestartError(CANCELED), app=served.app)
        with (
            worker(served, manager=manager, boot=f"boot-{number}") as services,
            pytest.raises(TransientError),
        ):
            update(served, services)

    with worker(served, boot="boot-6") as services:
        recover.recover(product_of(served), services)
        (row, *_) = services.journal.history("acme")
        assert (State.ROLLED_BACK, "rebooted_in_probation") == (row.state, row.code)
    assert "1.0.0" == served.running


def test_restart_that_a_person_cancels_blocks_no_release(served):
    """`systemctl stop acme` while it restarts: another job took its place."""
    manager = Systemd(("/bin/sh", "-c", f"echo '{CANCELED}' >&2; exit 1", "-"))

    with pytest.raises(RefusedError):
        manager.restart(["acme.service"])


@pytest.mark.parametrize(
    ("said", "stopping"),
    [("stopping", True), ("running", False), ("degraded", False), ("offline", False),
     ("Failed to connect to bus: No such file or directory", None), ("", None)],
)  # fmt: skip
def test_what_systemd_says_of_itself(said, stopping):
    manager = Systemd(("/bin/sh", "-c", f"echo '{said}'; exit 1", "-"))

    assert manager.is_stopping() is stopping


def test_without_systemd_nothing_stops():
    assert Systemd(("/nonexistent/systemctl",)).is_stopping() is False
