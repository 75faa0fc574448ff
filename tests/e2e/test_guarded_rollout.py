# SPDX-License-Identifier: Apache-2.0
"""A release that fails halts itself, and the next one heals all, with nobody acting.

`UPDATERD_GUARDED_MACHINES=200 pytest -n0 -s tests/e2e/test_guarded_rollout.py` is the
long form; with `UPDATERD_PICTURES=DIR` it keeps pictures of the console there.
"""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from fakes import crowd
from fakes.machine import cli
from fakes.site import Site
from fakes.trees import make_tree
from fakes.waiting import eventually

from updaterd.core.rollout import cohort, salt_of

MACHINES = int(os.environ.get("UPDATERD_GUARDED_MACHINES", "6"))
PICTURES = os.environ.get("UPDATERD_PICTURES")
KINDS = crowd.KINDS if MACHINES > 12 else 1
FIRST = 3
SECOND = MACHINES // 4 if MACHINES > 12 else MACHINES // 2 - 1
PLAN = {
    "steps": [
        {"permille": 10, "dwell_s": 0, "min_reports": FIRST},
        {"permille": 250, "dwell_s": 0, "min_reports": 4},
        {"permille": 1000, "dwell_s": 0, "min_reports": 4},
    ],
    # so few machines tell little: a third may fail, and two failures have to do
    "halt": {"failed_permille": 350, "confidence": 990 if MACHINES > 12 else 600},
}
SALTS = [salt_of("acme", "2.0.0", 2), salt_of("acme", "3.0.0", 3)]


def ident_in(low, high, number):
    """Return the id of a machine whose cohort lies in a range, for both releases."""
    for attempt in range(10_000_000):
        ident = hashlib.sha256(f"{number}-{attempt}".encode()).hexdigest()[:32]
        if all(low <= cohort(salt, ident) < high for salt in SALTS):
            return ident
    raise AssertionError


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "site")
    audit = site.workspace / "audit.jsonl"
    site.serve_options = (*crowd.SERVE, "--audit", audit)
    site.start()
    yield site
    site.hard_stop()


@pytest.fixture
def person(tmp_path, site):
    return crowd.Person(site, tmp_path)


