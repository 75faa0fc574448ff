# SPDX-License-Identifier: Apache-2.0
"""An owner names a release, and the machine gets that and stays there."""

import json
import shutil
from dataclasses import replace

import pytest
from fakes.rig import Rig
from fakes.worker import Units, killed, update, worker

from updaterd.cli import EXIT_ERROR, EXIT_USAGE, main
from updaterd.errors import UpdaterError
from updaterd.release import paces, publish
from updaterd.release.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """1.2.0 is installed and offered, over 1.1.0 and 1.0.0."""
    made = Rig(tmp_path_factory.mktemp("named"))
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        made.push(version)
    (made.machine.root / "state").mkdir(parents=True, exist_ok=True)
    assert "1.2.0" == run(made).version
    for folder in (made.machine.root, made.publisher.folder):
        shutil.copytree(folder, folder.with_suffix(".before"), symlinks=True)
    yield made
    made.close()


@pytest.fixture
def rig(site):
    """As it was, machine and publisher."""
    site.origin.behave()
    for folder in (site.machine.root, site.publisher.folder):
        shutil.rmtree(folder)
        shutil.copytree(folder.with_suffix(".before"), folder, symlinks=True)
    shutil.rmtree(site.folder / "trees", ignore_errors=True)
    site.publisher.space = Workspace(site.publisher.folder)
    return site


def run(rig, **asked):
    with worker(rig.machine) as services:
        return update(rig.machine, services, **asked)


def command(rig, *words, expect=0):
    assert expect == main([*words, *map(str, rig.machine.options)])


def test_a_release_below_is_installed_and_kept_until_the_owner_says(rig):
    """Without a hold, the next look would bring the newer one within seconds."""
    outcome = run(rig, to="1.1.0")
    assert ("installed", "1.1.0") == (outcome.result, rig.machine.running)
    assert "stays at 1.1.0 until `updaterd unhold acme`" in outcome.notes[-1]
    rig.push("1.3.0")
    later = run(rig, trigger="event")
    assert ("held", "1.3.0") == (later.code, later.version)
    command(rig, "unhold", "acme")
    assert "1.3.0" == run(rig, trigger="poll").version


def test_asking_what_it_would_do_changes_nothing(rig):
    outcome = run(rig, to="1.1.0", dry=True)
    assert ("pending", "step_back") == (outcome.result, outcome.code)
    assert "a person went back" in outcome.reason
    assert "current" == run(rig).code


def test_a_hold_at_a_release_brings_it_and_keeps_it(rig, capsys):
    command(rig, "hold", "acme", "--at", "1.1.0", "--reason", "fair week")
    assert "on hold at 1.1.0" in capsys.readouterr().out
    assert "installed" == run(rig, trigger="poll").result
    assert "1.1.0" == rig.machine.running
    assert "held" == run(rig, trigger="event").code
    command(rig, "hold", "acme", "--for", "7d")
    assert "at 1.1.0" in capsys.readouterr().out


def test_what_its_publisher_does_not_sign_is_no_release(rig):
    outcome = run(rig, to="9.9")
    assert ("refused", "no_such_release") == (outcome.result, outcome.code)
    assert "1.2.0" == rig.machine.running
    with worker(rig.machine) as services:  # a slip of the hand is no state
        assert services.journal.product("acme").decision == "current"


def test_an_order_that_is_refused_is_an_error_and_no_state(rig, capsys):
    """The machine is as well as before: 20 is for one that is not."""
    command(rig, "update", "acme", "--to", "9.9", expect=EXIT_ERROR)
    told = capsys.readouterr()
    assert "a person named 9.9" in told.err
    assert "nothing was changed" in told.err
    assert "" == told.out
    command(rig, "update", "acme", "--to", "9.9", "--json", expect=EXIT_ERROR)
    (line,) = capsys.readouterr().out.splitlines()
    assert {"result": "refused", "exit": 1}.items() <= json.loads(line).items()
    command(rig, "update", "acme")


def test_no_name_leads_below_the_floor(rig):
    rig.push("1.3.0", floor=3)
    assert "installed" == run(rig).result
    assert "below_floor" == run(rig, to="1.1.0").code
    assert "1.3.0" == rig.machine.running


