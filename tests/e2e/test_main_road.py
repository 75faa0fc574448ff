# SPDX-License-Identifier: Apache-2.0
"""From `release push` to an installed, health-checked tree, and back if need be."""

import hashlib
import json
import signal
from datetime import UTC, datetime

import httpx
import pytest
from fakes.machine import cli
from fakes.trees import make_tree, snapshot
from fakes.waiting import eventually

pytestmark = pytest.mark.usefixtures("as_typed")

GOOD_CHECK = "#!/bin/sh\nexit 0\n"
BAD_CHECK = "#!/bin/sh\necho the database schema is missing >&2\nexit 3\n"


def release(tmp_path, version, *, check=GOOD_CHECK):
    return make_tree(
        tmp_path / "build" / version,
        {
            "bin/healthcheck": check,
            "bin/app": f"#!/bin/sh\necho {version}\n",
            "bin/link": "-> app",
            "lib/same.dat": hashlib.shake_256(b"same").digest(100_000),
            "lib/changed.dat": b"".join(
                b"%d %b\n" % (n, version.encode()) for n in range(4000)
            ),
            f"lib/only-in-{version}": version,
            "share/empty": b"",
        },
    )


def test_pushed_release_arrives_by_event_as_a_delta(tmp_path, site, machine):
    first, second = release(tmp_path, "1.0.0"), release(tmp_path, "1.1.0")
    site.push(first, "1.0.0")
    machine("update", "acme")
    assert snapshot(first) == snapshot(machine.current.resolve())
    before = machine.product_status()["checked_at"]
    # it has whole seconds: the next look shall have another one
    eventually(lambda: datetime.now(UTC).isoformat(timespec="seconds") > before)
    machine.start()
    # the look at its start has ended: what comes now comes by the event
    eventually(lambda: machine.product_status()["checked_at"] != before)
    eventually(lambda: machine.status()["state"] == "current")

    pushed = site.push(second, "1.1.0")
    assert "open streams: 1" in pushed.stdout  # whoever pushes sees that it arrives
    machine.wait_for("1.1.0")

    assert snapshot(second) == snapshot(machine.current.resolve())
    last = machine.product_status()["last"]
    assert ("INSTALLED", "event") == (last["state"], last["trigger"])
    assert 0 < last["bytes_fetched"] < last["bytes_full"]
    assert machine.status()["feed"]["cursor"]


def test_release_that_fails_its_health_check_is_rolled_back_and_stays_away(
    tmp_path, site, machine
):
    site.push(release(tmp_path, "1.0.0"), "1.0.0")
    machine("update", "acme")
    before = snapshot(machine.current.resolve())
    site.push(release(tmp_path, "1.1.0", check=BAD_CHECK), "1.1.0")

    machine("update", "acme", expect=30)

    assert "1.0.0" == machine.running
    assert before == snapshot(machine.current.resolve())
    last = machine.product_status()["last"]
    assert "ROLLED_BACK" == last["state"]
    assert "the database schema is missing" in last["reason"]

    machine("update", "acme", expect=30)
    assert last["id"] == machine.product_status()["last"]["id"], "it was tried again"

    site.push(release(tmp_path, "1.2.0"), "1.2.0")
    machine("update", "acme")
    assert "1.2.0" == machine.running


def test_roll_back_by_hand_is_told_as_what_it_was(tmp_path, site, machine):
    """Nobody who reads the history takes a step back for an installed update."""
    for version in ("1.0.0", "1.1.0"):
        site.push(release(tmp_path, version), version)
        machine("update", "acme")

    site.stop()
    told = machine("rollback", "acme").stdout

    assert "acme: back from 1.1.0 to 1.0.0" == told.splitlines()[-1]
    assert "1.0.0" == machine.running
    newest = machine("history").stdout.splitlines()[0]
    assert "rolled back by hand: 1.1.0 -> 1.0.0" in newest
    last = machine.product_status()["last"]
    assert ("INSTALLED", "rollback") == (last["state"], last["trigger"])


def test_daemon_that_was_down_catches_up_and_goes_straight_to_the_newest(
    tmp_path, site, machine
):
    site.push(release(tmp_path, "1.0.0"), "1.0.0")
    machine.start()
    machine.wait_for("1.0.0")
    cursor = eventually(lambda: machine.status()["feed"]["cursor"])
    machine.stop()
    for version in ("1.1.0", "1.2.0", "1.3.0"):
        site.push(release(tmp_path, version), version)

    machine.start()
    machine.wait_for("1.3.0")

    installed = [
        json.loads(line)["version"]
        for line in machine("history", "--json").stdout.splitlines()
    ]
    assert ["1.3.0", "1.0.0"] == installed
    eventually(lambda: machine.status()["feed"]["cursor"] != cursor)
    eventually(lambda: machine.status()["feed"]["pending"] == 0)


