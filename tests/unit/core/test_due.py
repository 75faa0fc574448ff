# SPDX-License-Identifier: Apache-2.0
"""A product is due when it should be, and never parked."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.due import Agenda, Due, Waiting, due, settled
from updaterd.core.throttle import Throttle

NOW = 1_800_000_000.0
POLL = 21600.0
QUIET = Agenda(poll_at=NOW + POLL)


def ask(agenda=QUIET, *, now=NOW, retry_at=None, waiting=None):
    return due(agenda, now=now, retry_at=retry_at, waiting=waiting, poll_s=POLL)


def test_first_look_after_a_start_is_at_once():
    assert Due(at=0.0, trigger="boot") == ask(Agenda())


def test_quiet_machine_polls():
    assert Due(at=NOW + POLL, trigger="poll") == ask()


def test_event_is_due_at_once():
    assert Due(at=NOW, trigger="event") == ask(waiting=Waiting(received_at=NOW))


def test_event_is_spread_by_this_machines_share():
    agenda = replace(QUIET, share=0.25)

    found = ask(agenda, waiting=Waiting(received_at=NOW, spread_s=400))

    assert NOW + 100 == found.at


def test_urgent_event_is_not_spread():
    agenda = replace(QUIET, share=0.9)

    found = ask(agenda, waiting=Waiting(received_at=NOW, spread_s=400, urgent=True))

    assert NOW == found.at


def test_plan_in_the_past_is_paced():
    """A decision that is never satisfied must not become a busy loop."""
    agenda = replace(QUIET, throttle=Throttle(not_before=NOW + 5))

    assert NOW + 5 == ask(agenda, retry_at=NOW - 100).at


def test_feed_that_comes_and_goes_does_not_start_worker_after_worker():
    agenda = replace(QUIET, poll_at=NOW, throttle=Throttle(not_before=NOW + 30))

    assert Due(at=NOW + 30, trigger="poll") == ask(agenda)


@given(st.floats(0, 1e9), st.booleans())
def test_clock_that_was_set_back_parks_neither_poll_nor_events(jump_s, with_event):
    """Turn by turn, as the daemon does: it looks after one period at the latest."""
    agenda = Agenda(
        poll_at=NOW + POLL, throttle=Throttle(not_before=NOW + 1, idle_runs=1)
    )
    start = now = NOW - jump_s
    waiting = Waiting(received_at=start) if with_event else None

    while True:
        agenda = settled(agenda, now=now, poll_s=POLL)
        found = ask(agenda, now=now, retry_at=NOW + 30, waiting=waiting)
        if found.at <= now:
            break
        now = max(min(found.at, now + 600), now + 1)
        assert now - start <= (120 if with_event else 1.2 * POLL), "it is parked"


@given(
    st.floats(-1e10, 1e11),
    st.one_of(st.none(), st.floats(-1e10, 1e11)),
    st.floats(0, 1e9),
    st.floats(0, 1, exclude_max=True),
)
def test_no_event_and_no_clock_jump_delays_beyond_the_safety_poll(
    poll_at, retry_at, spread_s, share
):
    agenda = Agenda(poll_at=poll_at, share=share)
    waiting = Waiting(received_at=NOW, spread_s=spread_s)

    assert ask(agenda, retry_at=retry_at, waiting=waiting).at <= NOW + POLL
