# SPDX-License-Identifier: Apache-2.0
"""A channel names the way for machines that are further back, or says that none is."""

import pytest
from fakes.channel import ARM, Channel
from fakes.repository import PLATFORM

from updaterd.core.stones import MAX_STONES, way
from updaterd.errors import RejectedError


@pytest.fixture
def channel(publisher):
    """acme/stable of a repository that has 1.0.0 (seq 1) there, for one platform."""
    return Channel(publisher)


def stones(channel, name="stable"):
    return [(s.version, s.from_seq_min) for s in channel.pointer(name).stones]


def refused(act, *arguments, **more):
    with pytest.raises(RejectedError) as caught:
        act(*arguments, **more)
    assert caught.value.code == "no_stepping_stone"
    return caught.value


def test_the_newest_release_that_takes_older_machines_is_the_stone(channel):
    channel.push("2.0")
    channel.push("2.1")
    channel.push("3.0", from_seq_min=2)

    assert stones(channel) == [("2.1", 0)]
    assert channel.pointer().releases[0].from_seq_min == 2


def test_stones_lead_over_stones(channel):
    """Each machine of the channel's history has a way."""
    channel.push("2.0")
    channel.push("3.0", from_seq_min=2)
    channel.push("4.0", from_seq_min=3)
    channel.push("5.0")
    channel.push("6.0", from_seq_min=4)

    says = channel.pointer()
    assert stones(channel) == [("5.0", 0)]
    assert all(way(n, 6, 4, says.stones) is not None for n in range(1, 6))
    channel.yank("5.0")
    says = channel.pointer()
    assert stones(channel) == [("4.0", 3), ("3.0", 2), ("2.0", 0)]
    assert all(way(n, 6, 4, says.stones) is not None for n in range(1, 5))


def test_a_channel_without_need_names_none(channel):
    channel.push("2.0")
    channel.push("3.0")
    assert stones(channel) == []
    assert "stones" not in channel.pointer().as_custom()


def test_what_was_there_before_updaterd_gets_a_stone_where_there_is_one(channel):
    """Its age is unknown: it counts as older than every release."""
    channel.push("2.0")
    channel.push("3.0", from_seq_min=1)
    assert stones(channel) == [("2.0", 0)]
    assert [each.version for each in way(0, 3, 1, channel.pointer().stones)] == ["2.0"]


def test_a_release_that_this_channel_never_offered_is_no_stone(channel):
    """It was in beta only; offered here first, it is one."""
    channel.push("2.0", name="beta")
    channel.add("3.0", from_seq_min=2)
    error = refused(channel.put, "3.0")
    assert "machines for linux-x86_64 below seq 2 cannot get to 3.0" in error.cause
    channel.publish("2.0")
    channel.put("3.0")
    assert stones(channel) == [("2.0", 0)]


def test_a_release_that_only_some_got_is_no_stone(channel):
    channel.push("2.0", permille=100)
    channel.add("3.0", from_seq_min=2)
    refused(channel.put, "3.0")


def test_a_withdrawn_stone_is_replaced_and_where_none_is_left_it_is_told(channel):
    """Also in channels that do not offer it any more."""
    channel.push("2.0")
    channel.push("2.1")
    channel.push("3.0", from_seq_min=2)

    (steered,) = channel.yank("2.1")
    assert (stones(channel), steered.notes) == ([("2.0", 0)], ())
    (steered,) = channel.yank("2.0")
    assert stones(channel) == []
    assert "below seq 2 cannot get to 3.0" in steered.notes[0]
    assert channel.says() == [("3.0", 1000, [PLATFORM])]


def test_stones_are_of_each_platform(channel):
    channel.push("2.0", PLATFORM, ARM)
    channel.push("2.1", PLATFORM, without=[ARM])
    channel.push("3.0", PLATFORM, ARM, from_seq_min=2)

    named = {stone.version: stone.platforms for stone in channel.pointer().stones}
    assert named == {"2.1": (PLATFORM,), "2.0": (ARM,)}
    channel.push("4.0", PLATFORM, ARM, from_seq_min=3)
    named = {stone.version: stone.platforms for stone in channel.pointer().stones}
    assert named == {"3.0": (ARM,), "2.1": (PLATFORM,), "2.0": (ARM,)}


def test_a_stone_is_named_for_as_long_as_it_is_needed(channel):
    """Whatever is remembered of what was offered, and in the archive, too."""
    channel.push("2.0")
    for number in range(3, 40):
        channel.push(f"{number}.0", from_seq_min=2)
    assert ("2.0", 0) in stones(channel)
    assert len(stones(channel)) <= MAX_STONES


def test_a_rollout_keeps_the_way(channel):
    channel.push("2.0")
    channel.push("3.0", from_seq_min=2, permille=100)
    channel.rollout(500)
    assert channel.says()[0] == ("3.0", 500, [PLATFORM])
    assert stones(channel) == [("2.0", 0)]
    channel.rollout(1000)
    assert stones(channel) == [("2.0", 0)]
