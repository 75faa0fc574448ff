# SPDX-License-Identifier: Apache-2.0
"""A release that fails halts itself, and the next one heals all, with nobody acting.

`UPDATERD_GUARDED_MACHINES=200 pytest -n0 tests/e2e/test_guarded_rollout.py` is the long
form.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.machine import Machine, cli
from fakes.site import Site
from fakes.trees import make_tree

from updaterd.core.rollout import cohort, salt_of

MACHINES = int(os.environ.get("UPDATERD_GUARDED_MACHINES", "6"))
FIRST = 3
SECOND = MACHINES // 4 if MACHINES > 12 else MACHINES // 2 - 1
PLAN = {
    "steps": [
        {"permille": 10, "dwell_s": 0, "min_reports": FIRST},
        {"permille": 250, "dwell_s": 0, "min_reports": 4},
        {"permille": 1000, "dwell_s": 0, "min_reports": 4},
    ],
    "halt": {"failed_permille": 350, "confidence": 600},
}


def machine_with(low, high, number):
    """Return the id of a machine whose cohort for 2.0.0 lies in a range."""
    salt = salt_of("acme", "2.0.0", 2)
    for attempt in range(100_000):
        ident = hashlib.sha256(f"{number}-{attempt}".encode()).hexdigest()[:32]
        if low <= cohort(salt, ident) < high:
            return ident
    raise AssertionError


def release(folder, version):
    return make_tree(
        folder / version, {"bin/app": f"echo {version}\n", "bin/check": "exit 0\n"}
    )


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "site")
    site.serve_options = ("--reports", "open", "--reports-rate", "10000")
    site.start()
    yield site
    site.hard_stop()


@pytest.fixture
def watch(tmp_path, site):
    token = tmp_path / "fleet-token"
    create = ("token", "create", "--state", site.state, "--scope", "fleet:read")
    token.write_text(cli(*create).stdout)
    token.chmod(0o600)

    def call():
        done = cli(
            *("release", "watch", "--once", "--json", "--repo", site.workspace),
            *("--feed", site.feed_url, "--token-file", site.token_file),
            *("--reports-token-file", token),
        )
        (row,) = json.loads(done.stdout.splitlines()[-1])["channels"]
        return row

    return call


def machine(tmp_path, site, number):
    root = tmp_path / f"m{number}"
    low, high = (0, 10) if number < FIRST else (10, 250)
    if number >= FIRST + SECOND:
        low, high = 250, 1000
    made = Machine(
        root,
        feed=site.feed_url,
        repository=f"{site.address}/repo",
        bootstrap=site.bootstrap,
        health=["/bin/sh", "-c", f"test ! -e {root}/broken-$UPDATERD_VERSION"],
        extra="[reports]\nsend = true\n",
    )
    (root / "state").mkdir()
    ident = root / "state/machine-id"
    ident.write_text(machine_with(low, high, number) + "\n")
    if low == 10:
        (root / "broken-2.0.0").touch()
    return made


def update(machines):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda m: m("update", "acme", expect=None), machines))


def test_a_release_that_fails_halts_itself_and_the_next_one_heals_all(
    tmp_path, site, watch
):
    trees, plan = tmp_path / "trees", tmp_path / "plan.json"
    plan.write_text(json.dumps(PLAN))
    machines = [machine(tmp_path, site, number) for number in range(MACHINES)]
    first, second = machines[:FIRST], machines[FIRST : FIRST + SECOND]
    others = machines[FIRST + SECOND :]
    site.push(release(trees, "1.0.0"), "1.0.0")
    update(machines)

    site.push(release(trees, "2.0.0"), "2.0.0", "--plan", plan)
    update([*first, *second[:1], *others[:1]])
    assert {each.running for each in first} == {"2.0.0"}
    assert {each.running for each in (second[0], others[0])} == {"1.0.0"}
    assert watch()["action"] == "step"

    update([*second, *others[:1]])
    assert {each.running for each in [*second, *others]} == {"1.0.0"}
    row = watch()
    assert (row["action"], row["paused"]) == ("halt", True)
    assert row["counts"]["failed"] == SECOND

    token = tmp_path / "fleet-token"
    page = cli(
        *("release", "status", "--fleet", "--repo", site.workspace),
        *("--feed", site.feed_url, "--token-file", token),
    ).stdout
    assert f"2.0.0 failed on {SECOND} of {FIRST + SECOND} machines" in page

    update(others[:1])
    decision = others[0].product_status()["decision"]
    assert decision["code"] == "paused"
    assert f"2.0.0 failed on {SECOND} of {FIRST + SECOND}" in decision["reason"]

    site.push(release(trees, "3.0.0"), "3.0.0")
    update(machines)
    assert {each.running for each in machines} == {"3.0.0"}
    audit = cli("release", "audit", "--verify", "--repo", site.workspace).stdout
    acts = [line.split(": ")[1].split()[0] for line in audit.splitlines()[:-1]]
    assert acts == ["push", "push", "step", "halt", "push"]
