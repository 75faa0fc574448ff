# SPDX-License-Identifier: Apache-2.0
"""A feed that drops, stalls, lies and restarts at random, for thousands of events.

The inbox must end with every event exactly once and in order, also when the
subscriber is killed by SIGKILL again and again. Seeded; longer runs:

    UPDATERD_CHAOS_EVENTS=100000 UPDATERD_CHAOS_SEED=7 pytest tests/chaos
"""

import asyncio
import json
import os
import random
import sqlite3
import sys
from pathlib import Path

import pytest
from fakes import subscriber
from fakes.feed_server import OK, FeedServer, answer, chunked, say

EVENTS = int(os.environ.get("UPDATERD_CHAOS_EVENTS", "3000"))
SEED = int(os.environ.get("UPDATERD_CHAOS_SEED", "1"))
PATIENCE_S = 60 + EVENTS / 50

# what an answer may be like, and how often
WAYS = {
    "cut": 6,
    "reset": 3,
    "stall": 1,
    "whole": 4,
    "chunked": 4,
    "again": 4,
    "crlf": 4,
    "empty": 2,
    "503": 3,
    "redirect": 3,
    "html": 1,
    "garbage": 2,
    "silent": 0.2,
    "restart": 1,
}


def event(number):
    data = {"schema": 1, "product": "acme", "channel": "stable", "seq": number}
    text = f"id: {number}\nevent: update_available\ndata: {json.dumps(data)}\n\n"
    return text.encode()


class Chaos:
    """Answers each request in a way drawn from the seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.served = 0
        self.ways: dict[str, int] = {}
        self.restart = asyncio.Event()
        self.reached = asyncio.Event()
        self.kill_at = EVENTS * 2

    async def __call__(self, request, reader, writer):
        last = int(request.headers.get("last-event-id", "0"))
        (way,) = self.random.choices(list(WAYS), list(WAYS.values()))
        self.ways[way] = self.ways.get(way, 0) + 1
        if way == "restart":
            self.restart.set()
        reply = self._trouble(way) or self._events(way, last)
        await reply(request, reader, writer)

    def _trouble(self, way):
        """Return an answer without events; None when `way` has some."""
        status = self.random.choice([301, 302, 303, 307, 308])
        return {
            "503": answer(503, "Retry-After: 0"),
            "html": answer(200, "Content-Type: text/html", body=b"<p>"),
            "redirect": answer(status, "Location: /other"),
            "garbage": say(self.random.randbytes(50) + b"\r\n\r\n"),
            "empty": say(OK, b": nothing\n\n"),
            "restart": say(OK, b": nothing\n\n"),
            "silent": say(ending="hold"),
        }.get(way)

    def _events(self, way, last):
        draw = self.random
        first = last + 1
        if way == "again":  # a server that repeats what we have
            first = max(1, first - draw.randint(1, 20))
        numbers = range(first, min(first + draw.randint(1, 120), EVENTS + 1))
        self.served = max(self.served, numbers.stop - 1)
        if self.served >= self.kill_at:
            self.reached.set()
        body = b"".join(map(event, numbers))
        if draw.random() < 0.2:
            body = b"\xef\xbb\xbf" + body
        if way == "crlf":
            body = body.replace(b"\n", draw.choice([b"\r\n", b"\r"]))
        if way in {"cut", "reset"}:
            body = body[: draw.randint(0, len(body))]
        pieces = self._pieces(body)
        if way == "chunked":
            return chunked(*pieces, end=draw.random() < 0.5)
        then = {"reset": "reset", "stall": "hold"}.get(way, "close")
        return say(OK, *pieces, ending=then)

    def _pieces(self, body):
        """Cut at random, now and then into single bytes."""
        draw = self.random
        if len(body) < 300 and draw.random() < 0.3:
            return [body[i : i + 1] for i in range(len(body))]
        cuts = sorted(draw.randint(0, len(body)) for _ in range(draw.randint(0, 5)))
        ends = zip([0, *cuts], [*cuts, len(body)], strict=True)
        return [body[a:b] for a, b in ends if b > a]


async def restarting(server, chaos):
    """Close the server's port for a moment, whenever chaos says so."""
    while True:
        await chaos.restart.wait()
        chaos.restart.clear()
        await server.__aexit__()
        await asyncio.sleep(0.02)
        await server.__aenter__()


def check(database):
    connection = sqlite3.connect(database)
    ids = [
        row[0] for row in connection.execute("SELECT event_id FROM inbox ORDER BY row")
    ]
    (cursor,) = connection.execute("SELECT last_event_id FROM cursor").fetchone()
    (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    assert ids == [str(number) for number in range(1, EVENTS + 1)]
    assert (cursor, sound) == (str(EVENTS), "ok")


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
async def test_every_event_exactly_once_and_in_order(tmp_path, seed):
    chaos = Chaos(seed)
    database = tmp_path / "state.db"
    async with asyncio.timeout(PATIENCE_S), FeedServer(chaos) as server:
        restarts = asyncio.create_task(restarting(server, chaos))
        await subscriber.listen(
            server.url, database, done=lambda cursor: cursor == str(EVENTS)
        )
        restarts.cancel()
    check(database)
    assert len(chaos.ways) >= 12  # it was chaos indeed


async def start(url, database):
    return await asyncio.create_subprocess_exec(
        sys.executable, subscriber.__file__, url, str(database)
    )


def cursor_of(database):
    try:
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
        row = connection.execute("SELECT last_event_id FROM cursor").fetchone()
        connection.close()
    except sqlite3.OperationalError:
        return None  # not made yet
    return row and row[0]


async def test_with_the_subscriber_killed_at_random(tmp_path):
    """SIGKILL in the middle of whatever it does, restarted on the same state."""
    chaos = Chaos(SEED + 100)
    database = tmp_path / "state.db"
    kills = 6
    async with asyncio.timeout(PATIENCE_S), FeedServer(chaos) as server:
        restarts = asyncio.create_task(restarting(server, chaos))
        for number in range(1, kills + 1):
            chaos.kill_at = EVENTS * number // (kills + 1)
            chaos.reached.clear()
            process = await start(server.url, database)
            await chaos.reached.wait()
            await asyncio.sleep(chaos.random.random() * 0.05)
            assert process.returncode is None
            process.kill()
            await process.wait()
        process = await start(server.url, database)
        while cursor_of(database) != str(EVENTS):
            assert process.returncode is None
            await asyncio.sleep(0.1)
        process.kill()
        await process.wait()
        restarts.cancel()
    check(Path(database))
