# SPDX-License-Identifier: Apache-2.0
"""Stepping stones: no machine is led past one, none goes round in a circle."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.channel import ChannelPointer, Offer, Rollout, parse_custom
from updaterd.core.decision import Act, Block, Current, Facts, Wait
from updaterd.core.fitting import is_too_old, limited
from updaterd.core.json_fields import Fields
from updaterd.core.planner import decide, pending_since
from updaterd.core.stones import MAX_STONES, Stone, way
from updaterd.errors import MalformedError

HERE = "linux-x86_64"
FACTS = Facts(now=1e9, machine_id="m", updater="0.3.0", platform=HERE)


def stone(seq, least=0, platforms=(HERE,)):
    return Stone(f"{seq}.0", seq, least, platforms)


def pointer(*releases, stones=(), floor_seq=0):
    """Return what offers releases of (seq, from_seq_min, permille)."""
    return ChannelPointer(
        product="acme",
        channel="stable",
        paused=False,
        floor_seq=floor_seq,
        stones=tuple(stones),
        releases=tuple(
            Offer(
                version=f"{seq}.0",
                seq=seq,
                rollout=Rollout(permille=permille, salt="s", window_s=0),
                from_seq_min=least,
            )
            for seq, least, permille in releases
        ),
    )


def on(seq, **more):
    return replace(FACTS, installed_version=f"{seq}.0", installed_seq=seq, **more)


seqs = st.integers(1, 30)
releases = st.lists(
    st.tuples(seqs, st.integers(0, 29)).map(lambda pair: stone(*pair)),
    max_size=12,
    unique_by=lambda each: each.seq,
)


def reachable(start, target, stones):
    """Tell, by trying everything, whether a machine can get from a seq to a release."""
    seen, now = set(), {start}
    while now:
        seen |= now
        now = {
            other.seq
            for have in now
            for other in (*stones, target)
            if other.from_seq_min <= have < other.seq <= target.seq
        } - seen
    return target.seq in seen


@given(seqs, releases, seqs, st.integers(0, 29))
def test_the_way_visits_only_what_can_be_installed_and_is_found_if_there_is_one(
    start, stones, seq, least
):
    target = stone(seq, least)
    stones = [each for each in stones if each.seq != seq]
    if start >= seq:
        return

    found = way(start, seq, least, stones)

    assert (found is not None) == reachable(start, target, stones)
    have = start
    for step in (*found, target) if found is not None else ():
        assert step.from_seq_min <= have < step.seq
        have = step.seq


@given(
    st.none() | st.integers(0, 30),
    releases,
    st.lists(st.tuples(seqs, st.integers(0, 29), st.sampled_from([0, 500, 1000]))),
    st.integers(0, 20),
    st.sets(seqs),
)
def test_no_machine_is_ever_led_past_a_stone_and_each_walk_ends(
    start, stones, offers, floor, failed
):
    """Whatever is offered, named, blocked or below the floor, and where it begins."""
    unique = {seq: (seq, least, permille) for seq, least, permille in offers}
    offered = [unique[seq] for seq in sorted(unique, reverse=True)]
    says = pointer(*offered, stones=stones, floor_seq=floor)
    lowest = {each.seq: each.from_seq_min for each in stones}
    blocked = {f"{seq}.0": Block(seq=seq, reason="it failed") for seq in failed}
    facts = replace(
        FACTS,
        installed_seq=start,
        installed_version=None if start is None else f"{start}.0",
        blocked=blocked,
    )
    ups = 0
    while isinstance(decision := decide(says, facts), Act):
        target = decision.target
        assert not is_too_old(facts, target.from_seq_min)
        assert target.seq >= floor
        if decision.code == "stepping_stone":
            assert target.seq > facts.installed_seq
            assert target.seq not in failed
            if target.seq not in unique:
                assert target.from_seq_min == lowest[target.seq]
        elif facts.installed_seq is not None and target.seq < facts.installed_seq:
            assert decision.code == "step_back"
        ups += 1
        assert ups <= len(stones) + len(offered) + 1
        facts = replace(
            facts, installed_seq=target.seq, installed_version=target.version
        )


def test_an_old_machine_goes_by_the_newest_stone_and_then_on():
    says = pointer((9, 5, 1000), stones=[stone(7, 2), stone(6, 2), stone(3)])

    first = decide(says, on(1))
    second = decide(says, on(3))
    third = decide(says, on(7))

    assert ("stepping_stone", "3.0") == (first.code, first.target.version)
    assert ("stepping_stone", "7.0") == (second.code, second.target.version)
    assert ("upgrade", "9.0") == (third.code, third.target.version)
    assert "1.0 -> 3.0, on the way to 9.0" in first.reason


def test_a_first_install_needs_no_stone():
    assert "install" == decide(pointer((9, 5, 1000)), FACTS).code


def test_what_was_there_before_updaterd_is_as_old_as_can_be():
    """Nobody knows which release an adopted application is."""
    adopted = replace(FACTS, installed_version="unmanaged", installed_seq=0)
    says = pointer((9, 5, 1000), stones=[stone(6)])
    assert "6.0" == decide(says, adopted).target.version


def test_a_machine_without_a_way_stays_and_says_so():
    decision = decide(pointer((9, 5, 1000), stones=[stone(6, 4)]), on(3))
    assert isinstance(decision, Wait)
    assert "no_way" == decision.code
    assert "9.0 is installed over seq 5 or later" in decision.reason
    assert pending_since(decision, on(3, pending_since=1.0)) is None


def test_without_a_way_to_the_newest_what_is_below_it_counts():
    says = pointer((9, 8, 1000), (4, 0, 1000))
    assert "4.0" == decide(says, on(3)).target.version
    assert "no_way" == decide(says, on(4)).code


@pytest.mark.parametrize(
    "stones", [[stone(6, 0, ("linux-aarch64",))], []], ids=["other platform", "none"]
)
def test_a_stone_of_another_platform_is_none(stones):
    assert "no_way" == decide(pointer((9, 5, 1000), stones=stones), on(3)).code


def test_a_stone_below_the_floor_is_none():
    says = pointer((9, 5, 1000), stones=[stone(6)], floor_seq=7)
    assert "no_way" == decide(says, on(3)).code
    assert "no_way" == decide(replace(says, floor_seq=0), on(3, seq_floor=7)).code


def test_a_stone_that_failed_here_is_passed_by_another_one():
    failed = {"7.0": Block(seq=7, reason="unhealthy")}
    says = pointer((9, 5, 1000), stones=[stone(7), stone(6)])
    assert "6.0" == decide(says, on(3, blocked=failed)).target.version


def test_a_stone_waits_as_what_it_leads_to():
    """It is part of that rollout: same window, same splay, same urgency."""
    says = pointer((9, 5, 1000), stones=[stone(6)])
    window = (2e9, 3e9)
    assert "outside_window" == decide(says, on(3, window=window)).code
    assert "held" == decide(says, on(3, hold_until=2e9)).code


def test_the_word_of_a_manifest_counts_where_a_pointer_says_less():
    """A thief of the online key cannot lead machines past a stone."""
    says = pointer((9, 0, 1000), stones=[stone(6)])
    assert "9.0" == decide(says, on(3)).target.version
    assert "6.0" == decide(limited(says, "9.0", 5), on(3)).target.version
    assert "no_way" == decide(limited(limited(says, "9.0", 5), "6.0", 4), on(3)).code


def test_what_is_installed_stays_current():
    assert isinstance(decide(pointer((9, 5, 1000), stones=[stone(6)]), on(9)), Current)


def test_a_pointer_with_stones_is_read_as_it_was_signed():
    says = pointer((9, 5, 1000), stones=[stone(6, 2), stone(1)])
    again = parse_custom(
        Fields(says.as_custom(), "it"), product="acme", channel="stable"
    )
    assert again == says


def test_a_pointer_cannot_name_stones_without_end():
    says = pointer((99, 5, 1000), stones=[stone(n) for n in range(1, MAX_STONES + 2)])
    with pytest.raises(MalformedError, match="stones"):
        parse_custom(Fields(says.as_custom(), "it"), product="acme", channel="stable")
