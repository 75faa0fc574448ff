# SPDX-License-Identifier: Apache-2.0
"""Maintenance windows open and close when a person reading them would say so."""

import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from freezegun import freeze_time

from updaterd.core.windows import opens_at, parse_window
from updaterd.errors import MalformedError

BERLIN = ZoneInfo("Europe/Berlin")


def zones(name):
    return ZoneInfo(name) if name else BERLIN


def opens(window, zone=BERLIN):
    """Return the local time at which `window` opens; None: it is open now."""
    found = opens_at(parse_window(window), time.time(), zones)
    return None if found is None else str(datetime.fromtimestamp(found, zone))[:16]


@freeze_time("2026-11-21 12:00:00")  # a Saturday
def test_next_opening_skips_days_that_are_not_listed():
    assert "2026-11-23 01:00" == opens("Mon..Fri 01:00-05:00")


@freeze_time("2026-11-23 00:00:00")  # 01:00 in Berlin, a Monday
def test_window_is_open_from_its_first_second():
    assert opens("Mon..Fri 01:00-05:00") is None


@freeze_time("2026-11-23 04:00:00")  # 05:00 in Berlin
def test_window_is_closed_from_its_end_on():
    assert "2026-11-24 01:00" == opens("Mon..Fri 01:00-05:00")


@freeze_time("2026-11-23 01:00:00")  # Monday 02:00, after Sunday's window began
def test_window_over_midnight_belongs_to_the_day_it_starts_on():
    assert opens("Sun 22:00-06:00") is None
    assert "2026-11-23 22:00" == opens("Mon 22:00-06:00")


@freeze_time("2026-03-29 00:30:00")  # 01:30, half an hour before the clocks go on
def test_start_that_the_clocks_skip_is_when_they_skip_it():
    """02:30 does not exist on this day: the window opens at what is then 03:00."""
    assert "2026-03-29 03:00" == opens("Sun 02:30-04:00")


@freeze_time("2026-03-28 12:00:00")
def test_window_that_is_skipped_whole_comes_a_week_later():
    assert "2026-04-05 02:00" == opens("Sun 02:00-03:00")


@pytest.mark.parametrize("utc", ["00:30:00", "01:30:00"])  # 02:30 twice
def test_hour_that_comes_twice_is_in_the_window_both_times(utc):
    with freeze_time(f"2026-10-25 {utc}"):
        assert opens("Sun 02:00-03:00") is None


@freeze_time("2026-10-25 02:00:00")  # 03:00, the second time over
def test_hour_that_came_twice_ends_after_the_second_time():
    assert "2026-11-01 02:00" == opens("Sun 02:00-03:00")


@freeze_time("2026-10-24 22:30:00")  # Sunday 00:30 in Berlin
def test_a_day_of_25_hours_delays_nothing():
    assert "2026-10-25 01:00" == opens("01:00-05:00")


@freeze_time("2026-07-01 12:00:00")
def test_zone_in_the_window_wins_over_the_machines():
    assert "2026-07-02 01:00" == opens("01:00-05:00 UTC", ZoneInfo("UTC"))
    assert "2026-07-02 03:00" == opens("01:00-05:00 UTC")


@freeze_time("2026-11-21 12:00:00")
def test_of_several_windows_the_first_to_open_counts():
    assert "2026-11-21 22:00" == opens("Mon 01:00-02:00; Sat,Sun 22:00-23:00")


@freeze_time("2026-11-21 12:00:00")
def test_whole_day_and_wrapping_ranges_of_days():
    assert opens("00:00-24:00") is None
    assert opens("Fri..Mon 00:00-00:00") is None
    assert "2026-11-24 00:00" == opens("Tuesday..Wednesday 00:00-24:00")


@pytest.mark.parametrize(
    "text",
    [
        "", "Mon", "01:00", "Mon 01:00", "25:00-26:00", "01:60-02:00", "24:00-01:00",
        "Foo 01:00-02:00", "Mon.Fri 01:00-02:00", "01:00-02:00 UTC now", "1-2",
        "01:00-02:00; ", "01:00-02:00 ../etc/passwd", "-1:00-02:00",
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(MalformedError, match="maintenance window"):
        parse_window(text)


def test_daily_window_opens_each_day_of_a_year_in_every_kind_of_zone():
    """Whatever the zone does with its clocks, within 25 hours it opens."""
    window = parse_window("01:30-03:30")
    for name in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"):
        zone = ZoneInfo(name)
        now = datetime(2026, 1, 1, tzinfo=zone).timestamp()
        for _ in range(366):
            found = opens_at(window, now, lambda _, zone=zone: zone)
            assert found is None or now < found <= now + 25 * 3600
            now += 86400
