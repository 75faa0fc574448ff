# SPDX-License-Identifier: Apache-2.0
"""Admission: who comes in, who waits, for how long. Pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.server.streams.admission import Admission

draws = st.floats(0, 1, exclude_max=True)


def test_rate_holds_and_burst_is_spent_once():
    """Over ten seconds: the burst, then the rate."""
    door = Admission(rate=100, burst=50, now=0.0)
    asked = [n / 1000 for n in range(10_000)]
    let_in = sum(door.admit(now, draw=0.5) == 0 for now in asked)
    assert 1040 <= let_in <= 1060


def test_refusals_book_places_one_after_another():
    """Ten thousand at once are spread over ten thousand places, not sent to one."""
    door = Admission(rate=1000, burst=1, now=0.0)
    waits = [door.admit(0.0, draw=0.5) for _ in range(10_000)]
    assert waits[0] == 0
    assert waits[1:] == sorted(waits[1:])
    assert 18 <= waits[-1] <= 22  # at half the rate
    busiest = max(waits.count(second) for second in set(waits))
    assert busiest <= 501


@given(draws, st.integers(0, 10**7), st.integers(1, 10**4))
def test_retry_is_within_what_clients_accept(draw, streams, rate):
    """Never none, never beyond the 300 s at which a client caps it."""
    door = Admission(rate=rate, burst=1, now=0.0)
    assert 1000 <= door.retry_ms(streams, draw=draw) <= 300_000


@given(draws)
def test_flood_books_no_one_out(draw):
    """Who does not obey cannot push the places away for ever."""
    door = Admission(rate=10, burst=1, now=0.0)
    for _ in range(4_000):
        assert door.admit(0.0, draw=draw) <= 301
    assert door.admit(10_000.0, draw=draw) == 0


def test_window_remembers_the_fleet():
    """A fleet that left for a moment is expected back, whole."""
    door = Admission(rate=1000, burst=1, now=0.0)
    wide = door.window_s(100_000)
    assert wide == 200
    assert door.window_s(10) == wide


@pytest.mark.parametrize("others", [1, 5, 50])
def test_one_address_that_hurries_delays_nobody_else(others):
    """1,440 connects a second from one, at a rate of 200: the others wait seconds."""
    door = Admission(rate=200, burst=100, now=0.0)
    begin = {f"other-{n}": 5.0 + n / others for n in range(others)}
    due, waited = dict(begin), {}
    for step in range(15 * 1440):
        now = step / 1440
        door.admit(now, draw=0.5, client="in-a-hurry")
        for client in [client for client, at in due.items() if at <= now]:
            wait = door.admit(now, draw=0.5, client=client)
            if wait:
                due[client] = now + wait  # it obeys
            else:
                waited[client] = now - begin[client]
                del due[client]
    assert not due
    assert max(waited.values()) <= 4


def test_crowd_behind_one_address_has_the_whole_rate_for_itself():
    """Fairness is for when others wait: a company behind NAT is let in as ever."""
    door = Admission(rate=100, burst=50, now=0.0)
    waits = [door.admit(n / 1000, draw=0.5, client="nat") for n in range(10_000)]
    assert 1040 <= waits.count(0) <= 1060
