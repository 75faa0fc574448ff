# SPDX-License-Identifier: Apache-2.0
"""A key is stolen, used at its worst, replaced: the next release installs unaided.

For each key and each number or time that it signs. What a machine remembers and never
lowers is kept with who said it, and goes with the key (docs/decisions/0019). The real
pipeline, on a machine that nobody touches; keys are replaced with the commands of
docs/publisher.md.
"""

import copy
import shutil
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from fakes.repository import Publisher
from fakes.rig import Rig
from fakes.worker import product_of, update, worker
from tuf.api.metadata import Metadata, MetaFile

from updaterd import cli
from updaterd.core.channel import Offer, Rollout
from updaterd.errors import RejectedError, TransientError, UpdaterError
from updaterd.pipeline import by_hand
from updaterd.release import publish, workspace
from updaterd.store.records import Records
from updaterd.store.schema import open_for_reading

WORST = 2**53 - 1
NEVER = datetime(9999, 12, 31, tzinfo=UTC)
DAY = 86400.0


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    made.push("1.0.0")
    (made.machine.root / "state").mkdir(parents=True, exist_ok=True)
    assert run(made) == "installed"
    yield made
    made.close()


def run(rig: Rig, *, clock=time.time, **asked) -> str:
    """Run the worker as a poll would; return its result, or the error's code."""
    with worker(rig.machine, clock=clock) as services:
        try:
            return update(rig.machine, services, **asked).result
        except UpdaterError as error:
            return error.code


def go_back(rig: Rig) -> str:
    with worker(rig.machine) as services:
        by_hand.roll_back(product_of(rig.machine), services)
    return rig.machine.running


def release(rig: Rig, *words: str):
    """Run `updaterd release ...` in the owner's workspace."""
    folder = rig.publisher.folder
    assert cli.main(["release", *words, "--repo", str(folder)]) == 0
    rig.publisher.space = workspace.Workspace(folder, None)


def thief_of(rig: Rig) -> Publisher:
    """Return a publisher who has copies of the owner's files, keys included."""
    thief = copy.copy(rig.publisher)
    thief.folder = rig.folder / "thief"
    shutil.copytree(rig.publisher.folder, thief.folder)
    thief.space = workspace.Workspace(thief.folder, None)
    return thief


def point(repository, thief, **changes):
    catalog = publish.catalog_of(thief.space, repository, "acme")
    catalog.point(replace(catalog.pointer("stable"), **changes))


def offer(version: str, seq: int, **rollout) -> Offer:
    return Offer(version=version, seq=seq, rollout=Rollout(**rollout))


def channel_floor(repository, thief):
    offers = (offer("9.9.9", WORST),)
    point(repository, thief, floor_seq=WORST, releases=offers)


def channel_empty_with_floor(repository, thief):
    point(repository, thief, floor_seq=WORST, releases=())


def channel_paused(repository, thief):
    point(repository, thief, paused=True)


def channel_window(repository, thief):
    slow = offer("9.9.9", WORST, window_s=30 * 86400, permille=1000)
    point(repository, thief, releases=(slow,))


def channel_version(repository, thief):
    with repository.edit("acme.stable") as role:
        role.version = WORST - 1


def snapshot_version(repository, thief):
    repository.snapshot.version = WORST - 1
    repository.touch("snapshot")


def snapshot_of_targets(repository, thief):
    # machines cannot get such files, and must not remember that they wanted them
    repository.snapshot.meta["acme.releases.json"] = MetaFile(WORST)
    repository.snapshot.meta["targets.json"] = MetaFile(WORST)
    repository.touch("snapshot")


def timestamp_version(repository, thief):
    repository.timestamp.version = WORST - 1
    repository.touch("timestamp")


def timestamp_of_snapshot(repository, thief):
    repository.timestamp.snapshot_meta = MetaFile(WORST)
    repository.touch("timestamp")


ONLINE = (
    channel_floor,
    channel_empty_with_floor,
    channel_paused,
    channel_window,
    channel_version,
    snapshot_version,
    snapshot_of_targets,
    timestamp_version,
    timestamp_of_snapshot,
)


