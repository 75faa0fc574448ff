# SPDX-License-Identifier: Apache-2.0
"""Machines report: the server's figures are the sum of their journals, exactly.

`UPDATERD_REPORTING_MACHINES=200 pytest tests/e2e/test_reports.py` is the long form.
"""

import json
import os
import re
import urllib.parse
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from fakes.machine import Machine, cli
from fakes.site import Site
from fakes.trees import make_tree
from fakes.waiting import eventually

from updaterd.store.records import Records
from updaterd.store.schema import open_for_reading

MACHINES = int(os.environ.get("UPDATERD_REPORTING_MACHINES", "12"))
TAGS = ("staff", "berlin", "paris", "beta-testers", "kiosk")
CHECK = "#!/bin/sh\nexit 0\n"


def release(folder, version):
    return make_tree(
        folder / version,
        {"bin/app": f"#!/bin/sh\necho {version}\n", "bin/check": CHECK,
         "lib/data": b"same" * 4000 + version.encode()},
    )  # fmt: skip


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "site")
    site.serve_options = (
        *("--reports", "open", "--reports-rate", "10000", "--console"),
    )
    site.start()
    yield site
    site.hard_stop()


def machine(tmp_path, site, number, *, url=""):
    root = tmp_path / f"m{number}"
    check = root / "opt/acme/current/bin/check"
    url = f'url = "{url}"\n' if url else ""
    return Machine(
        root,
        feed=site.feed_url,
        repository=f"{site.address}/repo",
        bootstrap=site.bootstrap,
        health=[
            "/bin/sh",
            "-c",
            f"test ! -e {root}/broken-$UPDATERD_VERSION && exec {check}",
        ],
        extra=f'[reports]\nsend = true\ntags = ["{TAGS[number % 5]}"]\n{url}',
    )


def fleet(site, tmp_path):
    token = tmp_path / "fleet-token"
    if not token.exists():
        token.write_text(
            cli(
                "token", "create", "--state", site.state, "--scope", "fleet:read"
            ).stdout
        )
        token.chmod(0o600)
    options = ("--feed", site.feed_url, "--token-file", token)
    done = cli(
        *("release", "status", "--fleet", "--json", "--repo", site.workspace), *options
    )
    page = cli("release", "status", "--fleet", "--repo", site.workspace, *options)
    answer = json.loads(done.stdout.splitlines()[0])
    return answer["channels"], page.stdout


def figures_of(site, tmp_path, version):
    """Return the figures of a release's page in the console, by their names."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    token = (tmp_path / "fleet-token").read_text().strip()
    page = f"/console/products/acme/channels/stable/releases/{version}"
    form = urllib.parse.urlencode({"token": token, "next": page}).encode()
    with browser.open(f"{site.address}/console/login", form, timeout=30) as answer:
        text = answer.read().decode()
    return dict(re.findall(r"<dt>([^<]*)</dt><dd>([0-9]+)<", text))


def journals(machines):
    """Return what the machines' own journals say: by release, and what runs."""
    ends, runs, fetched = Counter(), Counter(), Counter()
    outcomes = {"INSTALLED": "installed", "ROLLED_BACK": "rolled_back",
                "REJECTED": "rejected", "FAILED": "failed"}  # fmt: skip
    for each in machines:
        with closing(open_for_reading(each.root / "state/state.db")) as db:
            journal = Records(db)
            runs[journal.installed("acme").version] += 1
            for row in journal.history("acme", limit=100):
                if outcome := outcomes.get(str(row.state)):
                    ends[row.version, outcome] += 1
                    fetched[row.version] += row.bytes_fetched
    return ends, runs, fetched


def test_figures_of_the_server_are_the_sum_of_the_journals(tmp_path, site):
    trees = tmp_path / "trees"
    machines = [machine(tmp_path, site, number) for number in range(MACHINES)]

    def update_all():
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda m: m("update", "acme", expect=None), machines))

    site.push(release(trees, "1.0.0"), "1.0.0")
    update_all()
    for each in machines[::4]:
        (each.root / "broken-2.0.0").touch()
    site.push(release(trees, "2.0.0"), "2.0.0")
    update_all()

    ends, runs, fetched = journals(machines)
    assert ends["2.0.0", "rolled_back"] == len(machines[::4])
    ((channel,), page) = fleet(site, tmp_path)
    assert channel["machines"] == MACHINES
    by_version = {row["version"]: row for row in channel["releases"]}
    for version, row in by_version.items():
        told = {o: n for (v, o), n in ends.items() if v == version}
        assert row["reports"] == told
        assert row["machines"] == told  # each machine reported about it once
        assert row["running"] == runs[version]
        assert row["bytes_fetched"] == fetched[version]
        figures = figures_of(site, tmp_path, version)
        assert int(figures["Run it"]) == runs[version]
        assert int(figures["Installed"]) == ends[version, "installed"]
        assert int(figures["Did not succeed"]) == sum(told.values()) - told.get(
            "installed", 0
        )
    tags = Counter(TAGS[number % 5] for number in range(MACHINES))
    total = Counter()
    for row in by_version.values():
        total.update(row["tags"])
    assert total == tags
    assert f"rolled back, unhealthy: {len(machines[::4])} machines" in page
    # what the server counted is what the machine shows, byte for byte
    shown = json.loads(machines[0]("reports", "--json").stdout)["reports"]
    assert [json.loads(row["body"])["outcome"] for row in shown] == [
        "installed", "rolled_back",
    ]  # fmt: skip
    assert {row["state"] for row in shown} == {"sent"}


def test_clock_runs_from_the_announcement_to_the_end(tmp_path, site):
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

    ((channel,), _) = fleet(site, tmp_path)
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


def test_server_that_is_away_delays_no_update_and_gets_it_all_later(tmp_path, site):
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
    ((channel,), _) = fleet(site, tmp_path)
    assert channel["machines"] == 1

    assert "1 reports deleted" in one("reports", "--forget").stdout
    assert "nothing was reported" in one("reports").stdout
