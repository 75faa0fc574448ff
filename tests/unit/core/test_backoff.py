# SPDX-License-Identifier: Apache-2.0
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.backoff import FIRST_WINDOW, LONGEST_RETRY_AFTER_S, Backoff

ATTEMPTS = st.integers(1, 10**9)
DRAWS = st.floats(0, 1, exclude_max=True)
ASKED = st.floats(0, allow_nan=False)


@given(ATTEMPTS, DRAWS, ASKED)
def test_delay_is_never_more_than_twice_the_cap(attempt, draw, retry):
    """A hostile `retry:` cannot park the daemon."""
    assert 0 <= Backoff(cap=60).delay(attempt, draw=draw, retry=retry) <= 120


@given(ATTEMPTS, DRAWS, ASKED, ASKED)
def test_a_retry_after_may_exceed_the_cap_but_not_for_ever(attempt, draw, retry, after):
    delay = Backoff(cap=60).delay(attempt, draw=draw, retry=retry, after=after)
    assert delay <= LONGEST_RETRY_AFTER_S + 60


@given(ATTEMPTS, DRAWS, st.floats(0, 300), st.floats(0, 3600))
def test_what_the_server_asks_for_is_a_floor(attempt, draw, retry, after):
    delay = Backoff().delay(attempt, draw=draw, retry=retry, after=after)
    assert delay >= max(retry, after)


@given(ATTEMPTS, st.floats(0, 300), st.floats(0, 3600))
def test_the_jitter_is_added_never_swallowed(attempt, retry, after):
    """Whatever the server asks of all, two draws are two different moments."""
    backoff = Backoff()
    early = backoff.delay(attempt, draw=0.0, retry=retry, after=after)
    late = backoff.delay(attempt, draw=0.999, retry=retry, after=after)
    assert late - early >= 0.999 * FIRST_WINDOW * backoff.base - 1e-6


@given(st.integers(1, 1000), DRAWS, ASKED)
def test_patience_only_grows(attempt, draw, retry):
    backoff = Backoff()
    now = backoff.delay(attempt, draw=draw, retry=retry)
    assert backoff.delay(attempt + 1, draw=draw, retry=retry) >= now


def busiest_second(delays):
    seconds = [int(delay) for delay in delays]
    return max(seconds.count(second) for second in set(seconds))


@pytest.mark.parametrize("retry", [0.0, 0.001, 0.1, 1.0])
def test_a_small_retry_does_not_bring_the_fleet_back_at_once(retry):
    """However little the server asks for, no second sees more than an eighth."""
    draw = random.Random(1).random
    delays = [Backoff().delay(1, draw=draw(), retry=retry) for _ in range(10_000)]
    assert busiest_second(delays) < 10_000 / 8


def test_a_window_given_by_the_server_is_kept():
    """Each stream got its own `retry:` within a minute: the fleet spreads over it."""
    draw = random.Random(2).random
    delays = [Backoff().delay(1, draw=draw(), retry=60 * draw()) for _ in range(10_000)]
    assert busiest_second(delays) < 10_000 / 40


def test_a_large_retry_widens_the_window():
    """The same `retry: 60000` for all: they come over a minute."""
    draw = random.Random(3).random
    delays = [Backoff().delay(1, draw=draw(), retry=60.0) for _ in range(10_000)]
    assert min(delays) >= 60
    assert busiest_second(delays) < 10_000 / 50


def test_days_of_outage():
    """A week without a feed: a machine asks every few minutes, to the end.

    Time is counted, not slept.
    """
    draw = random.Random(4).random
    backoff, now, attempt = Backoff(), 0.0, 0
    asked = []
    while now < 7 * 86400:
        attempt += 1
        now += backoff.delay(attempt, draw=draw())
        asked.append(now)
    gaps = [b - a for a, b in itertools.pairwise(asked)]
    assert max(gaps) <= backoff.cap
    assert 7 * 86400 / backoff.cap < len(asked) < 3 * 7 * 86400 / backoff.cap


@pytest.mark.slow
@pytest.mark.parametrize("outage_s", [60, 3600, 86400])
def test_a_fleet_after_an_outage(outage_s):
    """A thousand machines wait out an outage; the busiest second after it is calm."""
    draw = random.Random(outage_s).random
    backoff = Backoff()
    back = []
    for _ in range(1000):
        now, attempt = 0.0, 0
        while now < outage_s:
            attempt += 1
            now += backoff.delay(attempt, draw=draw())
        back.append(now)
    assert busiest_second(back) < 60


@pytest.mark.parametrize(
    ("base", "cap"),
    [(0, 1), (2, 1), (float("nan"), 1), (1, float("nan")), (1, float("inf"))],
)
def test_bounds_out_of_order_are_refused(base, cap):
    with pytest.raises(ValueError):
        Backoff(base=base, cap=cap)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempt": 0},
        {"draw": 1.0},
        {"draw": -0.1},
        {"retry": -1.0},
        {"after": -1.0},
        {"retry": float("nan")},
    ],
)
def test_arguments_out_of_range_are_refused(wrong):
    arguments = {"attempt": 1, "draw": 0.5} | wrong
    with pytest.raises(ValueError):
        Backoff().delay(arguments.pop("attempt"), **arguments)
