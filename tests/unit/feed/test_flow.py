# SPDX-License-Identifier: Apache-2.0
"""A flood waits with the server; what a feed usually says never waits."""

from hypothesis import given
from hypothesis import strategies as st

from updaterd.feed.flow import Flow

RATE = 4 * 2**20


def test_what_a_feed_usually_says_never_waits():
    """Ten thousand missed events at once, then one every second."""
    flow = Flow(RATE)
    for chunk in range(64):
        flow.take(2**16, now=chunk / 1e4)
        assert flow.wait_s(chunk / 1e4) == 0.0
    for second in range(1, 1000):
        flow.take(400, now=float(second))
        assert flow.wait_s(float(second)) == 0.0


@given(st.lists(st.tuples(st.integers(1, 2**18), st.floats(0, 2)), max_size=300))
def test_no_flood_is_read_faster_than_its_rate(chunks):
    """Bytes, and small pieces too: whoever waits as told stays below both."""
    flow, now, read, count = Flow(RATE), 0.0, 0, 0
    for size, pause in chunks:
        now += pause + flow.wait_s(now + pause)
        flow.take(size, now=now)
        read, count = read + size, count + 1
        ahead = 4 * RATE + max(size, 2**16)
        assert read <= now * RATE + ahead + 1
        assert count * 2**16 <= now * RATE + ahead + 1
