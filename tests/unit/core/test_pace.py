# SPDX-License-Identifier: Apache-2.0
"""A pace is kept whatever a channel says, and whatever a clock says it ends."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core import pace as paces
from updaterd.core.channel import ChannelPointer, Offer, Rollout
from updaterd.core.decision import Act, Block, Current, Facts, Wait
from updaterd.core.fitting import check_manifest
from updaterd.core.json_fields import Fields
from updaterd.core.manifest import Full, Manifest
from updaterd.core.pace import Pace, Step
from updaterd.core.planner import decide, pending_since
from updaterd.core.rollout import cohort, salt_of
from updaterd.errors import MalformedError, TransientError

AT = 1_800_000_000
HOUR, DAY = 3600, 86400
STAGED = Pace(
    published_at=AT, steps=(Step(10, 0), Step(100, 4 * HOUR), Step(1000, DAY))
)
FACTS = Facts(
    now=AT + HOUR,
    machine_id="m",
    updater="0.1.0",
    platform="linux-x86_64",
    installed_version="1.0",
    installed_seq=1,
)


@st.composite
def some_paces(draw):
    shares = draw(st.sets(st.integers(1, 999), max_size=5)) | {1000}
    count = len(shares)
    waits = draw(
        st.sets(st.integers(0, paces.MAX_AFTER_S), min_size=count, max_size=count)
    )
    steps = zip(sorted(shares), sorted(waits), strict=True)
    return Pace(
        published_at=draw(st.integers(1, 2**33)),
        steps=tuple(Step(*step) for step in steps),
        first=tuple(draw(st.sets(st.sampled_from(["staff", "berlin"])))),
    )


def offer(seq, *, pace=None, permille=1000, **more):
    rollout = Rollout(permille=permille, salt=salt_of("acme", f"1.{seq}", seq), **more)
    return Offer(version=f"1.{seq}", seq=seq, rollout=rollout, pace=pace)


def pointer(*offers):
    return ChannelPointer(
        product="acme", channel="stable", paused=False, floor_seq=0, releases=offers
    )


def machine(low, high, seq=5):
    """Return the id of a machine whose cohort for a release is within bounds."""
    ids = (f"machine-{number}" for number in range(100_000))
    salt = salt_of("acme", f"1.{seq}", seq)
    return next(name for name in ids if low <= cohort(salt, name) < high)


EARLY, LATE = machine(0, 10), machine(437, 438)


@given(pace=some_paces())
def test_what_is_signed_is_read(pace):
    member = json.loads(json.dumps(pace.as_member()))
    assert pace == paces.read(Fields(member, "pace"))


@given(pace=some_paces(), number=st.integers(0, 999), late=st.floats(0, 2 * DAY))
def test_with_a_clock_that_is_right_no_machine_comes_before_its_step(
    pace, number, late
):
    """At whatever time it looks, and whenever it saw the release first."""
    wait = paces.after_s(pace, number)
    for seen in (0.0, late / 2, late):
        now = pace.published_at + late
        turn = paces.comes_at(pace, wait, now=now, seen_at=pace.published_at + seen)
        assert turn == pace.published_at + wait
        assert (now >= turn) == (paces.reached(pace, now) > number)


@given(
    pace=some_paces(),
    number=st.integers(0, 999),
    behind=st.floats(1, 2**33),
    waited=st.floats(0, 100 * DAY),
)
def test_a_clock_that_is_behind_waits_as_long_as_others(pace, number, behind, waited):
    """One of 1970 would wait for decades, one that is set later not at all."""
    wait = paces.after_s(pace, number)
    seen = pace.published_at - behind
    turn = paces.comes_at(pace, wait, now=seen + waited, seen_at=seen)
    if seen + waited < pace.published_at:
        assert turn == seen + wait
    else:  # it was set, or went on for so long
        assert turn == pace.published_at + wait


@given(pace=some_paces(), one=st.integers(0, 999), other=st.integers(0, 999))
def test_a_lower_cohort_never_comes_later(pace, one, other):
    low, high = sorted((one, other))
    assert paces.after_s(pace, low) <= paces.after_s(pace, high)
    assert paces.after_s(pace, high, ("staff", "else")) <= paces.after_s(pace, high)
    assert paces.after_s(pace, high) <= paces.MAX_AFTER_S


@pytest.mark.parametrize(
    "forged",
    [{"first": ["\x1b[2J"]}, {"first": ["a b"]}, {"published_at": 2**52}],
)
def test_a_pace_that_would_write_the_screen_of_who_signs_it_is_refused(forged):
    """The file of a release comes from its builder to who has the key."""
    item = {"published_at": 1, "steps": [[1000, 1]], "first": ["staff"]}
    assert paces.read(Fields(item, "pace")).first == ("staff",)
    with pytest.raises(MalformedError):
        paces.read(Fields(item | forged, "pace"))


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [[10, 0], [100, 60]],
        [[10, 60], [1000, 60]],
        [[100, 0], [10, 60], [1000, 61]],
        [[0, 0], [1000, 60]],
        [[1001, 0]],
        [[1000, paces.MAX_AFTER_S + 1]],
        [[1000]],
        [[1000, "0"]],
        [["1000", 0]],
        [[1000, True]],
        {"1000": 0},
        [[number, number] for number in range(1, 18)],
    ],
)
def test_steps_that_leave_machines_out_or_make_no_sense_are_refused(steps):
    with pytest.raises(MalformedError):
        paces.read(Fields({"published_at": AT, "steps": steps}, "pace"))


# -- the decision


@given(
    permille=st.integers(0, 1000),
    salt=st.text(max_size=4),
    window_s=st.integers(0, 30 * DAY),
    urgency=st.sampled_from(["normal", "critical"]),
    tags=st.sets(st.sampled_from(["staff", "berlin"])),
    claimed=st.none() | some_paces(),
    late=st.integers(0, DAY - 1),
)
def test_nothing_that_a_channel_says_brings_a_turn_forward(
    permille, salt, window_s, urgency, tags, claimed, late
):
    """The online key signs all of this; the manifest was read, and says a pace."""
    blast = Offer(
        version="1.5",
        seq=5,
        urgency=urgency,
        pace=claimed,
        rollout=Rollout(
            permille=permille, salt=salt, window_s=window_s, tags=tuple(tags)
        ),
    )
    facts = replace(
        FACTS,
        machine_id=LATE,
        tags=("staff",),
        now=AT + late,
        first_seen_at=AT,
        pending_since=AT - 40 * DAY,
        max_deferral_s=DAY,
        paces={"1.5": STAGED},
    )
    assert not isinstance(decide(pointer(blast), facts), Act)


def test_each_machine_has_its_turn_and_is_told_when():
    wanted = pointer(offer(5, pace=STAGED))
    early = decide(wanted, replace(FACTS, machine_id=EARLY))
    late = decide(wanted, replace(FACTS, machine_id=LATE))
    assert isinstance(early, Act)
    assert isinstance(late, Wait)
    assert ("paced", AT + DAY) == (late.code, late.until)
    assert "2027-01-16 08:00 UTC" in late.reason
    assert "cohort is 437" in late.reason
    assert isinstance(
        decide(wanted, replace(FACTS, machine_id=LATE, now=AT + DAY)), Act
    )


def test_a_machine_that_waits_gets_what_is_below_meanwhile():
    """Whoever is late in each draw of a daily release would never get any."""
    wanted = pointer(offer(5, pace=STAGED), offer(4, pace=STAGED), offer(3))
    facts = replace(FACTS, machine_id=LATE)
    late_for_both = cohort(salt_of("acme", "1.4", 4), LATE) >= 100
    assert late_for_both
    assert "1.3" == decide(wanted, facts).offer.version
    there = replace(facts, installed_version="1.3", installed_seq=3)
    assert ("paced", "1.5") == (
        decide(wanted, there).code,
        decide(wanted, there).offer.version,
    )
    blocked = replace(facts, blocked={"1.3": Block(seq=3, reason="it failed")})
    assert "paced" == decide(wanted, blocked).code


def test_waiting_for_a_pace_never_leads_back():
    wanted = pointer(offer(5, pace=STAGED), offer(3))
    facts = replace(FACTS, machine_id=LATE, installed_version="1.4", installed_seq=4)
    assert "paced" == decide(wanted, facts).code


def test_going_back_keeps_to_the_pace():
    """Else withdrawing what is newest would send a release to everyone at once."""
    facts = replace(FACTS, machine_id=LATE, installed_version="1.6", installed_seq=6)
    back = decide(pointer(offer(5, pace=STAGED), offer(3)), facts)
    assert ("step_back", "1.3") == (back.code, back.offer.version)
    assert "paced" == decide(pointer(offer(5, pace=STAGED)), facts).code


def test_what_is_on_disk_has_had_its_turn():
    facts = replace(
        FACTS,
        machine_id=LATE,
        installed_version="1.6",
        installed_seq=6,
        on_disk=frozenset({"1.5", "1.6"}),
    )
    assert "1.5" == decide(pointer(offer(5, pace=STAGED)), facts).offer.version


def test_a_first_install_takes_what_is_open_else_what_there_is():
    nothing = replace(
        FACTS, machine_id=LATE, installed_version=None, installed_seq=None
    )
    wanted = pointer(offer(5, pace=STAGED), offer(3))
    assert "1.3" == decide(wanted, nothing).offer.version
    assert "1.5" == decide(pointer(offer(5, pace=STAGED)), nothing).offer.version


def test_a_person_at_the_machine_need_not_wait():
    facts = replace(FACTS, machine_id=LATE, forced=True)
    assert isinstance(decide(pointer(offer(5, pace=STAGED)), facts), Act)


def test_a_hold_is_told_before_a_pace():
    """A turn that comes while updates are on hold brings nothing."""
    facts = replace(FACTS, machine_id=LATE, hold_until=float("inf"))
    assert "held" == decide(pointer(offer(5, pace=STAGED), offer(3)), facts).code


def test_a_pace_does_not_count_as_waiting_for_a_window():
    """Else a long pace would end beyond the longest wait, at any time of the day."""
    window = (AT + 10 * DAY, AT + 10 * DAY + HOUR)
    facts = replace(
        FACTS,
        machine_id=LATE,
        first_seen_at=AT,
        pending_since=AT,
        window=window,
        max_deferral_s=HOUR,
    )
    wanted = pointer(offer(5, pace=STAGED))
    assert pending_since(decide(wanted, facts), facts) is None
    turn = replace(facts, now=AT + DAY, pending_since=None)
    turn = replace(turn, pending_since=pending_since(decide(wanted, turn), turn))
    assert "outside_window" == decide(wanted, turn).code


def test_a_spread_counts_from_the_step_on():
    """All machines of a step would have started in the second that it came."""
    wanted = pointer(offer(5, pace=STAGED, window_s=HOUR))
    facts = replace(FACTS, machine_id=LATE, now=AT + DAY, first_seen_at=AT)
    spread = decide(wanted, facts)
    assert "splay" == spread.code
    assert AT + DAY < spread.until < AT + DAY + HOUR


def test_tagged_machines_are_reached_and_may_go_first():
    some = pointer(offer(5, permille=0, tags=("staff",)))
    staff = replace(FACTS, machine_id=LATE, tags=("berlin", "staff"))
    assert isinstance(decide(some, FACTS), Current)
    assert isinstance(decide(some, staff), Act)
    first = pointer(offer(5, pace=replace(STAGED, first=("staff",))))
    assert isinstance(decide(first, staff), Act)
    assert "paced" == decide(first, replace(staff, tags=("berlin",))).code


def test_a_manifest_whose_turn_has_not_come_is_not_installed():
    """Whatever was decided before it was read."""
    manifest = Manifest(
        product="acme",
        version="1.5",
        seq=5,
        platform="linux-x86_64",
        min_updater="0.1.0",
        floor_seq=0,
        files=(),
        full=Full(sha256="ab" * 32, length=7, unpacked=0, codec="full-1"),
        pace=STAGED,
    )
    facts = replace(FACTS, machine_id=LATE)
    with pytest.raises(TransientError) as caught:
        check_manifest(manifest, product="acme", target=offer(5), facts=facts)
    assert "paced" == caught.value.code
    ready = replace(facts, now=AT + DAY)
    check_manifest(manifest, product="acme", target=offer(5), facts=ready)
