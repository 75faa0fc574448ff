# SPDX-License-Identifier: Apache-2.0
"""Hostile deltas, validly signed, through the real daemon and its workers.

The releases share 1 MiB that does not compress, so the delta is the cheapest way and
is what the daemon takes first. With an honest full bundle beside it the release
installs all the same; without one the installed tree stays, byte for byte.
"""

import json
import random
from contextlib import closing

import pytest
from fakes.trees import snapshot

from security import bundles
from security.attacks import manifest_of
from security.siege import Siege
from updaterd.store.records import Records
from updaterd.store.schema import open_for_reading

REFUSED = frozenset({"no_usable_bundle"})


@pytest.fixture(scope="module")
def siege(tmp_path_factory):
    """A daemon that lives through one hostile delta after the other."""
    shared = random.Random(7).randbytes(1 << 20)
    made = Siege(tmp_path_factory.mktemp("siege"), ballast=shared)
    yield made
    made.close()


def taken(siege) -> dict:
    """Return the path of the newest deployment: kind, reason, troubles."""
    connection = open_for_reading(siege.machine.root / "state" / "state.db")
    with closing(connection):
        newest = Records(connection).history("acme", limit=1)[0]
    return json.loads(newest.path)


def asked_for(siege, edge) -> bool:
    return any(edge.sha256 in path for path in siege.rig.origin.requests)


@pytest.mark.parametrize("name", bundles.DELTAS)
def test_hostile_delta(siege, name):
    """Refused, nothing written; where a full bundle is left, that is installed."""
    rig = siege.rig
    codec, make = bundles.DELTAS[name]
    precious = rig.folder / "precious"
    precious.write_bytes(b"precious")

    with siege.unseen():
        siege.push()
        edge = bundles.with_delta_alone(rig, make(rig), codec)
    siege.provoke(REFUSED, name)
    assert asked_for(siege, edge)
    siege.recovers()

    with siege.unseen():
        version = siege.push()
        bundles.with_delta(rig, make(rig), codec)
    siege.tell()
    siege.installs(version)
    path = taken(siege)
    assert path["kind"] == "full"
    assert len(path["troubles"]) == 1, path
    print(f"{name}: {path['troubles'][0]}")
    assert snapshot(siege.machine.current.resolve()) == snapshot(
        rig.folder / "trees" / version
    )
    assert manifest_of(rig).version == siege.machine.running
    assert precious.read_bytes() == b"precious"
    rig.heal()
    rig.heal = lambda: None
    rig.origin.behave()


def test_honest_deltas_are_taken_after_all_that(siege):
    """A hostile delta costs trust in itself alone."""
    siege.recovers()
    assert taken(siege)["kind"] == "delta"
