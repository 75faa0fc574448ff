# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.retry_after import parse_retry_after

NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
        ("Sun Nov  6 08:50:37 1994", 60),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
        ("", 0),
        ("soon", 0),
        ("-1", 0),
        ("1.5", 0),
        ("١٢", 0),
        ("Sun, 06 Foo 1994 08:50:37 GMT", 0),
    ],
)
def test_both_forms(value, seconds):
    """RFC 9110 section 10.2.3, and the three dates of section 5.6.7."""
    assert parse_retry_after(value, now=NOW) == seconds


def test_a_wrong_clock_does_not_matter_where_the_answer_has_a_date():
    wait = parse_retry_after(
        "Sun, 06 Nov 1994 08:50:37 GMT",
        date="Sun, 06 Nov 1994 08:49:37 GMT",
        now=0.0,
    )
    assert wait == 60


@pytest.mark.slow
@given(st.text(), st.text())
def test_no_text_is_trouble(value, date):
    assert parse_retry_after(value, date=date, now=NOW) >= 0


@given(st.from_regex(r"\A\w{3}, \d{1,3} \w{3} \d{1,6} \d{1,9}:\d\d:\d\d GMT\Z"))
def test_no_date_is_trouble(value):
    assert parse_retry_after(value, now=NOW) >= 0
