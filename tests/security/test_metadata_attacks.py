# SPDX-License-Identifier: Apache-2.0
"""Every metadata row of the threat table: refused, told, survived.

The worker is the real command; the release on the machine, the repository and its
signatures are real. After each attack: the installed tree is byte-identical, the
reason was reported with a stable code and without a traceback, and the next good
release installs.
"""

import shutil
import subprocess
import sys

import pytest
from fakes import origin as origins
from fakes.machine import cli
from fakes.rig import Rig

from security.attacks import ATTACKS, forged
from updaterd.release.keychange import change as keychange
from updaterd.release.keychange import edits

# A process's peak counts what it shared with its parent before the exec: so the
# parent must be small, which pytest is not.
PEAK = """
import os, sys
worker = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
print(os.wait4(worker, 0)[2].ru_maxrss)
"""


@pytest.fixture(scope="module")
def veteran(tmp_path_factory):
    """A machine that lives through one attack after the other."""
    made = Rig(tmp_path_factory.mktemp("veteran"))
    made.push("1.0.0")
    assert made.update()[0]["result"] == "installed"
    yield made
    made.close()


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    made.push("1.0.0")
    assert made.update()[0]["result"] == "installed"
    yield made
    made.close()


def recovers(rig: Rig, version: str = ""):
    """The server behaves again: the good release installs."""
    rig.origin.behave()
    rig.heal()
    rig.heal = lambda: None
    if version:
        rig.push(version)
    outcome, said = rig.update("--retry")
    assert outcome["result"] == "installed", (outcome, said)
    assert rig.machine.running == rig.published


def calm(said: str):
    """What a person reads is a message, not a traceback, and cannot paint."""
    assert "Traceback" not in said
    assert said.replace("\n", "").isprintable()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack_is_refused(veteran, attack):
    """See `attacks`: nothing is installed, the reason is named, life goes on."""
    rig = veteran
    rig.push(f"1.1.{ATTACKS.index(attack)}")
    before = rig.tree()
    for name, make in attack.variants:
        make(rig)
        outcome, said = rig.update("--retry")
        assert outcome["code"] in attack.codes, (name, outcome)
        assert rig.tree() == before, name
        calm(said)
        rig.origin.behave()
    found = rig.machine.product_status()
    assert found["installed"]["version"] == rig.installed
    assert rig.machine.running == rig.installed
    recovers(rig)


def test_rollback_is_refused_and_the_stale_mirror_named(rig):
    """Yesterday's repository, every signature valid: what is known stays known."""
    old = rig.copy("yesterday")
    rig.push("1.1.0")
    assert rig.update()[0]["result"] == "installed"
    before = rig.tree()
    rig.serve_from(old)
    outcome, _ = rig.update()
    assert outcome["result"] == "current"
    assert any("older timestamp" in note for note in outcome["notes"])
    assert rig.tree() == before
    recovers(rig, "1.2.0")


def test_rollback_after_the_cache_was_lost_is_refused(rig):
    """The journal remembers apart from the cache which metadata was accepted."""
    old = rig.copy("yesterday")
    rig.push("1.1.0")
    assert rig.update()[0]["result"] == "installed"
    before = rig.tree()
    shutil.rmtree(rig.machine.root / "state" / "trust")
    rig.serve_from(old)
    outcome, _ = rig.update()
    assert outcome["code"] == "metadata_rollback"
    assert rig.tree() == before
    recovers(rig, "1.2.0")


def test_fast_forward_is_recovered_from_by_a_new_online_key(rig):
    """A stolen online key counts to 2^31; after its rotation machines go on."""
    evil = forged(rig.publisher, 2**31, rig.folder / "evil")
    rig.serve_from(evil)
    assert rig.update()[0]["result"] == "current"
    rig.origin.behave()
    rig.push("1.1.0")
    assert rig.update()[0]["result"] == "current"  # deaf to the real publisher
    ring = rig.publisher.space.keyring
    old = ring.retire("online")
    change = edits.replace_key(old.public, ring.ensure("online").public)
    keychange.propose(rig.publisher.space, rig.publisher.open(), change)
    recovers(rig, "1.2.0")


def test_a_malicious_mirror_costs_nothing_but_time(rig, tmp_path):
    """Mirrors serve blobs only; one that lies is passed over."""
    config = rig.machine.config
    with origins.Origin(tmp_path / "empty") as mirror:
        mirror.misbehave(".", origins.body(b"evil" * 100))
        text = config.read_text()
        config.write_text(
            text.replace("[trust]", f'[trust]\nmirrors = ["{mirror.url}"]')
        )
        rig.push("1.1.0")
        outcome, _ = rig.update()
        assert outcome["result"] == "installed"
        assert all(path.startswith("/blobs/") for path in mirror.requests)
        assert mirror.requests


def test_memory_stays_bounded_under_endless_data(rig):
    """Twelve attacked runs (figures printed): the last needs what the first did."""

    def peak_kib() -> int:
        words = [*cli.command, "update", "acme", "--retry", *rig.machine.options]
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", PEAK, *words],
            capture_output=True,
            check=True,
        )
        return int(done.stdout.splitlines()[-1])

    quiet = peak_kib()
    rig.push("1.1.0")
    peaks, offered = [], 0
    for at in (r"timestamp\.json", r"acme\.releases", "/targets/", "/blobs/") * 3:
        rig.origin.misbehave(at, origins.endless)
        peaks.append(peak_kib())
        offered += rig.origin.sent
        rig.origin.behave()
    print(
        f"worker: peak {quiet} KiB in a quiet run; {min(peaks)} to {max(peaks)} KiB in "
        f"{len(peaks)} attacked ones, {offered} bytes offered"
    )
    assert max(peaks) < quiet + 16 * 1024
    first, last = max(peaks[:4]), max(peaks[-4:])
    assert last < first + 2 * 1024
    recovers(rig, "1.2.0")