def test_server_that_was_down_at_the_push_is_no_reason_to_miss_it(
    tmp_path, site, machine
):
    site.push(release(tmp_path, "1.0.0"), "1.0.0")
    machine.start()
    machine.wait_for("1.0.0")
    site.stop()
    eventually(lambda: machine.status()["state"] == "degraded")

    site.push(release(tmp_path, "1.1.0"), "1.1.0", announce=False)
    site.start()

    machine.wait_for("1.1.0")


def test_sigkill_of_daemon_and_worker_loses_nothing(tmp_path, site, machine):
    site.push(release(tmp_path, "1.0.0"), "1.0.0")
    machine.start()
    machine.wait_for("1.0.0")
    second = release(tmp_path, "1.1.0")
    site.push(second, "1.1.0")
    eventually(
        lambda: machine.product_status()["deployment"] or machine.running == "1.1.0"
    )

    machine.kill()
    machine.start()
    machine.wait_for("1.1.0")

    assert snapshot(second) == snapshot(machine.current.resolve())


def test_hold_is_respected_and_ends(tmp_path, site, machine):
    site.push(release(tmp_path, "1.0.0"), "1.0.0")
    machine("update", "acme")
    site.push(release(tmp_path, "1.1.0"), "1.1.0")
    machine("hold", "--for", "7d", "--reason", "fair week")

    said = machine("update", "acme", "--now", expect=10)

    assert "1.0.0" == machine.running
    assert "fair week" in said.stdout + said.stderr
    machine("unhold")
    machine("update", "acme")
    assert "1.1.0" == machine.running


def test_check_says_what_update_would_do_and_does_not_do_it(tmp_path, site, machine):
    site.push(release(tmp_path, "1.0.0"), "1.0.0")
    machine("update", "acme")
    machine("check", expect=0)
    site.push(release(tmp_path, "1.1.0"), "1.1.0")

    said = machine("check", expect=10)

    assert "1.0.0 -> 1.1.0" in said.stdout
    assert "1.0.0" == machine.running


def test_daemon_ends_on_sigterm_and_status_says_that_nobody_listens(
    tmp_path, site, machine
):
    site.push(release(tmp_path, "1.0.0"), "1.0.0")
    machine.start()
    machine.wait_for("1.0.0")

    machine.daemon.send_signal(signal.SIGTERM)

    assert 0 == machine.daemon.wait(60)
    assert 4 == machine("status", expect=None).returncode
    assert "1.0.0" == machine.product_status()["installed"]["version"]


def test_second_daemon_is_refused(site, machine):
    machine.start()
    eventually(lambda: machine.status()["daemon"]["running"])

    refused = machine("run", expect=1)

    assert "the daemon is running" in refused.stderr


def test_reload_takes_a_good_configuration_and_survives_a_bad_one(
    tmp_path, site, machine
):
    site.push(release(tmp_path, "1.0.0"), "1.0.0")
    machine.start()
    machine.wait_for("1.0.0")
    good = machine.config.read_text()
    machine.config.write_text("[feed")
    machine.daemon.send_signal(signal.SIGHUP)
    eventually(lambda: "reload_refused" in machine.log())
    machine.config.write_text(good)

    site.push(release(tmp_path, "1.1.0"), "1.1.0")
    machine.wait_for("1.1.0")
    machine.daemon.send_signal(signal.SIGHUP)

    site.push(release(tmp_path, "1.2.0"), "1.2.0")
    machine.wait_for("1.2.0")


@pytest.mark.parametrize("what", ["token", "no token"])
def test_nobody_announces_without_the_token(site, what):
    headers = {"Authorization": "Bearer wrong"} if what == "token" else {}

    answer = httpx.post(
        site.feed_url,
        json={"schema": 1, "product": "acme", "channel": "stable", "version": "9"},
        headers=headers,
    )

    assert answer.status_code in (401, 403)


def test_every_command_explains_itself():
    overview = cli("--help").stdout
    for command in [
        "run",
        "status",
        "check",
        "update",
        "rollback",
        "hold",
        "unhold",
        "history",
        "verify",
        "events",
        "config",
        "release",
        "serve",
        "token",
        "demo",
    ]:
        assert command in overview
        assert len(cli(command, "--help").stdout) > 100


def test_wrong_usage_and_missing_configuration_have_their_own_exit_codes(tmp_path):
    assert 2 == cli("status", "--nonsense", expect=None).returncode
    missing = cli("status", "--config", tmp_path / "absent.toml", expect=1)
    assert "absent.toml" in missing.stderr
    assert "what to do" in missing.stderr
