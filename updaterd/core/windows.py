# SPDX-License-Identifier: Apache-2.0
"""Maintenance windows: when updates may be applied, in systemd's calendar form.

    [DAYS] HH:MM-HH:MM [ZONE]          several, separated by `;`

DAYS as in systemd.time(7), "Calendar Events": `Mon..Fri`, `Sat,Sun`, `Mon,Wed..Fri`;
absent, every day. A window whose end is not after its start ends on the next day
and belongs to the day it starts on. Without ZONE (`UTC`, `Europe/Berlin`) the times
are the machine's own.

Daylight saving: a time that the clocks skip is the moment they skip it; a time that
comes twice starts a window the first time and ends it the second, so a window is
never shorter than it looks, except for what was skipped.

Pure: the caller says what time it is and what its zones are.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo

from updaterd.core.dataclass import dataclass
from updaterd.errors import MalformedError

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONG = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_TIMES = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})", re.ASCII)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}", re.ASCII)
_LOOK_AHEAD_D = 15  # a weekly window that falls into a skipped hour comes a week later

Span = tuple[float, float]
"""Start and end of one window, in Unix seconds."""

Zones = Callable[[str | None], tzinfo]
"""Returns the zone of a name; of None, the machine's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Minutes since midnight on certain weekdays (0 is Monday)."""

    days: frozenset[int]
    start: int
    end: int
    zone: str | None = None


def parse_window(text: str) -> tuple[Window, ...]:
    """Return the windows in `text`.

    Raises:
        MalformedError: it is not a list of windows.
    """
    return tuple(_window(part) for part in text.split(";"))


def _window(text: str) -> Window:
    words = text.split()
    days = frozenset(range(7))
    if words and not words[0][0].isdigit():
        days = _weekdays(words.pop(0))
    times = _TIMES.fullmatch(words.pop(0)) if words else None
    zone = words.pop(0) if words else None
    if times is None or words or (zone and not _ZONE.fullmatch(zone)):
        raise _malformed(text)
    start, end = (_minutes(times[i], times[i + 1], text) for i in (1, 3))
    if start == 24 * 60:
        raise _malformed(text)
    return Window(days=days, start=start, end=end, zone=zone)


def _weekdays(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        low = _weekday(first, text)
        high = _weekday(last, text) if dots else low
        days.update((low + step) % 7 for step in range((high - low) % 7 + 1))
    return frozenset(days)


def _weekday(name: str, text: str) -> int:
    for names in (_DAYS, _LONG):
        if name.lower() in names:
            return names.index(name.lower())
    raise _malformed(text)


def _minutes(hours: str, minutes: str, text: str) -> int:
    value = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or value > 24 * 60:
        raise _malformed(text)
    return value


def _malformed(text: str) -> MalformedError:
    return MalformedError(
        f"{text.strip()!r:.80} is not a maintenance window",
        do="write it like `Mon..Fri 01:00-05:00` or `Sat,Sun 22:00-06:00 UTC`",
        code="bad_window",
    )


def opens_at(windows: tuple[Window, ...], now: float, zones: Zones) -> float | None:
    """Return when the next window opens, in Unix seconds; None: one is open now.

    Args:
        windows: from `parse_window`.
        now: Unix seconds.
        zones: see `Zones`.
    """
    start, _ = nearest(windows, now, zones)
    return None if start <= now else start


def nearest(windows: tuple[Window, ...], now: float, zones: Zones) -> Span:
    """Return the window that is open now, the longest of them; else the next.

    Args:
        windows: from `parse_window`.
        now: Unix seconds.
        zones: see `Zones`.
    """
    upcoming, open_now = [], []
    for window in windows:
        zone = zones(window.zone)
        today = datetime.fromtimestamp(now, zone).date()
        for days in range(-1, _LOOK_AHEAD_D):
            day = today + timedelta(days=days)
            if day.weekday() not in window.days:
                continue
            start, end = _span(window, day, zone)
            if start <= now < end:
                open_now.append((start, end))
                break
            if now < start < end:
                upcoming.append((start, end))
                break
    if open_now:
        return min(start for start, _ in open_now), max(end for _, end in open_now)
    # Every window is met within the days looked at, unless it is empty each time.
    never = now + _LOOK_AHEAD_D * 86400.0
    return min(upcoming, default=(never, never))


def _span(window: Window, day: date, zone: tzinfo) -> Span:
    """Return start and end of the window that starts on `day`, in Unix seconds."""
    later = day + timedelta(days=window.end <= window.start)
    return (
        _instant(day, window.start, zone, fold=0),
        _instant(later, window.end, zone, fold=1),
    )


def _instant(day: date, minutes: int, zone: tzinfo, *, fold: int) -> float:
    """Return the Unix time of a local time; of a skipped one, when it is skipped."""
    day += timedelta(days=minutes // (24 * 60))
    hour, minute = divmod(minutes % (24 * 60), 60)
    local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone, fold=fold)
    instant = local.timestamp()
    wall = datetime.fromtimestamp(instant, UTC).astimezone(zone)
    if wall.replace(tzinfo=None) == local.replace(tzinfo=None):
        return instant
    # PEP 495: in a gap, fold=1 gives the earlier instant, fold=0 the later one.
    low = int(local.replace(fold=1).timestamp())
    high = int(local.replace(fold=0).timestamp())
    before = _offset(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(middle, zone) == before:
            low = middle
        else:
            high = middle
    return float(high)


def _offset(instant: int, zone: tzinfo) -> timedelta | None:
    return datetime.fromtimestamp(instant, zone).utcoffset()
