# SPDX-License-Identifier: Apache-2.0
"""The real daemon, while the repository it looks at turns hostile, again and again.

`test_metadata_attacks` has every variant of these attacks, on a real worker alone.
"""

import shutil
import signal

import pytest
from fakes import origin as origins
from fakes.waiting import eventually

from security.attacks import ATTACKS, forged
from updaterd.release.keychange import change as keychange
from updaterd.release.keychange import edits


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_daemon_outlives_it_and_takes_the_next_good_release(siege, attack):
    """Alive, the tree untouched, the reason in its status; then it goes on."""
    name, make = attack.variants[-2 if len(attack.variants) > 1 else 0]
    with siege.unseen():
        siege.push()
        make(siege.rig)
    siege.provoke(attack.codes, f"{attack.name} {name}")
    assert siege.machine.running == siege.rig.installed
    siege.recovers()


def test_rollback_is_refused_and_the_stale_mirror_named(siege):
    """Yesterday's repository, every signature valid: what is known stays known."""
    old = siege.rig.copy("yesterday")
    siege.recovers()
    before = siege.rig.tree()
    siege.rig.serve_from(old)
    siege.tell()

    def told():
        warnings = siege.published_status()["trust"]["warnings"]
        return [one for one in warnings if one["code"] == "stale_mirror"]

    assert "older timestamp" in eventually(told, event="stale_mirror")[0]["what"]
    assert siege.rig.tree() == before
    assert "degraded" == siege.published_status()["state"]
    siege.recovers()


def test_rollback_after_the_cache_was_lost_is_refused(siege):
    """The journal remembers apart from the cache which metadata was accepted."""
    old = siege.rig.copy("before-the-loss")
    siege.recovers()
    shutil.rmtree(siege.machine.root / "state" / "trust")
    siege.rig.serve_from(old)
    siege.provoke(frozenset({"metadata_rollback"}), "rollback after cache loss")
    siege.recovers()


def test_a_malicious_mirror_costs_nothing_but_time(siege, tmp_path):
    """Mirrors serve blobs only; one that lies is passed over."""
    text = siege.machine.config.read_text()
    with origins.Origin(tmp_path / "empty") as mirror:
        mirror.misbehave(".", origins.body(b"evil" * 100))
        reload(siege, text.replace("[trust]", f'[trust]\nmirrors = ["{mirror.url}"]'))
        siege.recovers()
        assert mirror.requests
        assert all(path.startswith("/blobs/") for path in mirror.requests)
    reload(siege, text)


def reload(siege, text: str) -> None:
    """Give the daemon another configuration."""
    before = siege.machine.log().count("daemon_started")
    siege.machine.config.write_text(text)
    siege.machine.daemon.send_signal(signal.SIGHUP)
    eventually(
        lambda: siege.machine.log().count("daemon_started") > before, event="a reload"
    )


def test_fast_forward_is_recovered_from_by_a_new_online_key(siege):
    """A stolen online key counts to 2^31; after its rotation machines go on."""
    publisher, far = siege.rig.publisher, 2**31
    siege.rig.serve_from(forged(publisher, far, siege.rig.folder / "evil"))
    siege.tell()

    def deceived():
        roles = siege.published_status()["trust"]["roles"]
        return any(role["version"] >= far for role in roles)

    eventually(deceived, event="a machine that believes the stolen key")
    siege.rig.origin.behave()
    ring = publisher.space.keyring
    old = ring.retire("online")
    change = edits.replace_key(old.public, ring.ensure("online").public)
    keychange.propose(publisher.space, publisher.open(), change)
    siege.recovers()


def test_the_memory_of_the_daemon_does_not_grow_with_attacks(siege):
    """After all of the above, in one process (figure printed): 8 MiB more at most."""
    after_kib = siege.resident_kib()
    print(
        f"daemon: {siege.before_kib} KiB before, {after_kib} KiB after "
        f"{siege.attacks} attacks"
    )
    assert after_kib < siege.before_kib + 8 * 1024
