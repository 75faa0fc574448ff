"""The real daemon, while the repository it looks at turns hostile, again and again."""

import json
from pathlib import Path

import pytest
from fakes.rig import Rig
from fakes.site import Site
from fakes.waiting import eventually

from security.attacks import ATTACKS
from updaterd.net import Fetcher
from updaterd.release import announce

CHOSEN = (
    "arbitrary_software_with_a_new_root",
    "mix_and_match_releases",
    "endless_data",
    "wrong_product",
    "manifest_that_leaves_the_tree",
)


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    made.start()
    yield made
    made.hard_stop()


@pytest.fixture
def rig(tmp_path, site):
    made = Rig(tmp_path, feed=site.feed_url)
    yield made
    made.close()


def tell(rig: Rig, site: Site):
    """Post an announcement; its `edition` makes it another one each time."""
    body = json.dumps({
        "schema": 1,
        "product": "acme",
        "channel": "stable",
        "version": rig.published,
        "seq": 1,
        "edition": rig.publisher.open().timestamp.version,
    })
    with Fetcher() as fetcher:
        announce.announce(fetcher, site.feed_url, site.token, body.encode())


def resident_kib(pid: int) -> int:
    (line,) = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    ]
    return int(line.split()[1])


def test_the_daemon_outlives_every_attack_and_takes_the_next_good_release(rig, site):
    """Alive, the tree untouched, the reason told, memory flat; then it goes on."""
    rig.push("1.0.0")
    rig.machine.start()
    rig.machine.wait_for("1.0.0")
    before_kib = resident_kib(rig.machine.daemon.pid)
    for number, attack in enumerate(a for a in ATTACKS if a.name in CHOSEN):
        rig.installed = rig.machine.running
        rig.push(f"1.1.{number}")
        before = rig.tree()
        name, make = attack.variants[-2 if len(attack.variants) > 1 else 0]
        make(rig)
        tell(rig, site)

        def reported(attack=attack):
            found = rig.machine.product_status()["last_error"]
            return found and found["code"] in attack.codes

        eventually(reported, what=f"{attack.name} {name}: {rig.machine.log()[-2000:]}")
        assert rig.machine.daemon.poll() is None
        assert rig.tree() == before
        rig.origin.behave()
        rig.heal()
        rig.heal = lambda: None
        rig.publisher.refresh()
        tell(rig, site)
        rig.machine.wait_for(f"1.1.{number}")
    after_kib = resident_kib(rig.machine.daemon.pid)
    print(
        f"daemon: {before_kib} KiB before, {after_kib} KiB after {number + 1} attacks"
    )
    assert after_kib < before_kib + 8 * 1024
    assert "Traceback" not in rig.machine.log()
