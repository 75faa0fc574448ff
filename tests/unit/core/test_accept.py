# SPDX-License-Identifier: Apache-2.0
"""Content negotiation (RFC 9110, 12.5.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.accept import quality


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", 1),
        ("*/*", 1),
        ("text/*;q=0.4", 0.4),
        ("text/event-stream", 1),
        ("TEXT/Event-Stream ; Q=0.3", 0.3),
        ("application/json", 0),
        ("application/json, */*;q=0.1", 0.1),
        ("*/*, text/event-stream;q=0", 0),  # the most specific counts
        ("text/*;q=0, */*", 0),
        ("text/event-stream;q=nonsense", 1),
        ("text/event-stream;q=nan", 1),
        ("text/event-stream;q=7", 1),
        ("text/event-stream-evil", 0),
        (",;,=;", 0),
    ],
)
def test_most_specific_range_counts(accept, expected):
    assert quality(accept, "text/event-stream") == expected


def test_another_version_is_not_this_one():
    header = 'a/b;version=0.0.1;q=0.9, a/b;version="1.0.0";q=0.5, */*;q=0.1'
    assert quality(header, "a/b", "1.0.0") == 0.5
    assert quality(header, "a/b", "2.0.0") == 0.1


@given(st.text(max_size=80))
def test_any_header_has_an_answer(header):
    assert 0 <= quality(header, "text/plain", "1") <= 1
