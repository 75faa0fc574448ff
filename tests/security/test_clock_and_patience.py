# SPDX-License-Identifier: Apache-2.0
"""Attacks on time: a clock set back, a server that never quite stops sending.

The real pipeline, with the two things that a command line has no option for handed
in: what time it is, and how long a request may take.
"""

import time
from contextlib import closing
from pathlib import Path

import pytest
from fakes import origin as origins
from fakes.rig import PLATFORM, Rig

from security.attacks import FILES
from updaterd import config
from updaterd.errors import TransientError
from updaterd.net import Fetcher
from updaterd.pipeline import update as pipeline
from updaterd.pipeline.machine import Silent, open_services
from updaterd.pipeline.run import Request
from updaterd.store.journal import Journal
from updaterd.store.schema import open_state


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    made.push("1.0.0")
    yield made
    made.close()


def update(rig: Rig, *, clock=time.time):
    """Run the pipeline once, with this clock and with little patience."""
    root = rig.machine.root
    settings = config.load(
        rig.machine.config,
        state=root / "state",
        cache=root / "cache",
        runtime=root / "run",
        demo=True,
    )
    state = Path(settings.directories.state)
    state.mkdir(parents=True, exist_ok=True)
    with (
        closing(open_state(state / "state.db")) as connection,
        Fetcher(deadline_s=0.7, window_s=0.5) as fetcher,
    ):
        services = open_services(
            settings,
            Journal(connection),
            fetcher,
            clock=clock,
            draw=lambda: 0.5,
            teller=Silent(),
            environment={},
        )
        assert services.platform == PLATFORM
        return pipeline.update(
            settings.products["acme"], services, Request(trigger="manual")
        )


@pytest.mark.parametrize("drip", [origins.drip_headers, origins.drip_body])
def test_slow_drip(rig, drip):
    """Headers or bodies, a byte at a time: given up in bounded time, each file."""
    assert update(rig).result == "installed"
    rig.push("1.1.0")
    before = rig.tree()
    for file, at in FILES.items():
        rig.origin.misbehave(at, drip)
        with pytest.raises(TransientError) as caught:
            update(rig)
        assert caught.value.code in {"timeout", "too_slow"}, file
        assert rig.tree() == before
        rig.origin.behave()
    assert update(rig).result == "installed"


def test_clock_set_to_1970(rig):
    """No expired metadata looks fresh again, and the person is told why."""
    assert update(rig).result == "installed"
    before = rig.tree()
    rig.publisher.now = rig.publisher.now.replace(year=rig.publisher.now.year - 1)
    rig.push("1.1.0")  # signed a year ago, expired for long
    with pytest.raises(TransientError) as caught:
        update(rig, clock=lambda: 0.0)
    assert caught.value.code == "metadata_expired"
    assert rig.tree() == before
    rig.publisher.now = rig.publisher.now.replace(year=rig.publisher.now.year + 1)
    rig.publisher.refresh()
    repository = rig.publisher.open()
    for role in ("snapshot", "acme.releases", "acme.stable"):
        repository.touch(role)
    repository.commit()
    outcome = update(rig, clock=lambda: 0.0)
    assert outcome.result == "installed"
    assert any("clock" in note for note in outcome.notes)


def test_clock_in_the_future(rig):
    """All looks expired: nothing is installed, nothing is lost, and it heals."""
    assert update(rig).result == "installed"
    rig.push("1.1.0")
    before = rig.tree()
    with pytest.raises(TransientError) as caught:
        update(rig, clock=lambda: time.time() + 10 * 365 * 86400)
    assert caught.value.code == "metadata_expired"
    assert "clock" in caught.value.do
    assert rig.tree() == before
    assert update(rig).result == "installed"
