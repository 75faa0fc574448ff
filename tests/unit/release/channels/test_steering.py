# SPDX-License-Identifier: Apache-2.0
"""A channel says what everybody gets: only what it offered, whom it fits, told."""

from dataclasses import replace

import pytest
from fakes.channel import ARM, Channel
from fakes.repository import PLATFORM, manifest_of

from updaterd.core.channel import ChannelPointer
from updaterd.core.manifest import File
from updaterd.errors import BrokenError, RejectedError
from updaterd.release import publish
from updaterd.release.channels import offers, withdrawal
from updaterd.release.keychange import change as keychange
from updaterd.release.keychange import edits
from updaterd.release.repository.history import FIELD

pytestmark = pytest.mark.slow


@pytest.fixture
def channel(publisher):
    """acme/stable of a repository that has 1.0.0 (seq 1) there, for one platform."""
    return Channel(publisher)


def refused(code, act, *arguments, **more):
    with pytest.raises((RejectedError, BrokenError)) as caught:
        act(*arguments, **more)
    assert caught.value.code == code
    return str(caught.value)


def test_yank_gives_what_this_channel_offered_and_no_other(channel):
    """Not what was in beta, nor what was only added."""
    channel.push("1.1.0-beta", name="beta")
    channel.add("1.1.1")
    channel.push("1.2.0")
    channel.yank("1.2.0")
    assert channel.says() == [("1.0.0", 1000, [PLATFORM])]


def test_yank_gives_each_platform_what_it_was_offered(channel):
    """A release for one platform only is nothing for machines of another."""
    channel.push("1.1.0", PLATFORM, ARM)
    channel.push("1.2.0", PLATFORM, without=[ARM])
    channel.push("1.3.0", PLATFORM, ARM)
    channel.yank("1.3.0")
    assert channel.says() == [("1.2.0", 1000, [PLATFORM]), ("1.1.0", 1000, [ARM])]


def test_yank_never_goes_below_the_floor(channel):
    """Machines that had it would refuse: nothing rather than that, and it is told."""
    channel.push("1.1.0")
    channel.push("1.2.0", floor_seq=3)
    (steered,) = channel.yank("1.2.0")
    assert channel.says() == []
    assert "keep it until the next push" in steered.notes[0]
    refused("below_floor", channel.publish, "1.1.0")


def test_yank_leaves_out_what_the_channel_went_back_from(channel):
    """1.1.0 was taken back: it is not what withdrawing 1.2.0 leads to."""
    channel.push("1.1.0")
    channel.publish("1.0.0")
    channel.push("1.2.0")
    channel.yank("1.2.0")
    assert channel.says() == [("1.0.0", 1000, [PLATFORM])]


def test_yank_does_not_lead_to_what_was_withdrawn_and_only_added_again(channel):
    """1.1.0 came back into the repository, and into no channel."""
    channel.push("1.1.0")
    channel.push("1.2.0")
    seq = channel.open()[1].require("1.1.0").seq
    channel.yank("1.1.0")
    repository, catalog = channel.open()
    catalog.add(manifest_of("acme", "1.1.0", seq))
    repository.commit()
    channel.yank("1.2.0")
    assert channel.says() == [("1.0.0", 1000, [PLATFORM])]


def test_yank_of_an_old_release_that_comes_back_is_forgotten(channel):
    """It was offered no more when it was withdrawn; then it is added again."""
    channel.push("1.1.0")
    channel.push("1.2.0")
    channel.push("1.3.0")
    seq = channel.open()[1].require("1.1.0").seq
    channel.yank("1.1.0")
    channel.add("1.1.0", seq=seq)
    channel.yank("1.3.0")
    channel.yank("1.2.0")
    assert channel.says() == [("1.0.0", 1000, [PLATFORM])]


def test_yank_needs_no_key_of_a_channel_that_does_not_offer_the_release(channel):
    """Who publishes in stable does not have beta's key."""
    channel.push("1.1.0-beta", name="beta")
    channel.push("1.1.0")
    repository, catalog = channel.open()
    withdrawal.yank(catalog, "1.1.0")
    assert "acme.stable" in repository.changed
    assert "acme.beta" not in repository.changed


