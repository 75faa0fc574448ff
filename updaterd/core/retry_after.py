# SPDX-License-Identifier: Apache-2.0
"""Retry-After, in both of its forms. RFC 9110 section 10.2.3."""

from email.utils import mktime_tz, parsedate_tz

_MOST_DIGITS = 9


def parse_retry_after(value: str, *, date: str = "", now: float) -> float:
    """Return the seconds to wait; 0 when the header says nothing usable.

    Args:
        value: the header, delta-seconds or an HTTP-date.
        date: the same answer's Date header. A machine whose clock is wrong then
            still waits as long as the server meant.
        now: Unix seconds, for an answer without a Date.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:_MOST_DIGITS])  # nobody means thirty years
    until = _seconds(value)
    if until is None:
        return 0.0
    sent = _seconds(date)
    return max(0.0, until - (now if sent is None else sent))


def _seconds(value: str) -> float | None:
    """Return an HTTP-date (RFC 9110 section 5.6.7, all three forms) as Unix time."""
    try:
        parsed = parsedate_tz(value)
        return None if parsed is None else float(mktime_tz(parsed))
    except (ValueError, OverflowError, IndexError, TypeError):
        return None  # dates like `Mon, 99 Foo 0000`