def test_a_name_goes_before_pace_and_pause_and_needs_no_hold(rig):
    """A person decides about the machine; the channel follows when it gets there."""
    rig.push(
        "1.3.0", pace=paces.Profile(steps=(paces.Step(1000, 3600),)), offered=False
    )
    repository = rig.publisher.open()
    catalog = publish.catalog_of(rig.publisher.space, repository, "acme")
    catalog.point(replace(catalog.pointer("stable"), paused=True))
    repository.commit()
    assert "1.3.0" == run(rig, to="1.3.0").version
    with worker(rig.machine) as services:
        assert services.journal.product("acme").hold_until is None


def test_a_hold_still_counts(rig):
    command(rig, "hold", "acme")
    assert "held" == run(rig, to="1.1.0").code
    assert "1.2.0" == rig.machine.running


def test_a_name_without_a_product_is_wrong_usage(rig):
    command(rig, "update", "--to", "1.1.0", expect=EXIT_USAGE)
    command(rig, "hold", "--at", "1.1.0", expect=EXIT_USAGE)


def test_a_release_that_cannot_be_reached_takes_no_hold(rig):
    rig.origin.misbehave("targets", lambda handler: handler.send_error(503))
    with pytest.raises(UpdaterError):
        run(rig, to="1.0.0")
    with worker(rig.machine) as services:
        assert services.journal.product("acme").hold_until is None


def failing(rig):
    """Return units of which one does not run with 1.1.0."""
    with rig.machine.config.open("a") as file:
        file.write('\nunits = ["acme.service"]\n')
    return Units(faults={"1.1.0": "it crashes"}, app=rig.machine.app)


def hold_of(rig):
    with worker(rig.machine) as services:
        return services.journal.product("acme").hold_at


def test_a_release_that_waits_to_be_activated_is_not_replaced_by_a_newer_one(rig):
    """It was told that the product stays there, so the hold outlives the command."""
    with rig.machine.config.open("a") as file:
        file.write('\nactivate = "on-request"\n')
    outcome = run(rig, to="1.1.0")
    assert ("waits_for_request", "1.1.0") == (outcome.code, outcome.version)
    assert "stays at 1.1.0" in outcome.notes[-1]
    with worker(rig.machine) as services:
        later = update(rig.machine, services, trigger="event")
        assert ("waits_for_request", "1.1.0") == (later.code, later.version)
        seq = services.journal.open_deployment("acme").seq
        services.journal.remember("acme", apply_seq=seq)
        assert "1.1.0" == update(rig.machine, services, trigger="event").version
        assert "held" == update(rig.machine, services, trigger="event").code


def test_a_release_that_fails_on_trial_takes_no_hold(rig):
    units = failing(rig)
    with worker(rig.machine, manager=units) as services:
        outcome = update(rig.machine, services, to="1.1.0")
    assert ("rolled_back", "") == (outcome.result, hold_of(rig))
    assert not [note for note in outcome.notes if "stays at" in note]


def test_a_hold_that_a_person_set_stays_when_the_release_fails(rig):
    command(rig, "hold", "acme", "--at", "1.1.0")
    units = failing(rig)
    with worker(rig.machine, manager=units) as services:
        assert "rolled_back" == update(rig.machine, services, to="1.1.0").result
        assert "blocked" == update(rig.machine, services, trigger="poll").code
    assert "1.1.0" == hold_of(rig)


def test_killed_while_it_is_left_the_release_takes_no_hold(rig):
    """Whoever ordered it is not there any more to end the hold: the next look does."""
    units = failing(rig)

    def order(machine, services):
        update(machine, services, to="1.1.0")

    assert killed(rig.machine, "ROLLING_BACK", leaving=False, act=order, manager=units)
    assert "1.1.0" == hold_of(rig)
    with worker(rig.machine, manager=units) as services:
        assert "current" == update(rig.machine, services, trigger="boot").code
    assert ("1.2.0", "") == (rig.machine.running, hold_of(rig))
