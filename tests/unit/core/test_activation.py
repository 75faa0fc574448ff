# SPDX-License-Identifier: Apache-2.0
"""A release that is ready waits for what asks it to, and never beyond its deadline."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core import deferral
from updaterd.core.activation import Moment, wait
from updaterd.core.channel import Offer, Rollout
from updaterd.core.deferral import MODES, WAITS

NOW = 1_000_000.0
DAY = 86400.0
OFFER = Offer(version="1.1.0", seq=2, rollout=Rollout())
OPEN = Moment(now=NOW, staged_at=NOW, deadline=NOW + 7 * DAY)

moments = st.builds(
    Moment,
    now=st.just(NOW),
    mode=st.sampled_from(MODES),
    is_first=st.booleans(),
    forced=st.booleans(),
    requested=st.booleans(),
    urgent=st.booleans(),
    staged_at=st.floats(NOW - 30 * DAY, NOW + DAY),
    deadline=st.floats(NOW - 30 * DAY, NOW + 30 * DAY) | st.just(float("inf")),
    postponed_until=st.none() | st.floats(NOW - DAY, NOW + 30 * DAY),
    inhibited=st.sampled_from(["", "a call is on"]),
    in_use=st.booleans(),
    window=st.none() | st.just((NOW - 1, NOW + 1)) | st.just((NOW + 60, NOW + 120)),
)


@given(moments)
def test_nothing_waits_beyond_the_deadline_and_every_wait_has_a_next_look(moment):
    waiting = wait(OFFER, moment)

    if waiting is None:
        return
    assert moment.now < moment.deadline
    assert waiting.code in WAITS
    assert waiting.until is None or moment.now < waiting.until <= moment.deadline
    if waiting.until is None:  # only a request ends it, and nobody set an end
        assert waiting.code == "waits_for_request"
    assert waiting.offer == OFFER


@given(moments)
def test_a_first_installation_and_an_order_wait_for_nothing(moment):
    assert wait(OFFER, replace(moment, is_first=True)) is None
    assert wait(OFFER, replace(moment, forced=True)) is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"mode": "on-request"}, "waits_for_request"),
        ({"mode": "on-request", "requested": True}, None),
        ({"mode": "on-request", "urgent": True}, None),
        ({"mode": "at-exit"}, None),
        ({"mode": "at-exit", "in_use": True}, "waits_for_exit"),
        ({"mode": "at-exit", "in_use": True, "requested": True}, None),
        ({"mode": "window", "window": (NOW + 9, NOW + 99)}, "waits_for_window"),
        ({"mode": "window", "window": (NOW - 9, NOW + 99)}, None),
        ({"postponed_until": NOW + 9}, "postponed"),
        ({"postponed_until": NOW + 9, "urgent": True}, None),
        ({"postponed_until": NOW - 9}, None),
        ({"postponed_until": NOW - 9, "mode": "on-request"}, None),
        ({"postponed_until": NOW - 9, "inhibited": "a call is on"}, "inhibited"),
        ({"inhibited": "a call is on"}, "inhibited"),
        ({"inhibited": "a call is on", "requested": True, "urgent": True}, "inhibited"),
        ({"inhibited": "a call is on", "deadline": NOW}, None),
    ],
)
def test_who_goes_before_whom(changes, code):
    waiting = wait(OFFER, replace(OPEN, **changes))
    assert (waiting and waiting.code) == code


def test_an_application_that_runs_for_days_is_looked_at_more_seldom():
    running = replace(OPEN, mode="at-exit", in_use=True)
    soon = wait(OFFER, running).until - NOW
    late = wait(OFFER, replace(running, staged_at=NOW - 5 * DAY)).until - NOW
    assert (soon, late) == (30.0, 300.0)


def test_without_a_pending_update_there_is_no_deadline():
    assert deferral.deadline(None, DAY) == float("inf")
    assert deferral.deadline(NOW, DAY) == NOW + DAY