def sign_anew(thief: Publisher, **fields):
    """Sign the timestamp with other fields than the publisher's tools write."""
    path = thief.metadata / "timestamp.json"
    found = Metadata.from_bytes(path.read_bytes())
    found.signed.version += 1
    for name, value in fields.items():
        if name == "expires":
            found.signed.expires = value
        else:
            found.signed.unrecognized_fields[f"x-updaterd-{name}"] = value
    keyids, _ = thief.open().authority("timestamp")
    found.sign(thief.space.keyring.signer(keyids[0]))
    path.write_bytes(found.to_bytes())


def heals(rig: Rig):
    """The owner's next release installs unaided, and the way back is open."""
    rig.origin.behave()
    rig.push("1.1.0")
    assert run(rig) == "installed"
    assert rig.machine.running == "1.1.0"
    assert go_back(rig) == "1.0.0"


@pytest.mark.parametrize("worst", ONLINE, ids=lambda worst: worst.__name__)
def test_online_key_stolen(rig, worst):
    """Each number that the channel's, the snapshot's and the timestamp's roles say."""
    thief = thief_of(rig)
    repository = thief.open()
    worst(repository, thief)
    repository.commit()
    rig.serve_from(thief.public)
    for _ in range(2):
        run(rig)
    assert rig.machine.running == "1.0.0"

    release(rig, "keys", "rotate", "online")
    heals(rig)


@pytest.mark.parametrize(
    "fields",
    [
        {"signed": "9999-12-31T00:00:00Z"},
        {"signed": "9999-12-31T00:00:00Z", "expires": NEVER},
        {"root": WORST},
        {"signed": "no time"},
        {"signed": 10**400},
    ],
    ids=["signed", "signed_expires", "root", "no_time", "huge"],
)
def test_online_key_stolen_and_the_time_said(rig, fields):
    """A timestamp of the year 9999: the right clock is not wrong for ever."""
    thief = thief_of(rig)
    sign_anew(thief, **fields)
    rig.serve_from(thief.public)
    for _ in range(2):
        run(rig)

    release(rig, "keys", "rotate", "online")
    heals(rig)
    with closing(open_for_reading(rig.machine.root / "state" / "state.db")) as database:
        assert Records(database).last_good_time() <= time.time()


def test_release_key_stolen_and_the_floor_signed(rig):
    """seq and floor of 2^53-1 on a release that was offered, and installed."""
    tree = rig.folder / "trees" / "1.0.0"
    asked = publish.Order(
        product="acme", version="6.6.6", platform=publish_platform(rig), deltas=0
    )
    built = publish.prepare(rig.publisher.space, tree, asked, now=rig.publisher.now)
    repository = rig.publisher.open()
    catalog = publish.catalog_of(rig.publisher.space, repository, "acme")
    known = catalog.manifest(catalog.require("1.0.0"))
    evil = replace(
        known, version="6.6.6", seq=WORST, floor_seq=WORST,
        full=built.full, deltas=(), files=built.files,
    )  # fmt: skip
    catalog.add(evil)
    catalog.point(publish.offer(catalog.pointer("stable"), "6.6.6", WORST))
    repository.commit()
    assert run(rig) == "installed"
    assert rig.machine.running == "6.6.6"

    release(rig, "keys", "rotate", "release-acme")
    release(
        rig, "yank", "--product", "acme", "--version", "6.6.6", "--no-announce"
    )  # fmt: skip
    rig.push("1.1.0")
    assert run(rig) == "installed"
    assert rig.machine.running == "1.1.0"
    rig.push("1.2.0")
    assert run(rig) == "installed"
    assert go_back(rig) == "1.1.0"


def publish_platform(rig: Rig) -> str:
    return rig.publisher.space.settings.platform


