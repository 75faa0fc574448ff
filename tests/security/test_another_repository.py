# SPDX-License-Identifier: Apache-2.0
"""A machine that its owner gives another repository, and what is remembered of each.

Versions and `seq` count in one repository. What the journal keeps against replays is
kept for each, by the roots that lead to each other; an attacker cannot choose which
one a machine follows, its configuration does.
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes.repository import Publisher
from fakes.rig import Rig


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        made.push(version)
        assert made.update()[0]["result"] == "installed"
    yield made
    made.close()


def move(rig: Rig, publisher: Publisher, bootstrap: bytes):
    """Change `[trust] root` and what the address leads to, as an owner would."""
    rig.publisher = publisher
    rig.origin.root = publisher.public
    Path(rig.folder / "root.json").write_bytes(bootstrap)


def test_a_moved_machine_follows_and_replays_stay_refused(rig):
    """New repository, versions from 1: taken; the old one rolled back: refused."""
    ours = rig.publisher
    yesterday = rig.copy("yesterday")
    rig.push("1.3.0")
    assert rig.update()[0]["result"] == "installed"

    other = Publisher(rig.folder / "other", now=datetime.now(UTC))
    move(rig, other, other.bootstrap)
    rig.push("0.9.0")
    outcome, said = rig.update()
    assert outcome["result"] == "installed", (outcome, said)
    assert rig.machine.running == "0.9.0"
    assert rig.update()[0]["code"] == "current"

    move(rig, ours, ours.bootstrap)
    rig.serve_from(yesterday)
    outcome, _ = rig.update()
    assert outcome["code"] == "metadata_rollback"
    assert rig.machine.running == "0.9.0"
    rig.origin.behave()
    rig.push("1.4.0")
    assert rig.update()[0]["result"] == "installed"
    assert rig.machine.running == "1.4.0"


def test_a_newer_bootstrap_root_forgets_nothing(rig):
    """A package brings root 2 of the same repository: yesterday is still refused."""
    repository = rig.publisher.open()
    repository.touch("root")
    repository.commit()
    yesterday = rig.copy("yesterday")
    rig.push("1.3.0")
    assert rig.update()[0]["result"] == "installed"
    before = rig.tree()
    shutil.rmtree(rig.machine.root / "state" / "trust")
    newer = rig.publisher.metadata / "2.root.json"
    move(rig, rig.publisher, newer.read_bytes())
    rig.serve_from(yesterday)
    outcome, said = rig.update()
    assert outcome["code"] == "metadata_rollback", (outcome, said)
    assert rig.tree() == before
    rig.origin.behave()
    rig.push("1.4.0")
    assert rig.update()[0]["result"] == "installed"
