# SPDX-License-Identifier: Apache-2.0
"""The odds are the Beta distribution's, exactly but for rounding."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core import odds


def exact(failed, trials, limit):
    """P(Beta(failed + 1, trials - failed + 1) > limit), in fractions."""
    rate, most = Fraction(limit), trials + 1
    return sum(
        comb(most, k) * rate**k * (1 - rate) ** (most - k) for k in range(failed + 1)
    )


@given(st.data(), st.integers(0, 60), st.sampled_from([0.001, 0.02, 0.25, 0.5, 0.97]))
def test_both_tails_are_those_of_the_exact_sum(data, trials, limit):
    failed = data.draw(st.integers(0, trials))
    high = exact(failed, trials, limit)
    assert odds.above(failed, trials, limit) == pytest.approx(float(high), rel=1e-9)
    low = float(1 - high)
    assert odds.below(failed, trials, limit) == pytest.approx(low, rel=1e-9)


@given(st.data(), st.integers(0, 20_000), st.floats(0, 1))
def test_tails_are_shares_that_rise_with_failures(data, trials, limit):
    failed = data.draw(st.integers(0, trials))
    high = odds.above(failed, trials, limit)
    assert 0 <= high <= 1
    assert high + odds.below(failed, trials, limit) == pytest.approx(1)
    if failed:
        assert odds.above(failed - 1, trials, limit) <= high + 1e-9


@pytest.mark.parametrize(
    ("failed", "trials", "limit", "high"),
    [
        (0, 0, 0.02, 0.98),  # nobody has said anything
        (20_000, 1_000_000, 0.02, 0.50182),  # at the limit, half and half
        (1_000_000, 1_000_000, 0.5, 1.0),
        (0, 1_000_000, 0.5, 0.0),
    ],
)
def test_known_values(failed, trials, limit, high):
    assert odds.above(failed, trials, limit) == pytest.approx(high, abs=1e-4)