def test_channel_key_of_its_own_stolen(rig):
    """Replaced in the targets role alone: no new root, and healed all the same."""
    release(rig, "keys", "add", "acme.stable", "--name", "edge")
    release(rig, "keys", "revoke", "acme.stable", "--name", "online")
    rig.push("1.0.1")
    assert run(rig) == "installed"
    thief = thief_of(rig)
    repository = thief.open()
    channel_floor(repository, thief)
    repository.commit()
    rig.serve_from(thief.public)
    run(rig)
    assert rig.machine.running == "1.0.1"
    with worker(rig.machine) as services:
        assert services.journal.floor("acme") == WORST

    release(rig, "keys", "rotate", "edge")
    rig.origin.behave()
    rig.push("1.1.0")
    assert run(rig) == "installed"
    assert rig.machine.running == "1.1.0"
    assert rig.publisher.open().root.version == 1
    assert go_back(rig) == "1.0.1"


def test_one_root_key_stolen(rig):
    """One of three signs nothing: neither root nor targets, whatever they say."""
    thief = thief_of(rig)
    repository = thief.open()
    repository.touch("root")
    repository.touch("targets")
    repository.commit()
    for name in ("2.root.json", "2.targets.json"):
        path = thief.metadata / name
        found = Metadata.from_bytes(path.read_bytes())
        (first, *_) = (key for key in found.signatures)
        found.signatures = {first: found.signatures[first]}
        path.write_bytes(found.to_bytes())
    rig.serve_from(thief.public)
    assert run(rig) in {"metadata_forged", "metadata_mixed"}
    assert rig.machine.running == "1.0.0"

    release(rig, "keys", "rotate", "root-1")
    heals(rig)


def test_replay_after_the_rotation(rig):
    """The thief's metadata, under the old root, on a machine that lost its cache."""
    thief = thief_of(rig)
    repository = thief.open()
    channel_floor(repository, thief)
    repository.commit()
    rig.serve_from(thief.public)
    run(rig)
    release(rig, "keys", "rotate", "online")
    rig.origin.behave()
    rig.push("1.1.0")
    assert run(rig) == "installed"

    shutil.rmtree(rig.machine.root / "state" / "trust")
    rig.serve_from(thief.public)
    assert run(rig) == "refused"
    with worker(rig.machine) as services:
        assert services.journal.floor("acme") == 0
    rig.origin.behave()
    rig.push("1.2.0")
    assert run(rig) == "installed"
    assert rig.machine.running == "1.2.0"


def test_clock_days_ahead_during_one_update(rig):
    """Six days ahead once: afterwards the right clock is right, at once."""
    rig.push("1.1.0")
    assert run(rig, clock=lambda: time.time() + 6 * DAY) == "installed"
    rig.push("1.2.0")
    with worker(rig.machine) as services:
        outcome = update(rig.machine, services)
    assert outcome.result == "installed"
    assert outcome.notes == ()
    with closing(open_for_reading(rig.machine.root / "state" / "state.db")) as database:
        assert Records(database).last_good_time() <= time.time()


def test_publishers_clock_days_ahead_once(rig):
    """Signed in the future; signed again with the right clock, nothing is suspect."""
    thief = thief_of(rig)  # the owner's own keys, at another desk
    ahead = datetime.fromtimestamp(time.time() + 6 * DAY, UTC)
    sign_anew(thief, signed=f"{ahead:%Y-%m-%dT%H:%M:%SZ}")
    shutil.copy(thief.metadata / "timestamp.json", rig.publisher.metadata)
    run(rig)
    rig.push("1.1.0")
    assert run(rig) == "installed"
    with worker(rig.machine) as services:
        assert update(rig.machine, services).notes == ()


def test_a_floor_above_what_is_offered_is_refused(rig):
    """By the rule that publisher and machine read pointers with."""
    repository = rig.publisher.open()
    with pytest.raises(RejectedError, match="floor 2 is above seq 1"):
        point(repository, rig.publisher, floor_seq=2)


def test_seq_without_a_successor_is_not_given(rig):
    """`--seq 2^53-1` would leave no place for any later release."""
    tree = rig.folder / "trees" / "1.0.0"
    with pytest.raises(UpdaterError) as caught:
        publish.prepare(
            rig.publisher.space,
            tree,
            publish.Order(
                product="acme", version="2.0.0", platform=publish_platform(rig),
                seq=WORST,
            ),
            now=rig.publisher.now,
        )  # fmt: skip
    assert caught.value.code == "seq_exhausted"
    assert not isinstance(caught.value, TransientError)
