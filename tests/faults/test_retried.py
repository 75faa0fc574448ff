# SPDX-License-Identifier: Apache-2.0
"""A release that was not well here goes live again when somebody means it to."""

import json
from dataclasses import replace

import pytest
from fakes.rig import Rig
from fakes.worker import Units, product_of, worker

from updaterd import config, status
from updaterd.core.sse import Event
from updaterd.pipeline import update as pipeline
from updaterd.pipeline.run import Request
from updaterd.store.inbox import Inbox
from updaterd.store.schema import open_state

HOUR = 3600.0
PRODUCTS = {"acme": "stable"}


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    made.push("1.0.0")
    made.update()
    made.push("1.1.0")
    yield made
    made.close()


@pytest.fixture
def now(rig):
    return [rig.publisher.now.timestamp()]


@pytest.fixture
def machine(rig, now):
    """1.1.0 was rolled back on it a moment ago; it would be well by now."""
    units = Units(faults={"1.1.0": "it fell over"}, app=rig.machine.app)
    with worker(rig.machine, clock=lambda: now[0], manager=units) as services:
        assert run(rig, services, "event").result == "rolled_back"
        yield replace(services, manager=Units())


def run(rig, services, trigger):
    product = replace(product_of(rig.machine), units=("acme.service",))
    return pipeline.update(product, services, Request(trigger=trigger))


def hear(services, now, event, **members):
    """Take an event in, as the daemon does beside the worker."""
    connection = open_state(services.state / "state.db")
    inbox = Inbox(connection, feed="https://f/", products=PRODUCTS)
    data = json.dumps({"schema": 1, "channel": "stable", **members})
    said = Event(f"{now[0]}-{event}", event, data, None, True)
    assert inbox.accept(said, now=now[0]).kind in {"update", "metadata"}
    connection.close()


def test_a_daily_event_does_not_bring_back_what_failed(rig, machine, now):
    """It went live again after 6, 24, 96 and 384 h, each time metadata was signed."""
    for _ in range(4):
        now[0] += 20 * HOUR
        hear(machine, now, "metadata")
        hear(machine, now, "update_available", product="acme", version="1.0.0")
        outcome = run(rig, machine, "event")
        assert (outcome.code, outcome.next_attempt_at) == ("blocked", None)
        assert run(rig, machine, "poll").code == "blocked"


def test_a_release_announced_anew_is_tried_again_when_its_time_has_come(
    rig, machine, now
):
    now[0] += HOUR
    hear(machine, now, "update_available", product="acme", version="1.1.0")
    waits = run(rig, machine, "event")
    assert waits.code == "blocked"
    assert waits.next_attempt_at == now[0] + 5 * HOUR

    now[0] = waits.next_attempt_at

    assert run(rig, machine, "poll").result == "installed"


def test_a_person_brings_it_back_and_is_told_of_no_attempt_that_will_not_come(
    rig, machine, now
):
    """ "next attempt in 5 h 59 min", and none came."""
    waits = run(rig, machine, "manual")
    settings = config.load(
        rig.machine.config,
        state=rig.machine.root / "state",
        cache=rig.machine.root / "cache",
        runtime=rig.machine.root / "run",
        demo=True,
    )
    with open_state(machine.state / "state.db") as connection:
        document = status.collect(connection, settings, daemon=None, now=now[0])
    assert waits.code == "blocked"
    assert (waits.next_attempt_at, document["products"][0]["next_attempt_at"]) == (
        None,
        None,
    )

    now[0] += 6 * HOUR

    assert run(rig, machine, "poll").code == "blocked"
    assert run(rig, machine, "manual").result == "installed"
