# SPDX-License-Identifier: Apache-2.0
"""A machine that is too far back goes over the release that leads on, in one run."""

import json

import pytest
from fakes.machine import Machine, cli
from fakes.rig import Rig
from fakes.trees import make_tree

pytestmark = pytest.mark.usefixtures("as_typed")


def release(tmp_path, version):
    check = "#!/bin/sh\nexit 0\n"
    return make_tree(
        tmp_path / "build" / version,
        {"bin/healthcheck": check, "bin/app": f"#!/bin/sh\necho {version}\n"},
    )


def ended(machine):
    """Return the releases that were installed, oldest first."""
    lines = machine("history", "acme", "--json").stdout.splitlines()
    entries = sorted(map(json.loads, lines), key=lambda entry: entry["id"])
    return [each["version"] for each in entries if each["state"] == "INSTALLED"]


def test_old_machine_goes_over_the_stone_and_a_new_one_does_not(
    tmp_path, site, machine
):
    site.push(release(tmp_path, "1.0"), "1.0")
    machine("update", "acme")
    site.push(release(tmp_path, "2.0"), "2.0")
    said = site.push(release(tmp_path, "3.0"), "3.0", "--from-seq-min", 2)
    assert "passes it over" in said.stdout
    assert "2.0 (seq 2): on the way of older machines" in said.stdout

    done = machine("update", "acme", "--json")

    assert json.loads(done.stdout.splitlines()[-1])["version"] == "3.0"
    assert ended(machine) == ["1.0", "2.0", "3.0"]
    assert machine.running == "3.0"


def test_machine_without_a_way_says_so_and_stays(tmp_path, site, machine):
    """The stone was withdrawn; a machine without a release needs none."""
    site.push(release(tmp_path, "1.0"), "1.0")
    machine("update", "acme")
    site.push(release(tmp_path, "2.0"), "2.0")
    site.push(release(tmp_path, "3.0"), "3.0", "--from-seq-min", 2)
    said = cli(
        "release", "yank", "--repo", site.workspace, "--product", "acme",
        "--version", "2.0", "--no-announce",
    )  # fmt: skip
    assert "machines for linux-x86_64 below seq 2 cannot get to 3.0" in said.stdout

    machine("update", "acme", expect=10)

    assert machine.running == "1.0"
    assert "no_way" == machine.product_status()["decision"]["code"]
    assert "3.0 is installed over seq 2 or later" in machine.status()["problems"][-1]
    fresh = Machine(
        tmp_path / "fresh",
        feed=site.feed_url,
        repository=f"{site.address}/repo",
        bootstrap=site.bootstrap,
    )
    fresh("update", "acme")
    assert ended(fresh) == ["3.0"]


def test_thief_of_the_online_key_leads_nobody_past_a_stone(tmp_path):
    """The pointer does not say what 3.0 is installed over; its manifest does."""
    rig = Rig(tmp_path)
    try:
        rig.push("1.0")
        rig.update()
        rig.push("2.0")
        rig.push("3.0", from_seq_min=2)

        outcome, _ = rig.update()

        assert ("pending", "no_way") == (outcome["result"], outcome["code"])
        assert rig.machine.running == "1.0"
    finally:
        rig.close()
