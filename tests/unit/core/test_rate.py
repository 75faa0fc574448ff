# SPDX-License-Identifier: Apache-2.0
"""A rate holds over every second, whatever the server does meanwhile."""

from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.rate import Rate

_PER_S = 1000

pieces = st.lists(
    st.tuples(st.floats(0, 60), st.integers(1, 3 * _PER_S)), min_size=1, max_size=50
)


@given(pieces)
def test_a_stall_saves_up_a_second_and_no_more(served):
    """From any moment on: a second's worth, what the time allows, and one piece."""
    rate, now = Rate(_PER_S, 0.0), 0.0
    came = []
    for stall, count in served:
        now += stall
        came.append((now, count))
        now += rate.take(count, now)
    for first, (began, _) in enumerate(came):
        total = 0
        for at, count in came[first:]:
            assert total <= _PER_S * (1 + at - began) + 1e-6
            total += count


def test_without_a_limit_nothing_waits():
    assert 0 == Rate(None, 0.0).take(10**12, 0.0)
