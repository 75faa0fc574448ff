# SPDX-License-Identifier: Apache-2.0
"""Machines report: the server's figures are the sum of their journals, exactly.

`UPDATERD_REPORTING_MACHINES=200 pytest -n0 tests/e2e/test_reports.py` is the long
form.
"""

import json
import os

import pytest
from fakes import crowd
from fakes.site import Site
from fakes.trees import make_tree
from fakes.waiting import eventually

MACHINES = int(os.environ.get("UPDATERD_REPORTING_MACHINES", "6"))


def release(folder, version):
    return make_tree(
        folder / version,
        {"bin/app": f"#!/bin/sh\necho {version}\n",
         "lib/data": b"same" * 4000 + version.encode()},
    )  # fmt: skip


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "site")
    site.serve_options = crowd.SERVE
    site.start()
    yield site
    site.hard_stop()


@pytest.fixture
def person(tmp_path, site):
    return crowd.Person(site, tmp_path)


def machine(tmp_path, site, number, *, url=""):
    return crowd.Member(tmp_path / f"m{number}", site, number, url=url)


def test_figures_of_the_server_are_the_sum_of_the_journals(tmp_path, site, person):
    """Two good releases and a bad one; five tags, three platforms' names."""
    machines = [machine(tmp_path, site, number) for number in range(MACHINES)]
    for each in machines[::4]:
        each.breaks_at("3.0.0")
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        site.push(None, version, *crowd.trees(release(tmp_path / "trees", version)))
        crowd.update(machines)

    truth = crowd.assert_figures_are_the_journals(person, machines)
    bad = len(machines[::4])
    assert truth.ends["3.0.0", "rolled_back"] == bad
    assert truth.runs == {"2.0.0": bad, "3.0.0": MACHINES - bad}
    assert f"rolled back, unhealthy: {bad} machines" in person.status()
    # what the server counted is what the machine shows, byte for byte
    shown = json.loads(machines[0]("reports", "--json").stdout)["reports"]
    assert [json.loads(row["body"])["outcome"] for row in shown] == [
        "installed", "installed", "rolled_back",
    ]  # fmt: skip
    assert {row["state"] for row in shown} == {"sent"}


def test_clock_runs_from_the_announcement_to_the_end(tmp_path, site, person):
    trees = tmp_path / "trees"
    site.push(release(trees, "1.0.0"), "1.0.0")
    one = machine(tmp_path, site, 0)
    one("update", "acme")
    one.start()
    try:
        eventually(lambda: one.status()["feed"]["connection"])
        eventually(lambda: one.status()["feed"]["connection"]["phase"] == "open")
        site.push(release(trees, "2.0.0"), "2.0.0")
        one.wait_for("2.0.0")
        eventually(lambda: one.status()["reports"]["waiting"] == 0)
    finally:
        one.stop()

    (channel,) = person.channels()
    newest = channel["releases"][0]
    assert newest["version"] == "2.0.0"
    if one.product_status()["last"]["trigger"] == "event":
        assert newest["latency"]["total_s"]["machines"] == 1
        assert newest["latency"]["ended_s"]["machines"] == 1
        body = json.loads(
            json.loads(one("reports", "--json").stdout)["reports"][-1]["body"]
        )
        parts = [body[name] for name in (
            "seen_s", "fetched_s", "staged_s", "activated_s", "ended_s")]  # fmt: skip
        assert parts == sorted(parts)


def test_server_that_is_away_delays_no_update_and_gets_it_all_later(
    tmp_path, site, person
):
    """A refused connection, then a server that takes no reports, then a good one."""
    site.push(release(tmp_path / "trees", "1.0.0"), "1.0.0")
    one = machine(tmp_path, site, 0, url="http://127.0.0.1:9/v1/reports")
    one("update", "acme")

    assert one.running == "1.0.0"
    assert one.status()["reports"]["waiting"] == 1
    assert one.status()["reports"]["error"]["code"] == "unreachable"
    assert "1 waiting" in one("status", expect=None).stdout

    one.config.write_text(
        one.config.read_text().replace("http://127.0.0.1:9", site.address)
    )
    assert "1 sent, 0 dropped, 0 waiting" in one("reports", "--send").stdout
    (channel,) = person.channels()
    assert channel["machines"] == 1

    assert "1 reports deleted" in one("reports", "--forget").stdout
    assert "nothing was reported" in one("reports").stdout