class Watch:
    """`release watch`, running beside the key, and what it has printed."""

    def __init__(self, site, person, out):
        self.out = out
        with out.open("wb") as file:
            self.process = subprocess.Popen(
                [
                    *(*cli.command, "release", "watch", "--every", "1"),
                    *("--repo", site.workspace, "--feed", site.feed_url),
                    *("--token-file", site.token_file),
                    *("--reports-token-file", person.token_file),
                ],
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def until(self, words):
        """Wait until it has printed that."""

        def said():
            assert self.process.poll() is None, self.out.read_text()
            return words in self.out.read_text()

        eventually(said, event=f"{words!r} of watch")


@pytest.fixture
def watch(tmp_path, site, person):
    running = Watch(site, person, tmp_path / "watch.out")
    yield running
    running.process.kill()
    running.process.wait()


def machine(tmp_path, site, number):
    if number < FIRST:
        low, high = 0, 10
    else:
        low, high = (10, 250) if number < FIRST + SECOND else (250, 1000)
    ident = ident_in(low, high, number)
    made = crowd.Member(tmp_path / f"m{number}", site, number, ident=ident, kinds=KINDS)
    if low == 10:
        made.breaks_at("2.0.0")
    return made


def push(site, tmp_path, version, *options):
    files = {"bin/app": f"#!/bin/sh\necho {version}\n",
             "lib/data": b"same" * 4000 + version.encode()}  # fmt: skip
    tree = make_tree(tmp_path / "trees" / version, files)
    site.push(None, version, *crowd.trees(tree, KINDS), *options)


def test_a_release_that_fails_halts_itself_and_the_next_one_heals_all(
    tmp_path, site, person, watch
):
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(PLAN))
    machines = [machine(tmp_path, site, number) for number in range(MACHINES)]
    first, second = machines[:FIRST], machines[FIRST : FIRST + SECOND]
    others = machines[FIRST + SECOND :]
    push(site, tmp_path, "1.0.0")
    crowd.update(machines)

    push(site, tmp_path, "2.0.0", "--plan", plan)
    crowd.update([*first, *second[:1], *others[:1]])
    assert {each.running for each in first} == {"2.0.0"}
    assert {each.running for each in (second[0], others[0])} == {"1.0.0"}
    watch.until("stepped on: 0 of 3 machines failed: on to 25 %")
    crowd.update([*second, *others[:1]])
    watch.until("halted: 2.0.0 failed on ")
    assert {each.running for each in [*second, *others]} == {"1.0.0"}

    truth = crowd.assert_figures_are_the_journals(person, machines)
    failed = truth.ends["2.0.0", "rolled_back"]
    assert 2 <= failed <= SECOND
    assert truth.ends["2.0.0", "installed"] == FIRST
    reason = watch.out.read_text().partition("halted: ")[2].splitlines()[0]
    assert f"halted: {reason}" in person.status()
    page = person.page(crowd.CHANNEL)
    assert f"This channel is paused ({reason})" in page
    assert "halted</span>" in page
    assert 'class="tag halted"' in person.page("/console/")
    crowd.update(others[:1])
    decision = others[0].product_status()["decision"]
    assert decision["code"] == "paused"
    assert reason in decision["reason"]
    pictures(site, person, machines[FIRST], "halted")

    push(site, tmp_path, "3.0.0", "--plan", plan)
    for wave, words in (
        (first, "3.0.0: running, 1 % -> 25 % -> all\n  step 2 of 3"),
        (second, "3.0.0: running, 1 % -> 25 % -> all\n  step 3 of 3"),
        (others, "3.0.0: done"),
    ):
        crowd.update(wave)
        watch.until(words)
    assert {each.running for each in machines} == {"3.0.0"}
    crowd.assert_figures_are_the_journals(person, machines)
    assert 'class="tag quiet"' in person.page("/console/")
    audit = cli("release", "audit", "--verify", "--repo", site.workspace).stdout
    acts = [line.split(": ")[1].split()[0] for line in audit.splitlines()[:-1]]
    # the healer is measured by what the fleet runs, not by the one that was halted
    lines = (site.workspace / "audit.jsonl").read_text().splitlines()
    healing = [json.loads(line)["counts"] for line in lines[5:7]]
    assert {counts["base"]["version"] for counts in healing} == {"1.0.0"}
    assert acts == ["push", "push", "step", "halt", "push", "step", "step", "done"]
    pictures(site, person, machines[FIRST], "healed")
    print(f"{MACHINES} machines: 2.0.0 failed on {failed}, {reason}")


def pictures(site, person, one, name):
    """Keep pictures of the console as it is now, where they are asked for."""
    if PICTURES is None:
        return
    from fakes.browser import Browser

    folder = Path(PICTURES).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    shown = json.loads(one("reports", "--json").stdout)["reports"]
    ident = json.loads(shown[0]["body"])["machine"]
    with Browser(site.root) as browser:
        browser.look()
        browser.go(f"{site.address}/console/login")
        secret = json.dumps(person.token)
        browser.run(f"document.getElementById('token').value = {secret}")
        browser.submit("form.login")
        for path, kind, width, scheme in (
            ("/console/", "fleet", 1200, "light"),
            (crowd.CHANNEL, "channel", 1200, "light"),
            (crowd.CHANNEL, "channel-phone", 390, "light"),
            (crowd.CHANNEL, "channel-dark", 1200, "dark"),
            (f"/console/machines/{ident}", "machine-dark", 1200, "dark"),
            ("/console/audit", "audit", 1200, "light"),
        ):
            browser.look(width=width, scheme=scheme)
            browser.go(site.address + path)
            spare = "document.documentElement.scrollWidth <= window.innerWidth"
            assert browser.run(spare), (path, width)
            browser.picture(folder / f"{name}-{kind}.png")
