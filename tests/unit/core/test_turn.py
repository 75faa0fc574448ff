# SPDX-License-Identifier: Apache-2.0
"""A turn is spread after whatever kept the fleet, and never put off for ever."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.channel import ChannelPointer, Offer, Rollout
from updaterd.core.decision import Act, Block, Facts, Wait
from updaterd.core.planner import decide, pending_since
from updaterd.core.turn import Waiting, turn_at

NOON = 1_800_000_000.0 // 86400 * 86400 + 43200
HOUR, DAY = 3600.0, 86400.0
FACTS = Facts(
    now=NOON,
    machine_id="m",
    updater="0.1.0",
    platform="linux-x86_64",
    installed_version="1.0.0",
    installed_seq=1,
)
FLEET = [f"machine-{number}" for number in range(500)]


def pointer(*seqs, window_s=0, paused=False):
    return ChannelPointer(
        product="acme",
        channel="stable",
        paused=paused,
        floor_seq=0,
        releases=tuple(
            Offer(
                version=f"1.{seq}",
                seq=seq,
                rollout=Rollout(salt=str(seq), window_s=window_s),
            )
            for seq in seqs
        ),
    )


def starts(wanted, facts):
    """Return when each machine of a fleet in this state would start."""
    found = []
    for machine in FLEET:
        decision = decide(wanted, replace(facts, machine_id=machine))
        found.append(decision.until if isinstance(decision, Wait) else facts.now)
    return found


WAITED = {
    "a window that opens": replace(FACTS, window=(NOON + HOUR, NOON + 5 * HOUR)),
    "a window that is open": replace(
        FACTS, window=(NOON, NOON + 4 * HOUR), first_seen_at=NOON - DAY
    ),
    "the end of a hold": replace(
        FACTS, hold_until=NOON, first_seen_at=NOON - 3 * DAY, pending_since=NOON - DAY
    ),
    "the longest wait": replace(
        FACTS,
        window=(NOON + 15 * DAY, NOON + 16 * DAY),
        first_seen_at=NOON - 7 * DAY,
        pending_since=NOON - 7 * DAY,
        max_deferral_s=7 * DAY,
    ),
}


@pytest.mark.parametrize("facts", WAITED.values(), ids=WAITED.keys())
def test_who_waited_for_the_same_thing_does_not_start_at_its_first_second(facts):
    """10,000 of 10,000 did, although the publisher had signed an hour."""
    found = starts(pointer(2, window_s=3600), facts)
    minutes = Counter(int((moment - min(found)) // 60) for moment in found)

    assert max(minutes) >= 58
    assert max(minutes.values()) < len(FLEET) / 20
    assert max(found) - min(found) <= HOUR


def test_a_window_that_is_shorter_than_the_spread_takes_every_machine():
    short = replace(FACTS, window=(NOON + HOUR, NOON + 1.5 * HOUR))
    found = starts(pointer(2, window_s=86400), short)
    # who saw it yesterday has had its place in the day
    seen = starts(pointer(2, window_s=86400), replace(short, first_seen_at=NOON - DAY))

    assert min(found) >= NOON + HOUR
    assert all(NOON + HOUR <= moment < NOON + 1.5 * HOUR for moment in seen)


@given(
    seen=st.floats(0, 40 * DAY),
    held=st.floats(0, 40 * DAY),
    pending=st.floats(0, 40 * DAY),
    deferral=st.floats(0, 40 * DAY),
    opens=st.floats(0, 40 * DAY),
    lasts=st.floats(60, DAY),
    window_s=st.integers(0, 86400),
)
def test_no_turn_is_later_than_the_longest_wait_and_its_spread(
    seen, held, pending, deferral, opens, lasts, window_s
):
    rollout = Rollout(salt="s", window_s=window_s)
    turn = turn_at(
        rollout,
        "m",
        Waiting(
            seen_at=seen,
            pending_since=pending,
            hold_ended_at=held,
            max_deferral_s=deferral,
            window=(opens, opens + lasts),
        ),
    )

    assert turn <= max(pending + deferral, held) + window_s


def simulated(days, *, every_d, resumed_at_h=0, window_s=0):
    """Return when a machine updated that is off each night, when its window is."""
    facts = replace(FACTS, max_deferral_s=7 * DAY)
    target, updates = None, []
    for hour in range(24 * days):
        now = NOON - 12 * HOUR + hour * HOUR
        if not 8 <= hour % 24 < 18:
            continue
        seq = 2 + int(hour // (24 * every_d))
        opens = now // DAY * DAY + DAY + 2 * HOUR
        wanted = pointer(seq, window_s=window_s, paused=hour % 24 < resumed_at_h)
        known = replace(facts, now=now, window=(opens, opens + 3 * HOUR))
        seen = None
        decision = decide(wanted, known)
        if decision.offer is not None:
            kept = facts.first_seen_at if target == decision.offer.seq else None
            seen = now if kept is None else kept
        since = pending_since(decision, known)
        known = replace(known, first_seen_at=seen, pending_since=since)
        decision = decide(wanted, known)
        target = decision.offer.seq if decision.offer else None
        facts = replace(facts, first_seen_at=seen, pending_since=since)
        if isinstance(decision, Act):
            updates.append(hour)
            facts = replace(
                facts,
                installed_version=decision.target.version,
                installed_seq=decision.target.seq,
                pending_since=None,
            )
    return updates


@pytest.mark.parametrize(
    "more",
    [
        {"every_d": 7},
        {"every_d": 1},
        {"every_d": 1, "window_s": 2 * 86400},
        {"every_d": 30, "resumed_at_h": 10},
    ],
    ids=["weekly", "daily", "daily, spread over two days", "paused each morning"],
)
def test_a_machine_that_is_off_in_its_window_updates_all_the_same(more):
    """0 updates in 180 days: each release, and each pause, started the wait anew."""
    updates = simulated(180, **more)
    pauses = [later - earlier for earlier, later in pairwise([0, *updates, 180 * 24])]

    assert max(pauses) / 24 <= more["every_d"] + 7 + 3


def test_the_wait_is_not_over_at_once_when_a_channel_is_resumed():
    """What was paused for months comes back spread, not to all machines at once."""
    facts = replace(FACTS, pending_since=NOON - 90 * DAY, max_deferral_s=7 * DAY)
    assert pending_since(decide(pointer(2, paused=True), facts), facts) == (
        NOON - 90 * DAY
    )

    resumed = pending_since(decide(pointer(3), facts), facts)

    assert resumed == NOON - 7 * DAY


def test_a_wait_ends_where_the_channel_wants_the_machine_or_with_the_attempt():
    """A release that failed here is no reason for the next one to skip its window."""
    facts = replace(FACTS, pending_since=NOON - DAY, installed_version="1.1")
    failed = replace(facts, blocked={"1.2": Block(seq=2, reason="unhealthy")})

    assert pending_since(decide(pointer(1), facts), facts) is None
    assert pending_since(decide(pointer(2), failed), failed) is None


def test_a_clock_that_was_set_back_defers_nothing_for_longer():
    facts = replace(FACTS, pending_since=NOON + DAY, first_seen_at=NOON + DAY)

    assert NOON == pending_since(decide(pointer(2), facts), facts)
