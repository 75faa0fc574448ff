# SPDX-License-Identifier: Apache-2.0
"""A person widens by chance and by tag, narrows only on purpose, and says why."""

from dataclasses import replace

import pytest
from fakes.channel import ARM, Channel
from fakes.repository import PLATFORM

from updaterd.core.channel import parse_custom
from updaterd.core.decision import Facts
from updaterd.core.json_fields import Fields
from updaterd.core.planner import decide
from updaterd.errors import MalformedError, RejectedError
from updaterd.release.channels import widening, withdrawal

pytestmark = pytest.mark.slow

FACTS = Facts(
    now=1_800_000_000.0,
    machine_id="m",
    updater="0.1.0",
    platform=PLATFORM,
    installed_version="1.0.0",
    installed_seq=1,
)


@pytest.fixture
def channel(publisher):
    return Channel(publisher)


def reach(channel, *values, **more):
    repository, catalog = channel.open()
    steered = widening.reach(catalog, "stable", *values, **more)
    catalog.point(steered.pointer)
    repository.commit()
    return channel.pointer().releases[0].rollout


def refused(code, act, *values, **more):
    with pytest.raises(RejectedError) as caught:
        act(*values, **more)
    assert code == caught.value.code
    return str(caught.value)


def test_tags_come_besides_chance_and_each_stays_when_the_other_is_said(channel):
    channel.push("1.1.0", permille=0, tags=("staff",))
    assert (0, ("staff",)) == (
        channel.pointer().releases[0].rollout.permille,
        channel.pointer().releases[0].rollout.tags,
    )
    assert ("staff",) == reach(channel, 100).tags
    rollout = reach(channel, tags=("berlin", "staff"))
    assert (100, ("berlin", "staff")) == (rollout.permille, rollout.tags)
    assert (
        "1.1.0"
        == decide(channel.pointer(), replace(FACTS, tags=("berlin",))).offer.version
    )


def test_narrowing_is_refused_unless_it_is_meant(channel):
    channel.push("1.1.0", permille=100, tags=("staff",))
    said = refused("narrower", reach, channel, 99)
    assert "from 100 of 1000 machines to 99" in said
    said = refused("narrower", reach, channel, tags=())
    assert "those tagged staff" in said
    assert 99 == reach(channel, 99, force=True).permille
    assert () == reach(channel, 1000, tags=()).tags  # all have it: nobody loses it


def test_a_release_is_withdrawn_in_favour_of_one_that_is_named(channel):
    channel.push("1.1.0")
    channel.push("1.2.0")
    repository, catalog = channel.open()
    withdrawal.yank(catalog, "1.2.0", "1.0.0")
    repository.commit()
    assert channel.says() == [("1.0.0", 1000, [PLATFORM])]


def test_what_is_named_instead_leaves_no_platform_without(channel):
    """1.0.0 is for one platform: the other goes back to what it was offered."""
    channel.push("1.1.0", PLATFORM, ARM)
    channel.push("1.2.0", PLATFORM, ARM)
    repository, catalog = channel.open()
    withdrawal.yank(catalog, "1.2.0", "1.0.0")
    repository.commit()
    assert channel.says() == [("1.1.0", 1000, [ARM]), ("1.0.0", 1000, [PLATFORM])]


def test_nothing_below_the_floor_nor_the_release_itself_comes_instead(channel):
    channel.push("1.1.0")
    channel.push("1.2.0", floor_seq=2)
    for code, instead in (("below_floor", "1.0.0"), ("usage", "1.2.0")):
        refused(code, withdrawal.yank, channel.open()[1], "1.2.0", instead)


def test_machines_say_why_a_channel_is_paused(channel):
    pointer = replace(channel.pointer(), paused=True, reason="payments fail")
    read = parse_custom(
        Fields(pointer.as_custom(), "x"), product="acme", channel="stable"
    )
    assert pointer == read
    assert "paused: payments fail" in decide(read, FACTS).reason


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[31m", "x" * 201, 7])
def test_a_reason_is_one_line_of_text(channel, reason):
    custom = channel.pointer().as_custom() | {"reason": reason}
    with pytest.raises(MalformedError):
        parse_custom(Fields(custom, "x"), product="acme", channel="stable")
