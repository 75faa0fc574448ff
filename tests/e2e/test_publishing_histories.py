# SPDX-License-Identifier: Apache-2.0
"""Whatever a publisher does, no machine goes where its channel did not send it.

Histories at random: push, add, publish, promote, rollout, pause, resume, yank, floors,
gc, changes of keys, backups that are restored; machines of two platforms look at any
time, with the client's own code. The model knows only what was asked for and not
refused. All of it, at least 20,000 steps (about 25 minutes on one core):

    UPDATERD_HISTORIES=450 TMPDIR=/dev/shm pytest -n0 -s \
        tests/e2e/test_publishing_histories.py
"""

import copy
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from fakes.channel import ARM, Channel
from fakes.follower import Follower
from fakes.repository import PLATFORM, Publisher, manifest_of
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from updaterd.core.channel import EVERYBODY
from updaterd.core.decision import Refuse
from updaterd.core.manifest import File
from updaterd.core.rollout import is_reached
from updaterd.errors import BrokenError, RejectedError
from updaterd.release.keychange import change as keychange
from updaterd.release.keychange import edits
from updaterd.release.upkeep import expiry, garbage, recovery

HISTORIES = int(os.environ.get("UPDATERD_HISTORIES", "6"))
STEPS = 50
CHANNELS = ("stable", "beta")
REFUSALS = {
    "below_floor", "empty_channel", "not_newest", "nothing_beneath",
    "partial_step_back", "platform_missing", "source_paused", "taken_back",
    "too_many_rollouts", "no_such_release",
}  # fmt: skip
WEEK = timedelta(days=garbage.LEAST_DAYS)

channels = st.sampled_from(CHANNELS)
reaches = st.sampled_from([1, 300, 600, EVERYBODY, EVERYBODY])
followers = st.integers(0, 3)
pick = st.integers(0, 99)
steps = {"steps": 0, "looks": 0, "installed": 0, "refused": 0}


@dataclass
class Release:
    """What the model knows of one: its place, whom it is made for, its floor."""

    seq: int
    floor: int
    platforms: set = field(default_factory=set)


@dataclass
class Known:
    """What was asked for and not refused; a backup keeps it with the repository."""

    releases: dict = field(default_factory=dict)
    offered: set = field(default_factory=set)  # (channel, version, platform)
    everybodys: dict = field(default_factory=dict)  # (channel, platform) -> versions
    floors: dict = field(default_factory=dict)  # channel -> seq
    yanked: set = field(default_factory=set)


