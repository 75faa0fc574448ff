# SPDX-License-Identifier: Apache-2.0
"""What changes while a release is fetched and built counts before it is activated."""

import math
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from fakes.rig import Rig
from fakes.worker import product_of, worker

from updaterd.core.settings import Hooks, Schedule
from updaterd.pipeline import update as pipeline
from updaterd.pipeline.run import Request
from updaterd.release import publish
from updaterd.store.journal import Journal
from updaterd.store.schema import open_state


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    made.push("1.0.0")
    made.update()
    made.push("1.1.0")
    yield made
    made.close()


class Meanwhile:
    """Does something once, while the worker is at work on 1.1.0."""

    def __init__(self, rig, act):
        self._rig, self._act = rig, act
        self.done = 0

    def answer(self, handler):
        if not self.done:
            self.done += 1
            self._act()
        if "hook" in handler.path:
            handler.whole(b"")
        else:
            handler.file(self._rig.origin.root / handler.path.lstrip("/"))

    def during(self, step):
        """Return the hooks that make it happen during `step`."""
        self._rig.origin.misbehave("hook" if step else "/blobs/", self.answer)
        asks = f"import urllib.request as r; r.urlopen('{self._rig.origin.url}/hook')"
        asked = (sys.executable, "-I", "-c", asks)
        return Hooks(**({step: asked} if step else {}))


STEPS = pytest.mark.parametrize(
    "step", ["", "pre_stage", "self_test", "pre_activate"], ids=lambda s: s or "fetch"
)


def run(rig, services, hooks, **asked):
    product = replace(product_of(rig.machine), hooks=hooks)
    return pipeline.update(product, services, Request(**asked))


@STEPS
def test_a_hold_set_meanwhile_holds(rig, step):
    def hold():  # as another process does
        with closing(open_state(services.state / "state.db")) as connection:
            Journal(connection).hold("acme")

    with worker(rig.machine) as services:
        meanwhile = Meanwhile(rig, hold)
        outcome = run(rig, services, meanwhile.during(step))

        assert (meanwhile.done, outcome.result) == (1, "held")
        assert rig.machine.running == "1.0.0"
        assert services.journal.open_deployment("acme").state == "STAGED"

        services.journal.unhold("acme")
        sent = rig.origin.sent
        assert run(rig, services, Hooks()).result == "installed"
        assert rig.origin.sent - sent < 5_000  # nothing was fetched twice


@STEPS
def test_a_channel_paused_meanwhile_installs_nothing(rig, step):
    def pause():
        repository = rig.publisher.open()
        catalog = publish.catalog_of(rig.publisher.space, repository, "acme")
        catalog.point(replace(catalog.pointer("stable"), paused=True))
        repository.commit()

    with worker(rig.machine) as services:
        meanwhile = Meanwhile(rig, pause)
        outcome = run(rig, services, meanwhile.during(step))

        assert (meanwhile.done, outcome.code) == (1, "paused")
        assert rig.machine.running == "1.0.0"
        assert services.journal.open_deployment("acme") is None


@STEPS
def test_a_release_withdrawn_meanwhile_is_not_activated(rig, step):
    def yank():
        repository = rig.publisher.open()
        catalog = publish.catalog_of(rig.publisher.space, repository, "acme")
        publish.yank(catalog, "1.1.0")
        repository.commit()

    with worker(rig.machine) as services:
        meanwhile = Meanwhile(rig, yank)
        outcome = run(rig, services, meanwhile.during(step), forced=True)

        assert (meanwhile.done, outcome.result) == (1, "current")
        assert rig.machine.running == "1.0.0"
        (last, *_) = services.journal.history("acme")
        assert (last.version, last.state) == ("1.1.0", "SKIPPED")


@STEPS
def test_a_newer_release_published_meanwhile_is_installed_in_the_same_run(rig, step):
    """And the one in between never runs."""
    with worker(rig.machine) as services:
        meanwhile = Meanwhile(rig, lambda: rig.push("1.2.0"))
        outcome = run(rig, services, meanwhile.during(step))

        assert (meanwhile.done, outcome.version) == (1, "1.2.0")
        ran = services.journal.ran("acme")
        assert ("1.2.0", "1.0.0") == ran


@STEPS
def test_a_window_that_ended_meanwhile_is_over(rig, step):
    """The release waits, staged, and goes live when the next one opens."""
    began = time.time() // 60 * 60
    opens, closes = (
        datetime.fromtimestamp(began + hours * 3600, UTC).strftime("%H:%M")
        for hours in (-1, 1)
    )
    window = Schedule(window=f"{opens}-{closes} UTC", max_deferral_s=math.inf)
    now = [began]
    with worker(rig.machine, clock=lambda: now[0], schedule=window) as services:
        meanwhile = Meanwhile(rig, lambda: now.append(now.pop() + 7200))
        outcome = run(rig, services, meanwhile.during(step))

        assert (meanwhile.done, outcome.code) == (1, "outside_window")
        assert outcome.next_attempt_at == began + 23 * 3600
        assert rig.machine.running == "1.0.0"
        now[0] = began + 23 * 3600
        assert run(rig, services, Hooks()).result == "installed"
