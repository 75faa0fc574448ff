# SPDX-License-Identifier: Apache-2.0
"""A flood of events starts few workers; a single event starts one at once."""

from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.throttle import Throttle


def test_first_event_is_not_delayed():
    assert 0 == Throttle().wait_s(1_800_000_000.0)


def test_worker_that_changed_something_resets_the_pause():
    throttle = Throttle()
    for _ in range(8):
        throttle = throttle.after(now=100.0, useful=False)

    assert 0 == throttle.after(now=100.0, useful=True).wait_s(100.0)


def test_hours_of_flood_start_few_workers():
    """An event always waits: workers start only as the throttle allows."""
    now, throttle, workers = 0.0, Throttle(), 0
    while now < 3600:
        now += throttle.wait_s(now)
        throttle = throttle.after(now=now, useful=False)
        workers += 1

    assert workers < 70


@given(st.floats(-1e9, 1e10), st.floats(-1e9, 1e10), st.integers(0, 100))
def test_no_clock_jump_parks_the_daemon(then, now, runs):
    throttle = Throttle(idle_runs=runs, not_before=then)

    assert 0 <= throttle.wait_s(now) <= 60
