# SPDX-License-Identifier: Apache-2.0
"""Every decision about a product, each as one property."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.channel import ChannelPointer, Offer, Rollout
from updaterd.core.decision import Act, Block, Current, Facts, Refuse, Wait
from updaterd.core.fitting import check_manifest
from updaterd.core.manifest import Full, Manifest
from updaterd.core.names import version_key
from updaterd.core.planner import decide
from updaterd.errors import RejectedError

NOW = 1_800_000_000.0


def offer(version, seq, *, permille=1000, window_s=0, urgency="normal", on=None):
    return Offer(
        platforms=on,
        version=version,
        seq=seq,
        rollout=Rollout(permille=permille, salt=version, window_s=window_s),
        urgency=urgency,
    )


def pointer(*releases, paused=False, floor_seq=0):
    return ChannelPointer(
        product="acme",
        channel="stable",
        paused=paused,
        floor_seq=floor_seq,
        releases=releases,
    )


FACTS = Facts(
    now=NOW,
    machine_id="m",
    updater="0.1.0",
    platform="linux-x86_64",
    installed_version="1.1.0",
    installed_seq=11,
)
FRESH = replace(FACTS, installed_version=None, installed_seq=None)


def test_newer_release_is_an_upgrade():
    decision = decide(pointer(offer("1.2.0", 12)), FACTS)

    assert isinstance(decision, Act)
    assert ("upgrade", "1.2.0") == (decision.code, decision.target.version)


def test_first_install_waits_for_neither_window_nor_splay():
    facts = replace(FRESH, window=(NOW + 60, NOW + 120))

    decision = decide(pointer(offer("1.2.0", 12, window_s=3600)), facts)

    assert isinstance(decision, Act)
    assert "install" == decision.code


ARM, X86 = ("linux-aarch64",), ("linux-x86_64",)


def test_a_release_for_other_platforms_leaves_what_is_installed():
    """Neither an error nor a step: as if the newer one were not there."""
    decision = decide(pointer(offer("1.2.0", 12, on=ARM), offer("1.1.0", 11)), FACTS)

    assert isinstance(decision, Current)
    assert "current" == decision.code


def test_a_release_for_other_platforms_alone_is_no_error():
    decision = decide(pointer(offer("1.2.0", 12, on=ARM)), FACTS)
    first = decide(pointer(offer("1.2.0", 12, on=ARM)), FRESH)

    assert isinstance(decision, Current)
    assert isinstance(first, Wait)
    assert ["not_for_platform"] * 2 == [decision.code, first.code]


def test_a_release_that_is_for_others_now_is_gone_back_from():
    """1.1.0 is still offered, and to others only: that is a signed step back."""
    said = pointer(offer("1.1.0", 11, on=ARM), offer("1.0.0", 10, on=X86))

    decision = decide(said, FACTS)

    assert isinstance(decision, Act)
    assert ("step_back", "1.0.0") == (decision.code, decision.target.version)


def test_label_is_never_compared():
    """1.10.0 with a lower seq than the installed 1.9.0 is a step back, signed."""
    facts = replace(FACTS, installed_version="1.9.0", installed_seq=90)

    decision = decide(pointer(offer("1.10.0", 12)), facts)

    assert "step_back" == decision.code


def test_replayed_pointer_is_refused_even_with_the_cache_lost():
    facts = replace(FACTS, authority=(1, 4), seen_authority=(1, 5))

    assert "metadata_rollback" == decide(pointer(offer("1.0.0", 10)), facts).code


def test_rotated_root_may_restart_the_channel_roles_versions():
    facts = replace(FACTS, authority=(2, 1), seen_authority=(1, 2**31))

    assert isinstance(decide(pointer(offer("1.2.0", 12)), facts), Act)


@given(st.integers(0, 20), st.integers(0, 20))
def test_nothing_below_the_floor_is_ever_installed(journal_floor, signed_floor):
    facts = replace(FACTS, seq_floor=journal_floor)

    decision = decide(pointer(offer("1.0.0", 10), floor_seq=signed_floor), facts)

    below = max(journal_floor, signed_floor) > 10
    assert below == isinstance(decision, Refuse)


def test_rollout_that_misses_this_machine_changes_nothing():
    decision = decide(pointer(offer("1.2.0", 12, permille=0)), FACTS)

    assert isinstance(decision, Current)
    assert "not_in_rollout" == decision.code


def test_machine_ahead_of_a_shrunken_rollout_stays_where_it_is():
    ahead = pointer(offer("1.1.0", 11, permille=0), offer("1.0.0", 10))

    assert "ahead_of_rollout" == decide(ahead, FACTS).code


def test_machine_outside_the_rollout_gets_the_release_before():
    both = pointer(offer("1.3.0", 13, permille=0), offer("1.2.0", 12))

    assert "1.2.0" == decide(both, FACTS).target.version


@given(st.integers(0, 1000), st.integers(0, 1000), st.text(max_size=8))
def test_rollout_only_grows(one, other, machine_id):
    """A machine reached at some permille is reached at every higher one."""
    low, high = sorted((one, other))
    facts = replace(FACTS, machine_id=machine_id)

    if isinstance(decide(pointer(offer("2", 20, permille=low)), facts), Act):
        assert isinstance(decide(pointer(offer("2", 20, permille=high)), facts), Act)


BLOCKED = replace(FACTS, blocked={"1.2.0": Block(seq=12, reason="health check")})


def test_blocked_release_is_not_retried_and_says_why():
    decision = decide(pointer(offer("1.2.0", 12)), BLOCKED)

    assert isinstance(decision, Wait)
    assert "blocked" == decision.code
    assert "health check" in decision.reason


def test_block_ends_with_a_newer_release():
    assert isinstance(decide(pointer(offer("1.3.0", 13)), BLOCKED), Act)


def test_block_ends_when_the_version_is_released_anew_under_a_new_seq():
    assert isinstance(decide(pointer(offer("1.2.0", 13)), BLOCKED), Act)


def test_block_ends_in_time_and_on_request():
    until = replace(FACTS, blocked={"1.2.0": Block(seq=12, reason="", until=NOW)})

    assert isinstance(decide(pointer(offer("1.2.0", 12)), until), Act)
    retry = replace(BLOCKED, retry_blocked=True)
    assert isinstance(decide(pointer(offer("1.2.0", 12)), retry), Act)


def test_block_never_leads_below_what_is_installed():
    older = pointer(offer("1.2.0", 12), offer("1.0.0", 10))

    assert "blocked" == decide(older, BLOCKED).code


def test_blocked_newest_is_still_told_when_the_one_before_is_installed():
    assert (
        "blocked"
        == decide(pointer(offer("1.2.0", 12), offer("1.1.0", 11)), BLOCKED).code
    )


def test_hold_is_not_overridden_by_now():
    held = replace(FACTS, hold_until=math.inf, hold_reason="fair week", forced=True)

    decision = decide(pointer(offer("1.2.0", 12)), held)

    assert "held" == decision.code
    assert "fair week" in decision.reason


def test_hold_ends_on_its_date():
    assert isinstance(
        decide(pointer(offer("1.2.0", 12)), replace(FACTS, hold_until=NOW)), Act
    )


CLOSED = replace(FACTS, window=(NOW + 3600, NOW + 7200), max_deferral_s=86400)


def test_outside_the_window_it_waits_until_the_window_opens():
    decision = decide(pointer(offer("1.2.0", 12)), CLOSED)

    assert ("outside_window", NOW + 3600) == (decision.code, decision.until)


@pytest.mark.parametrize(
    "facts",
    [
        replace(CLOSED, forced=True),
        replace(CLOSED, pending_since=NOW - 86400),
    ],
    ids=["now", "deferred long enough"],
)
def test_window_gives_way(facts):
    assert isinstance(decide(pointer(offer("1.2.0", 12)), facts), Act)


def test_critical_release_ignores_the_window():
    critical = pointer(offer("1.2.0", 12, urgency="critical"))

    assert isinstance(decide(critical, CLOSED), Act)


@given(st.text(max_size=8), st.integers(1, 86400))
def test_splay_ends_within_the_signed_window(machine_id, window_s):
    facts = replace(FACTS, machine_id=machine_id, first_seen_at=NOW - window_s)

    decision = decide(pointer(offer("1.2.0", 12, window_s=window_s)), facts)

    assert isinstance(decision, Act)


def test_paused_channel_and_empty_channel_change_nothing():
    assert "paused" == decide(pointer(offer("1.2.0", 12), paused=True), FACTS).code
    assert "nothing_offered" == decide(pointer(), FACTS).code


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (pointer(offer("1.2.0", 12), paused=True), "paused"),
        (pointer(), "nothing_offered"),
        (pointer(offer("1.2.0", 12, permille=0)), "not_in_rollout"),
    ],
    ids=["paused", "empty", "rollout"],
)
def test_a_machine_without_a_release_is_not_called_current(said, code):
    """It waits for its first one, and says why."""
    decision = decide(said, FRESH)

    assert isinstance(decision, Wait)
    assert (code, True) == (decision.code, "nothing is installed" in decision.reason)


def test_yanked_release_stays_while_its_successor_is_blocked_here():
    """Neither on to what failed, nor back below by a block alone."""
    after_the_yank = pointer(offer("1.2.0", 12))  # 1.1.0 is installed, and yanked

    decision = decide(after_the_yank, BLOCKED)

    assert isinstance(decision, Wait)
    assert "blocked" == decision.code


def test_yanked_release_steps_back_when_the_channel_offers_what_was_before():
    decision = decide(pointer(offer("1.0.0", 10)), BLOCKED)

    assert ("step_back", "1.0.0") == (decision.code, decision.target.version)


def test_release_on_disk_is_only_switched_to():
    facts = replace(FACTS, on_disk=frozenset({"1.0.0"}))

    decision = decide(pointer(offer("1.0.0", 10)), facts)

    assert ("step_back", True) == (decision.code, decision.on_disk)


MANIFEST = Manifest(
    product="acme",
    version="1.2.0",
    seq=12,
    platform="linux-x86_64",
    min_updater="0.1.0",
    floor_seq=0,
    files=(),
    full=Full(sha256="0" * 64, length=1, unpacked=0, codec="zstd"),
)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"product": "other"}, "wrong_target"),
        ({"version": "1.2.1"}, "wrong_target"),
        ({"seq": 13}, "wrong_target"),
        ({"platform": "linux-aarch64"}, "wrong_target"),
        ({"min_updater": "0.1.1"}, "min_updater"),
        ({"floor_seq": 13}, "below_floor"),
    ],
)
def test_signed_manifest_in_the_wrong_place_is_refused(change, code):
    check_manifest(MANIFEST, product="acme", target=offer("1.2.0", 12), facts=FACTS)

    with pytest.raises(RejectedError) as caught:
        check_manifest(
            replace(MANIFEST, **change),
            product="acme",
            target=offer("1.2.0", 12),
            facts=FACTS,
        )
    assert code == caught.value.code


def test_updaters_own_versions_are_ordered_as_numbers():
    assert version_key("0.10.0") > version_key("0.9.9")
    assert version_key("1.0") == version_key("1.0.0") == version_key("1.0.0rc1")
