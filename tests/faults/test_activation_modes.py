# SPDX-License-Identifier: Apache-2.0
"""A release that is ready waits for the application, a person or a window; and ends."""

import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fakes.worker import killed, product_of, worker

from updaterd.core.settings import Schedule
from updaterd.pipeline import update as pipeline
from updaterd.pipeline.run import Request
from updaterd.store.journal import Release
from updaterd.system import inhibitions

DAY = 86400.0


def look(machine, services, mode="at-once", **asked):
    """Let one worker do what there is to do, as the daemon does."""
    product = replace(product_of(machine), activate=mode)
    return pipeline.update(product, services, Request(**{"trigger": "poll", **asked}))


def later(services, seconds):
    return replace(services, clock=lambda: services.clock() + seconds)


def _never():
    raise AssertionError("the repository was asked")


@contextmanager
def application(machine):
    """Run the installed release as a person does, until the block is over."""
    program = machine.current / "bin" / "app"
    with program.open() as script:  # as a shell has what it runs
        process = subprocess.Popen(
            ["/bin/sleep", "600"], stdin=script, start_new_session=True
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_on_request_it_is_fetched_and_proven_and_waits(machine):
    with worker(machine) as services:
        outcome = look(machine, services, "on-request")

        assert (outcome.code, machine.running) == ("waits_for_request", "1.0.0")
        assert services.journal.open_deployment("acme").state == "STAGED"
        assert (machine.app / "releases/1.1.0/bin/app").exists()

        services.journal.remember("acme", apply_seq=2)
        assert look(machine, services, "on-request").result == "installed"
        assert services.journal.product("acme").apply_seq is None
    assert machine.running == "1.1.0"


def test_a_look_at_what_waits_asks_nobody_and_a_request_is_asked_about(machine):
    with worker(machine) as services:
        look(machine, services, "on-request")
        nowhere = replace(services, trust=_never)
        for _ in range(3):
            assert look(machine, nowhere, "on-request").code == "waits_for_request"

        with pytest.raises(AssertionError, match="asked"):
            look(machine, later(nowhere, 3700.0), "on-request")
        with pytest.raises(AssertionError, match="asked"):
            look(machine, nowhere, "on-request", trigger="event")


def test_at_exit_it_waits_for_the_last_process(machine):
    with worker(machine) as services:
        with application(machine):
            outcome = look(machine, services, "at-exit")
            assert (outcome.code, machine.running) == ("waits_for_exit", "1.0.0")
            assert 0 < outcome.next_attempt_at - time.time() <= 30

            assert look(machine, services, "at-exit").code == "waits_for_exit"
        assert look(machine, services, "at-exit").result == "installed"


def test_at_exit_nobody_waits_for_an_application_that_does_not_run(machine):
    with worker(machine) as services:
        assert look(machine, services, "at-exit").result == "installed"


def test_while_the_application_asks_to_wait_even_a_request_waits(machine):
    with worker(machine) as services:
        with inhibitions.ask(services.state, "acme", "a call is on"):
            outcome = look(machine, services)
            assert outcome.code == "inhibited"
            assert "a call is on" in outcome.reason
            services.journal.remember("acme", apply_seq=2)
            assert look(machine, services).code == "inhibited"
        assert look(machine, services).result == "installed"


def test_an_application_that_died_asks_for_nothing(machine):
    """Its lock is the kernel's to give back, whatever stands in the file."""
    with worker(machine) as services:
        with inhibitions.ask(services.state, "acme", "a call is on"):
            pass
        assert look(machine, services).result == "installed"


def test_postponed_it_waits_until_then_and_not_beyond_the_deadline(machine):
    with worker(machine) as services:
        look(machine, services, "on-request")
        until = services.clock() + DAY
        services.journal.remember("acme", postponed_until=until)
        outcome = look(machine, services)
        assert (outcome.code, outcome.next_attempt_at) == ("postponed", until)

        short = replace(services, schedule=Schedule(max_deferral_s=0.0))
        assert look(machine, short, trigger="event").result == "installed"
        assert services.journal.product("acme").postponed_until is None


def test_a_postponement_ends_with_what_was_postponed(machine):
    """Its time has come meanwhile, and that says nothing of what comes later."""
    with worker(machine) as services:
        look(machine, services, "on-request")
        services.journal.remember("acme", postponed_until=services.clock() + 60.0)
        target = Release("1.1.0", services.journal.open_deployment("acme").seq, "")
        services.journal.block("acme", target, services.note("unhealthy", "it fails"))
        outcome = look(machine, services, "on-request", trigger="event")
        assert outcome.result == "blocked"

        services.journal.unblock("acme", "1.1.0")
        outcome = look(machine, later(services, 3700.0), "on-request")
        assert outcome.code == "waits_for_request"


def test_killed_before_its_end_was_noted_a_postponement_ends_all_the_same(machine):
    with worker(machine) as services:
        look(machine, services, "on-request")
        services.journal.remember("acme", postponed_until=services.clock() - 1.0)
    assert killed(
        machine,
        "INSTALLED",
        leaving=False,
        act=lambda machine, services: look(machine, services, "on-request"),
    )
    with worker(machine) as services:
        assert look(machine, services, "on-request", trigger="boot").code == "current"
        assert services.journal.product("acme").postponed_until is None


@pytest.mark.parametrize("mode", ["on-request", "at-exit"])
def test_whatever_asks_to_wait_the_deadline_ends_it(machine, mode):
    with worker(machine) as services, application(machine):
        assert look(machine, services, mode).result == "pending"
        with inhibitions.ask(services.state, "acme", "for ever"):
            # the retry comes with the deadline: `until` is never beyond it
            schedule = Schedule(max_deferral_s=3600.0)
            late = later(replace(services, schedule=schedule), 3700.0)
            assert look(machine, late, mode).result == "installed"


def test_a_person_who_says_now_waits_for_nothing(machine):
    with worker(machine) as services:
        look(machine, services, "on-request")
        outcome = look(machine, services, "on-request", trigger="manual", forced=True)
        assert outcome.result == "installed"


def test_in_the_window_it_is_activated_having_been_fetched_before(machine):
    opens = datetime.now(UTC) + timedelta(hours=3)
    closes = opens + timedelta(hours=1)
    text = f"{opens:%H:%M}-{closes:%H:%M} UTC"
    with worker(machine) as services:
        waiting = replace(services, schedule=Schedule(window=text))
        outcome = look(machine, waiting, "window")
        assert (outcome.code, machine.running) == ("waits_for_window", "1.0.0")
        assert (machine.app / "releases/1.1.0/bin/app").exists()

        inside = later(waiting, 3.5 * 3600)
        assert look(machine, inside, "window").result == "installed"


def test_a_hold_goes_before_a_request(machine):
    with worker(machine) as services:
        look(machine, services, "on-request")
        services.journal.hold("acme")
        services.journal.remember("acme", apply_seq=2)
        assert look(machine, services, "on-request").result == "held"
    assert machine.running == "1.0.0"


@pytest.mark.parametrize("state", ["STAGED", "ACTIVATING", "PROBATION"])
@pytest.mark.parametrize("leaving", [False, True])
def test_killed_at_each_step_of_a_request_the_next_start_ends_it(
    machine, state, leaving
):
    """The wish stands in the journal until the release is installed."""
    with worker(machine) as services:
        look(machine, services, "on-request")
        services.journal.remember("acme", apply_seq=2)
    assert killed(
        machine,
        state,
        leaving=leaving,
        act=lambda machine, services: look(machine, services, "on-request"),
    )
    with worker(machine) as services:
        for _ in range(2):
            look(machine, services, "on-request", trigger="boot")
        assert services.journal.installed("acme").version == "1.1.0"
        assert services.journal.open_deployment("acme") is None
    assert machine.running == "1.1.0"


def test_at_last_a_newer_release_takes_the_place_of_one_that_waits(releases, machine):
    with worker(machine) as services:
        look(machine, services, "on-request")
        services.journal.remember("acme", apply_seq=2)
        releases.push("1.2.0")
        # nobody asked for this one
        outcome = look(machine, services, "on-request", trigger="event")
        assert (outcome.code, outcome.version) == ("waits_for_request", "1.2.0")


@pytest.mark.parametrize("why", ["metered", "on_battery"])
def test_what_a_person_pays_for_waits_and_not_for_ever(machine, why):
    with worker(machine) as services:
        costly = replace(
            services,
            download=replace(services.download, metered_max=0),
            schedule=Schedule(max_deferral_s=3600.0, on_battery="hold"),
            **{why: lambda: True},
        )
        outcome = look(machine, costly)
        assert (outcome.code, outcome.result) == (why, "pending")
        assert not list((machine.root / "cache").rglob("*.part"))
        assert services.journal.product("acme").failures == 0

        assert look(machine, later(costly, 3700.0)).result == "installed"


def test_what_is_small_does_not_ask_whether_the_network_is_metered(machine):
    with worker(machine) as services:
        assert look(machine, replace(services, metered=_never)).result == "installed"