class Histories(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.publisher = Publisher(self.folder / "ops", channels=CHANNELS)
        self.channel = Channel(self.publisher)
        self.known = Known(floors=dict.fromkeys(CHANNELS, 0))
        self.backup = None
        self.labels = self.turn = 0
        self.machines, self.seen, self.floor = [], {}, {}
        for number, (platform, channel) in enumerate(
            [(PLATFORM, "stable"), (PLATFORM, "stable"), (ARM, "stable"),
             (PLATFORM, "beta")]
        ):  # fmt: skip
            self.machines.append(
                Follower(
                    self.folder / f"machine{number}",
                    public=self.publisher.public,
                    bootstrap=self.publisher.bootstrap,
                    platform=platform,
                    name=f"machine {number}",
                    clock=lambda: self.publisher.now.timestamp(),  # noqa: PLW0108 # it goes on
                    channel=channel,
                )
            )
            self.floor[number] = 0

    @initialize()
    def first(self):
        """Channels start with a release for everybody."""
        for name in CHANNELS:
            self.push(name, [PLATFORM, ARM], EVERYBODY, floored=False)

    def teardown(self):
        for machine in self.machines:
            machine.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # What the publisher does.

    @contextmanager
    def act(self):
        """Count a step; what is refused, with a reason we know, changes nothing."""
        steps["steps"] += 1
        self.was_refused = True
        before = self.publisher.open().pushed()
        try:
            yield
        except (RejectedError, BrokenError) as error:
            if error.code not in REFUSALS:
                raise
            steps["refused"] += 1
        else:
            self.was_refused = False
        if self.was_refused:
            assert self.publisher.open().pushed() == before

    def listed(self, number):
        versions = [v for v in self.known.releases if v not in self.known.yanked]
        return versions[number % len(versions)] if versions else "0.none"

    def add(self, platforms, *, floored):
        self.labels += 1
        version = f"{self.labels}.0"
        seq = self.channel.open()[1].next_seq()
        floor = seq if floored else 0
        self.channel.add(version, *platforms, floor_seq=floor)
        self.known.releases[version] = Release(seq, floor, set(platforms))
        return version

    def note(self, name, version, permille, before):
        """Keep what a channel offers now that it did not before."""
        release = self.known.releases[version]
        offered = next(o for o in self.channel.pointer(name).releases
                       if o.version == version)  # fmt: skip
        standing = next((o for o in before.releases if o.version == version), None)
        reach = offered.rollout.permille
        if standing is None:
            assert reach == permille, "a new offer reaches whom it was to reach"
        for platform in release.platforms:
            if not offered.is_for(platform):
                continue
            self.known.offered.add((name, version, platform))
            stack = self.known.everybodys.setdefault((name, platform), [])
            later = [v for v in stack if self.known.releases[v].seq > release.seq]
            for one in later:
                stack.remove(one)
            if reach >= EVERYBODY and version not in stack:
                stack.append(version)
            elif reach < EVERYBODY and version in stack:
                stack.remove(version)
        self.known.floors[name] = max(self.known.floors[name], release.floor)

    def put(self, name, version, permille, **wish):
        with self.act():
            before = self.channel.pointer(name)
            self.channel.put(version, name=name, permille=permille, **wish)
            self.note(name, version, permille, before)

    @rule(
        name=channels,
        platforms=st.sampled_from([[PLATFORM, ARM], [PLATFORM, ARM], [PLATFORM]]),
        permille=reaches,
        floored=st.sampled_from([False, False, False, True]),
        lacking=st.booleans(),
    )
    def push(self, name, platforms, permille, floored, lacking=False):
        """A new release, perhaps for one platform only."""
        version = self.add(platforms, floored=floored)
        self.put(name, version, permille, without=[ARM] if lacking else [])

    @rule(platforms=st.sampled_from([[PLATFORM, ARM], [ARM]]))
    def only_add(self, platforms):
        steps["steps"] += 1
        self.add(platforms, floored=False)

    @rule(name=channels, number=pick, permille=reaches)
    def push_again(self, name, number, permille):
        """The same command once more: nothing that stands changes."""
        version = self.listed(number)
        before = self.channel.pointer(name)
        stood = any(each.version == version for each in before.releases)
        self.put(name, version, permille)
        if stood and not self.was_refused:
            assert {o.version: o.rollout for o in before.releases}[version] == next(
                o.rollout
                for o in self.channel.pointer(name).releases
                if o.version == version
            )

    @rule(name=channels, number=pick, permille=reaches)
    def publish(self, name, number, permille):
        self.put(name, self.listed(number), permille, back=True, without=[ARM])

    @rule(permille=reaches)
    def promote(self, permille):
        with self.act():
            before = self.channel.pointer("stable")
            assert not (paused := self.channel.pointer("beta").paused) or paused
            version = self.channel.pointer("beta").releases[:1]
            self.channel.promote("beta", permille=permille, without=[ARM])
            assert not paused, "somebody stopped it there"
            self.note("stable", version[0].version, permille, before)

    @rule(name=channels, permille=reaches)
    def rollout(self, name, permille):
        with self.act():
            before = self.channel.pointer(name)
            self.channel.rollout(permille, name=name)
            version = before.releases[0].version
            self.note(name, version, permille, before)

    @rule(name=channels, paused=st.booleans())
    def pause(self, name, paused):
        steps["steps"] += 1
        self.channel.pause(name, paused=paused)

    @rule(number=pick)
    def yank(self, number):
        version = self.listed(number)
        with self.act():
            self.channel.yank(version)
            self.known.yanked.add(version)
            for stack in self.known.everybodys.values():
                if version in stack:
                    stack.remove(version)

    @precondition(lambda self: self.known.yanked)
    @rule(number=pick, same=st.booleans())
    def push_withdrawn(self, number, same):
        """Its label is its tree's: that may come again, in its place, and no other."""
        steps["steps"] += 1
        version = sorted(self.known.yanked)[number % len(self.known.yanked)]
        release = self.known.releases[version]
        repository, catalog = self.channel.open()
        manifest = manifest_of("acme", version, release.seq, floor_seq=release.floor)
        platform = min(release.platforms)
        if not same:
            size = manifest.full.unpacked
            manifest = replace(manifest, files=(File("x", "ab" * 32, size, 0o644),))
        try:
            catalog.add(replace(manifest, platform=platform))
        except RejectedError as error:
            if same or error.code != "release_exists":
                raise
            return
        assert same
        repository.commit()
        self.known.yanked.discard(version)
        release.platforms = {platform}
        for name in CHANNELS:  # who went on from it was told to
            self.known.offered -= {(name, version, one) for one in (PLATFORM, ARM)}

    @rule(days=st.integers(0, 6))
    def pass_days(self, days):
        """The timer signs; what was long forgotten is deleted."""
        steps["steps"] += 1
        self.publisher.now += timedelta(days=days)
        space, now = self.publisher.space, self.publisher.now
        _, missing = expiry.refresh(space, self.publisher.open(), now)
        assert missing == []
        garbage.note(space, self.publisher.open())
        for path in garbage.collectable(space, self.publisher.open(), now - WEEK):
            path.unlink()

    @rule(name=st.sampled_from(["online", "release-acme"]))
    def rotate(self, name):
        steps["steps"] += 1
        ring = self.publisher.space.keyring
        old = ring.retire(name)
        change = edits.replace_key(old.public, ring.ensure(name).public)
        assert not keychange.propose(
            self.publisher.space, self.publisher.open(), change
        )
        if name == "release-acme":  # a floor is the word of the key that said it
            self.floor = dict.fromkeys(self.floor, 0)
            # What was below it may be gone back to from now on; nobody is owed that.
            for (channel, _), stack in self.known.everybodys.items():
                least = self.known.floors[channel]
                stack[:] = [v for v in stack if self.known.releases[v].seq >= least]
            self.known.floors = dict.fromkeys(CHANNELS, 0)
        self.backup = None  # older keys cannot be gone back to

    @rule()
    def back_up(self):
        steps["steps"] += 1
        folder = self.folder / "backup"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.publisher.public, folder)
        self.backup = copy.deepcopy(self.known)

    @precondition(lambda self: self.backup is not None)
    @rule()
    def restore(self):
        """All that was out since is lost; the publisher goes on past it."""
        steps["steps"] += 1
        self.publisher.now += timedelta(minutes=1)
        shutil.rmtree(self.publisher.public)
        shutil.copytree(self.folder / "backup", self.publisher.public)
        repository = self.publisher.open()
        recovery.jump(self.publisher.space, repository, None, None)
        repository.commit()
        self.known = copy.deepcopy(self.backup)
        self.seen = {}  # what they began to look at is gone with the disk

    # What machines do.

    def reaches(self, machine, offer):
        return offer.is_for(machine.platform) and is_reached(
            offer.rollout, machine.name
        )

    @rule(number=followers)
    def look(self, number):
        """A machine looks, by itself; one does after each other step as well."""
        steps["steps"] += 1
        self.follow(number)

    def follow(self, number):
        """The heart of it: where does the machine go, and may it?"""
        steps["looks"] += 1
        machine, known = self.machines[number], self.known
        name, before = machine.product.channel, machine.installed
        found = machine.look()
        after = machine.installed
        pointer = self.channel.pointer(name)
        code = found.decision.code
        assert code != "metadata_rollback"
        if after != before:
            steps["installed"] += 1
            release = known.releases[after.version]
            assert not pointer.paused
            assert after.version not in known.yanked
            assert (name, after.version, machine.platform) in known.offered
            assert (after.seq, release.seq) == (release.seq, after.seq)
            assert release.seq >= self.floor[number], "below a floor that it has"
            self.floor[number] = max(self.floor[number], release.floor)
        good = [
            offer
            for offer in pointer.releases
            if self.reaches(machine, offer) and offer.seq >= self.floor[number]
        ]
        if pointer.paused or not good:
            return
        if isinstance(found.decision, Refuse):
            assert code == "below_floor"
            # Only a rollout's floor can stand above the base for everybody else.
            first = next(o for o in pointer.releases if self.reaches(machine, o))
            assert first.seq < self.floor[number]
            return
        assert after is not None
        assert after.version not in known.yanked, "a good one is offered"
        assert any(o.version == after.version for o in pointer.releases), code

    @rule(number=followers)
    def begin_look(self, number):
        """A machine on a slow line: it has the metadata, and not yet the rest."""
        steps["steps"] += 1
        machine = self.machines[number]
        self.seen[number] = self.publisher.now, machine.see()

    @rule(number=followers)
    def end_look(self, number):
        """For as long as its metadata counts, what that refers to is there."""
        steps["steps"] += 1
        when, found = self.seen.pop(number, (None, None))
        if when is not None and self.publisher.now - when < WEEK:
            self.machines[number].want(found)

    # What always holds.

    @invariant()
    def somebody_looks(self):
        self.turn += 1
        self.follow(self.turn % len(self.machines))

    @invariant()
    def everybody_gets_something(self):
        """Where anything good was ever everybody's, everybody gets something good."""
        for name in CHANNELS:
            pointer = self.channel.pointer(name)
            assert {o.version for o in pointer.releases}.isdisjoint(self.known.yanked)
            for platform in (PLATFORM, ARM):
                stack = self.known.everybodys.get((name, platform), [])
                floor = self.known.floors[name]
                good = [v for v in stack if self.known.releases[v].seq >= floor]
                ours = [o for o in pointer.releases if o.is_for(platform)]
                if good:
                    assert ours, (name, platform, good)
                    assert ours[-1].rollout.permille == EVERYBODY
                for offer in ours:
                    key = (name, offer.version, platform)
                    assert key in self.known.offered


Histories.TestCase.settings = settings(
    max_examples=HISTORIES,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize="UPDATERD_HISTORIES" not in os.environ,
    phases=[Phase.reuse, Phase.generate],  # to shrink a history would take an hour
    suppress_health_check=list(HealthCheck),
)
TestHistories = Histories.TestCase


def test_the_histories_were_some():
    """What was done: shown with -s, and never next to nothing."""
    print(f"\n{HISTORIES} histories: {steps}")
    assert steps["steps"] >= HISTORIES * STEPS // 2
    assert steps["installed"] > HISTORIES
