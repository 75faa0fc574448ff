# SPDX-License-Identifier: Apache-2.0
"""What people and their programs do to a machine while no updater looks.

Each of these once left a machine that no release could heal, or that told what was
not so.
"""

import os
import shutil

import pytest
from fakes.trees import snapshot
from fakes.worker import killed, product_of, update, worker

from updaterd.errors import BrokenError, TransientError
from updaterd.pipeline import by_hand, recover

TOUCHED = pytest.mark.parametrize("state", ["ACTIVATING", "PROBATION", "ROLLING_BACK"])


def runs(releases, machine, version: str) -> bool:
    return (
        snapshot(machine.current) == releases.trees[version]
        and machine.running == version
    )


def roll_back(machine, services):
    return by_hand.roll_back(product_of(machine), services)


def kill_in(machine, state: str, *, act=update) -> None:
    """Leave a deployment in a state in which `current` may have moved."""
    unhealthy = state == "ROLLING_BACK"
    if unhealthy:
        text = machine.config.read_text()
        machine.config.write_text(text.replace("command = [", 'command = ["false", '))
    assert killed(machine, state, leaving=False, act=act)
    if unhealthy:
        machine.config.write_text(text)


@TOUCHED
def test_application_deleted_during_a_trial_is_installed_anew(releases, machine, state):
    """Nothing on disk is nothing to go back to; it must not stop all updates."""
    kill_in(machine, state)
    shutil.rmtree(machine.app)

    with worker(machine) as services:
        outcome = update(machine, services, retry_blocked=True)

        assert "installed" == outcome.result
        assert any("no release is left" in note for note in outcome.notes)
        (_, begun, *_) = services.journal.history("acme")
        assert ("FAILED", "nothing_on_disk") == (begun.state, begun.code)
    assert runs(releases, machine, "1.1.0")


@pytest.mark.parametrize("state", ["PROBATION", "ROLLING_BACK"])
def test_old_release_deleted_during_a_trial_is_told_once(releases, machine, state):
    """Without a way back a person is told, and the next release still installs."""
    kill_in(machine, state)
    shutil.rmtree(machine.app / "releases" / "1.0.0")

    with worker(machine) as services:
        with pytest.raises(BrokenError, match=r"1\.0\.0 is not on disk") as caught:
            update(machine, services)
        assert "nothing_to_return_to" == caught.value.code
        assert "publish a release" in caught.value.do
        assert runs(releases, machine, "1.1.0")

        again = update(machine, services)

        assert again.result in ("current", "blocked")
        (row, *_) = services.journal.history("acme")
        assert "FAILED" == row.state
        assert services.journal.open_deployment("acme") is None


@TOUCHED
def test_interrupted_roll_back_by_hand_blocks_only_what_was_left(
    releases, machine, state
):
    """Wherever it ends up, the release that runs is not called a failure."""
    machine("update", "acme")
    kill_in(machine, state, act=roll_back)

    with worker(machine) as services:
        recover.recover(product_of(machine), services)

        running = machine.running
        assert running == services.journal.installed("acme").version
        assert running not in services.journal.failed("acme")
    assert runs(releases, machine, running)


def test_roll_back_that_the_disk_refuses_blocks_nothing(releases, machine):
    """What runs on is not held for a failure when `current` could not be moved."""
    machine("update", "acme")
    in_the_way = machine.app / ".previous.new"  # where the next link is made
    in_the_way.mkdir()

    with worker(machine) as services:
        with pytest.raises((BrokenError, TransientError)):
            roll_back(machine, services)
        assert {} == services.journal.failed("acme")
        in_the_way.rmdir()
        assert "current" == update(machine, services).result
    assert runs(releases, machine, "1.1.0")


def test_names_that_are_no_text_are_nobodys_release(releases, machine):
    """A folder of bytes among the releases is left alone, and in nobody's way."""
    odd = os.fsencode(machine.app / "releases") + b"/caf\xe9"
    os.mkdir(odd)

    with worker(machine) as services:
        assert "installed" == update(machine, services).result

    assert os.path.isdir(odd)
    assert runs(releases, machine, "1.1.0")


def test_health_check_killed_by_a_nameless_signal_is_a_verdict(releases, machine):
    """Real-time signals have numbers without names."""
    text = machine.config.read_text()
    killer = machine.root / "killer"
    killer.write_text("#!/bin/sh\n[ $UPDATERD_VERSION = 1.0.0 ] || kill -35 $$\n")
    killer.chmod(0o755)
    machine.config.write_text(text.replace("command = [", f'command = ["{killer}", '))

    machine("update", "acme", expect=30)

    assert runs(releases, machine, "1.0.0")
    assert "killed by signal 35" in machine.product_status()["last"]["reason"]


def test_health_check_of_the_old_release_is_told_of_the_old_release(releases, machine):
    """One that compares versions must not call the restored release unhealthy."""
    asks = "import os, sys; v = os.environ['UPDATERD_VERSION']; here = os.readlink("
    asks += f"'{machine.current}'); sys.exit(here[9:] != v or v == '1.1.0')"
    script = machine.root / "asks"
    script.write_text(f"#!/usr/bin/env python3\n{asks}\n")
    script.chmod(0o755)
    text = machine.config.read_text()
    machine.config.write_text(text.replace("command = [", f'command = ["{script}", '))

    machine("update", "acme", expect=30)

    assert runs(releases, machine, "1.0.0")
    assert "ROLLED_BACK" == machine.product_status()["last"]["state"]


def test_worker_told_to_end_on_trial_leaves_word(releases, machine):
    """SIGTERM waits for the verdict, and the verdict is told and journalled."""
    text = machine.config.read_text()
    asks = '"sh", "-c", "kill -TERM $PPID; exec $0", '
    machine.config.write_text(text.replace("command = [", f"command = [{asks}"))

    said = machine("update", "acme", expect=-15).stdout

    assert "SIGTERM" in said
    assert "updaterd status" in said
    found = machine.product_status()
    assert "1.1.0" == found["installed"]["version"]
    assert ("current", "1.1.0 is installed") == tuple(found["decision"].values())