def test_yank_beneath_a_rollout_leaves_nobody_without(channel):
    """[1.2 for one in a thousand, 1.1 for the rest] without 1.1: they get 1.0."""
    channel.push("1.1.0")
    channel.push("1.2.0", permille=1)
    channel.yank("1.1.0")
    assert channel.says() == [("1.2.0", 1, [PLATFORM]), ("1.0.0", 1000, [PLATFORM])]


def test_yank_of_a_rollout_leaves_what_is_beneath(channel):
    channel.push("1.1.0", permille=1)
    channel.yank("1.1.0")
    assert channel.says() == [("1.0.0", 1000, [PLATFORM])]


def test_yank_counts_no_rollout_that_never_reached_everybody(channel):
    """What one in a thousand tried is not what everybody is sent to."""
    channel.push("1.1.0", permille=1)
    channel.push("1.2.0")
    channel.yank("1.2.0")
    assert channel.says() == [("1.0.0", 1000, [PLATFORM])]


def test_a_narrowed_release_has_something_beneath(channel):
    """1.1.0 for everybody, then for a tenth: the others get what they had, told."""
    channel.push("1.1.0")
    steered = channel.rollout(100)
    assert channel.says() == [("1.1.0", 100, [PLATFORM]), ("1.0.0", 1000, [PLATFORM])]
    assert "1.0.0" in steered.notes[0]


def test_narrowing_what_has_nothing_beneath_is_refused(channel):
    """Machines would keep it and say that they are current."""
    refused("nothing_beneath", channel.rollout, 100)
    assert channel.says() == [("1.0.0", 1000, [PLATFORM])]


def test_a_first_release_may_start_small(channel):
    """Where nothing was offered before, nobody is left with anything."""
    steered = channel.push("2.0.0", name="beta", permille=10)
    assert "get nothing" in steered.notes[0]
    channel.rollout(1000, name="beta")
    assert channel.says("beta") == [("2.0.0", 1000, [PLATFORM])]


def test_a_repeated_push_changes_nothing_that_stands(channel):
    """Neither the reach nor its start; `rollout` does that, and it says so."""
    channel.push("1.1.0", permille=1)
    channel.rollout(500)
    before = channel.pointer()
    steered = channel.put("1.1.0", permille=1000)
    assert channel.pointer() == before
    assert "500 of 1000" in steered.notes[0]
    channel.pause()
    channel.put("1.1.0")
    assert channel.pointer() == replace(before, paused=True)


def test_a_repeated_push_brings_nothing_back(channel):
    """What the channel went back from needs `publish`, said on purpose."""
    channel.push("1.1.0")
    channel.publish("1.0.0")
    refused("taken_back", channel.put, "1.1.0")
    channel.publish("1.1.0")
    assert channel.says() == [("1.1.0", 1000, [PLATFORM])]


def test_a_promotion_takes_no_machine_back(channel):
    """Beta's newest may be older than what is offered here."""
    channel.put("1.0.0", name="beta")
    channel.push("1.1.0")
    refused("not_newest", channel.promote, "beta")


def test_a_paused_channel_is_not_promoted_from(channel):
    """Somebody stopped it there."""
    channel.push("1.1.0", name="beta")
    channel.pause("beta")
    refused("source_paused", channel.promote, "beta")
    assert channel.says() == [("1.0.0", 1000, [PLATFORM])]


def test_a_part_of_the_machines_cannot_go_back(channel):
    """No pointer can say it: told, before anything is signed."""
    channel.push("1.1.0")
    refused("partial_step_back", channel.publish, "1.0.0", permille=500)


def test_a_release_without_a_platform_of_the_channel_is_refused(channel):
    """Unless it is said; then those machines are offered what they have."""
    channel.push("1.1.0", PLATFORM, ARM)
    channel.add("1.2.0", ARM)
    said = refused("platform_missing", channel.put, "1.2.0")
    assert f"--without {PLATFORM}" in said
    channel.put("1.2.0", without=[PLATFORM])
    assert channel.says() == [("1.2.0", 1000, [ARM]), ("1.1.0", 1000, [PLATFORM])]
    assert channel.pointer().must_understand == ("platforms",)
    channel.add("1.2.0", PLATFORM)
    channel.put("1.2.0")
    assert channel.says() == [("1.2.0", 1000, [ARM, PLATFORM])]
    assert channel.pointer().must_understand == ()


