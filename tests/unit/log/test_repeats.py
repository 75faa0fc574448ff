# SPDX-License-Identifier: Apache-2.0
"""What strangers cause is one log line a kind and minute."""

import io
import json

import pytest
import structlog

from updaterd import log
from updaterd.log.repeats import Repeats


@pytest.fixture
def lines():
    out = io.StringIO()
    log.configure("json", file=out)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    structlog.reset_defaults()


async def test_the_first_line_comes_at_once_and_the_others_as_one(lines):
    repeats = Repeats()
    for number in range(20_000):
        repeats.warning("event_quarantined", alike="malformed", event_id=number)
    assert [line["event_id"] for line in lines()] == [0]
    repeats.close()
    first, last = lines()
    assert (last["event_id"], last["times"]) == (19_999, 19_999)
    assert "times" not in first


async def test_kinds_do_not_hide_each_other(lines):
    repeats = Repeats()
    for code in ("malformed", "too_large", "malformed"):
        repeats.warning("event_quarantined", alike=code, code=code)
    repeats.info("event_accepted", alike="malformed")
    assert [line.get("code") for line in lines()] == ["malformed", "too_large", None]
    repeats.close()


async def test_invented_kinds_share_a_line(lines):
    repeats = Repeats()
    for number in range(900):
        repeats.info("feed_state", alike=f"waiting http_{number}")
    assert len(lines()) < 50
    repeats.close()
    assert sum(line.get("times", 1) for line in lines()) == 900


async def test_a_minute_that_is_over_is_told_and_the_next_begins(lines):
    repeats = Repeats(minute_s=0.01)
    for _ in range(3):
        repeats.info("event_accepted", alike="update")
    await eventually_async(lambda: len(lines()) == 2, lines)
    assert lines()[1]["times"] == 2
    await eventually_async(lambda: not repeats.waiting, lines)
    repeats.info("event_accepted", alike="update")
    assert "times" not in lines()[2]
    repeats.close()


async def eventually_async(holds, lines):
    import asyncio

    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(lines())
