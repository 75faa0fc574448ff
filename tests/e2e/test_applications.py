# SPDX-License-Identifier: Apache-2.0
"""The daemon, a push, and an application that asks: nothing in between is a fake."""

import subprocess

import pytest
from fakes.machine import cli
from fakes.releases import Releases
from fakes.varlink import Client, listens
from fakes.waiting import eventually


@pytest.fixture
def releases(tmp_path):
    made = Releases(tmp_path / "site")
    made.push("1.0.0")
    yield made
    made.close()


def test_a_pushed_release_waits_for_the_application_and_then_runs(releases, tmp_path):
    machine = releases.machine(
        tmp_path / "machine", product_extra='activate = "on-request"'
    )
    path = tmp_path / "io.updaterd"
    machine.start()
    api = None
    try:
        machine.wait_for("1.0.0")
        api = subprocess.Popen([
            *cli.command,
            "api",
            "--socket",
            path,
            *machine.options,
        ])
        eventually(lambda: listens(path), within_s=60)
        with Client(path) as follower, Client(path) as asker:
            follower.send("Monitor", more=True, product="acme")
            releases.push("1.1.0", announced=True)
            states = []
            while not states or states[-1]["ready"] != "1.1.0":
                states.append(follower.receive()["parameters"]["status"])
            assert machine.running == "1.0.0"

            def waiting():  # the run that made it ready is about to end
                decision, *_, remedy = machine("why", "acme").stdout.splitlines()
                waits = "acme 1.1.0 is ready and waits, at the latest at "
                return remedy if waits in decision else None

            assert "updaterd-launch" in eventually(waiting, event="a run that is over")

            assert asker.call("Apply", product="acme") == {"version": "1.1.0"}
            while states[-1]["installed"] != "1.1.0":
                states.append(follower.receive()["parameters"]["status"])
        assert machine.running == "1.1.0"
        assert api.wait(60) == 0, "it ends when nobody is connected"
    finally:
        machine.stop()
        if api is not None and api.poll() is None:
            api.kill()
            api.wait()