def test_an_added_platform_is_offered_when_it_is_published(channel):
    """The rollout that is under way stays as it is."""
    channel.push("1.1.0", permille=20)
    channel.add("1.1.0", ARM)
    assert channel.says()[0] == ("1.1.0", 20, [PLATFORM])
    channel.publish("1.1.0")
    assert channel.says()[0] == ("1.1.0", 20, [ARM, PLATFORM])


def test_publish_below_its_own_floor_is_refused(channel):
    """Also after the release that set it was withdrawn."""
    channel.push("1.1.0", floor_seq=2)
    channel.push("1.2.0")
    refused("below_floor", channel.publish, "1.0.0")
    channel.publish("1.1.0")
    channel.yank("1.1.0")
    refused("below_floor", channel.publish, "1.0.0")


def test_a_floor_goes_with_the_key_that_said_it(channel):
    """A thief's floor does not outlive the release key that was taken out."""
    channel.push("1.1.0", seq=50, floor_seq=50)
    refused("below_floor", channel.publish, "1.0.0")
    publisher = channel.publisher
    ring = publisher.space.keyring
    old = ring.retire("release-acme")
    change = edits.replace_key(old.public, ring.ensure("release-acme").public)
    keychange.propose(publisher.space, publisher.open(), change)
    channel.publish("1.0.0")
    assert channel.says() == [("1.0.0", 1000, [PLATFORM])]


def test_more_rollouts_than_a_channel_can_say_are_refused(channel):
    """What everybody else gets is never what falls off the end."""
    for number in range(15):
        channel.push(f"2.{number}", permille=number + 1)
    assert channel.says()[-1] == ("1.0.0", 1000, [PLATFORM])
    refused("too_many_rollouts", channel.push, "2.99", permille=500)


def test_a_withdrawn_label_is_its_trees_for_ever(channel):
    """The same contents may come again, in their old place; others never."""
    first = channel.push("1.1.0")
    channel.yank("1.1.0")
    changed = manifest_of("acme", "1.1.0", 9)
    entry = File("bin/other", "ab" * 32, changed.full.unpacked, 0o755)
    wrong = publish.Built(files=(entry,), full=changed.full, deltas=())
    repository, catalog = channel.open()
    order = publish.Order(product="acme", version="1.1.0", platform=PLATFORM)
    refused("release_exists", publish.enter, catalog, order, wrong)
    refused("release_exists", catalog.add, replace(changed, files=(entry,)))
    same = publish.Built(files=changed.files, full=changed.full, deltas=())
    again = publish.enter(catalog, order, same)
    repository.commit()
    assert again.manifest.seq == first.pointer.releases[0].seq
    channel.put("1.1.0")
    assert channel.says() == [("1.1.0", 1000, [PLATFORM])]
    assert channel.push("1.2.0").pointer.releases[0].seq == 3


def test_a_channel_of_before_remembers_by_its_editions(channel):
    """Repositories made by an older updaterd: their roles on disk say what was."""
    channel.push("1.1.0-beta", name="beta")
    channel.push("1.2.0")
    repository, catalog = channel.open()
    pointer = catalog.pointer("stable")
    bare = tuple(replace(each, platforms=None) for each in pointer.releases)
    for path in channel.publisher.metadata.glob("*.acme.stable.json"):
        path.write_text(path.read_text().replace(FIELD, "x-nothing"))
    repository, catalog = channel.open()
    assert repository.targets("acme.stable").unrecognized_fields.get(FIELD) is None
    catalog.point(replace(pointer, releases=bare))
    repository.targets("acme.stable").unrecognized_fields.pop(FIELD)
    repository.commit()
    channel.yank("1.2.0")
    assert channel.says() == [("1.0.0", 1000, [PLATFORM])]


def test_offers_that_do_not_say_whom_they_are_for_are_read_as_before():
    """The first that reaches everybody ends the list."""
    pointer = ChannelPointer(
        product="acme", channel="stable", paused=False, floor_seq=0, releases=()
    )
    for seq, permille in ((1, 1000), (2, 10), (3, 1000), (4, 10)):
        pointer = offers.offer(pointer, f"1.{seq}", seq, permille=permille)
    assert [each.version for each in pointer.releases] == ["1.4", "1.3"]
