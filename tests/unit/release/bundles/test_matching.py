# SPDX-License-Identifier: Apache-2.0
"""Whatever is matched fits into the memory that it may take, and all of it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.release.bundles import matching
from updaterd.release.bundles.matching import BSDIFF, GROUND, HDIFFPATCH, OWN

SIZES = st.integers(1, 10**9)


@given(SIZES, SIZES, st.integers(1000, 10**10))
def test_windows_cover_what_is_new_within_their_memory(old, new, size):
    """Each has old bytes around the same place, all of them while they fit."""
    windows = []
    for window in matching.windows(old, new, size):
        windows.append(window)
        if len(windows) > 50:
            break
    at = 0
    for low, count, first, width in windows:
        assert low == at
        assert count > 0
        assert 0 <= first <= first + width <= old
        assert 5 * width + count <= size or min(count, width) == 1
        if 6 * old <= size:
            assert width == old
        at += count
    assert at == new or len(windows) > 50


@pytest.mark.parametrize("matcher", [BSDIFF, HDIFFPATCH])
@given(st.integers(256 << 20, 2**40))
def test_what_may_be_matched_whole_fits_into_the_budget(matcher, budget):
    size = matching.limit(matcher, budget)
    own = OWN if matcher == HDIFFPATCH else 0

    assert matching.memory(matcher, size, size) + own <= budget
    assert matching.memory(matcher, size + 99, size + 99) + own > budget


def test_a_program_of_120_mb_is_matched_whole_with_a_little_more_than_the_default():
    """Measured: 739 MiB for node 24.14.1, of 124,545,248 bytes."""
    node = 124_545_248
    whole = matching.memory(HDIFFPATCH, node, node)
    assert 0 <= whole - (739 << 20) < GROUND
    (window, *_) = matching.windows(node, node, matching.room(768 << 20))
    assert window[3] == node
