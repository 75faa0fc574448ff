# SPDX-License-Identifier: Apache-2.0
"""Closing many streams: evenly, so that no wave of clients comes back."""

import asyncio
from dataclasses import replace

import pytest

from updaterd.server.http.publish import MetadataWatch
from updaterd.server.log.contract import Retention
from updaterd.server.log.sqlite import SqliteLog
from updaterd.server.metrics import Metrics
from updaterd.server.observer import Observer
from updaterd.server.options import Options
from updaterd.server.streams.frames import Frame
from updaterd.server.streams.hub import Hub
from updaterd.server.streams.request import StreamRequest, read_filter
from updaterd.server.streams.stream import Stream
from updaterd.server.streams.streams import Streams
from updaterd.server.tokens import Tokens

REQUEST = StreamRequest(read_filter(b""), "", "192.0.2.1", "", "", browser=False)


class Listener(Stream):
    """A stream that remembers what it was told, and tells when it ended."""

    def __init__(self, streams, ended):
        super().__init__(streams, REQUEST, "")
        self.told = []
        self.ended = ended

    def write(self, block: Frame) -> None:
        self.told.append(block.plain)

    def finish(self) -> None:
        self.closed = True
        self.ended.append(self)

    async def drained(self) -> None:
        pass

    def drop(self) -> None:
        self.finish()


@pytest.fixture
async def make_streams(tmp_path, world):
    """Makes the streams of a process, ready, with options changed."""
    log = SqliteLog(tmp_path / "feed.db", retention=Retention(), now=world.now)

    async def make(**changed):
        options = replace(Options(state=tmp_path), **changed)
        metrics = Metrics(now=world.now)
        hub = Hub(log, observer=Observer(metrics, MetadataWatch(None)), heartbeat_s=15)
        await hub.start()
        tokens = Tokens(tmp_path)
        streams = Streams(options, hub, tokens=tokens, metrics=metrics, world=world)
        streams.ready = True
        return streams

    yield make
    await log.close()


async def test_streams_are_closed_a_few_at_a_time(make_streams):
    """At the rate at which others can take them, each told when to come back."""
    streams = await make_streams(rate=100.0, grace_s=20.0)
    ended = []
    crowd = [Listener(streams, ended) for _ in range(60)]
    for one in crowd:
        streams.begin(one, "")
    draining = asyncio.create_task(streams.drain())
    at_once, seen = [], 0
    while not draining.done():
        await asyncio.sleep(0)
        at_once.append(len(ended) - seen)
        seen = len(ended)
    await draining
    assert len(ended) == 60
    assert max(at_once) <= 6  # 60 at 100 a second, every 50 ms
    assert all(b"retry: " in b"".join(one.told) for one in crowd)


async def test_grace_bounds_the_time_however_many(make_streams):
    """More streams than the rate allows in the grace period: steeper, not longer."""
    streams = await make_streams(rate=1.0, grace_s=0.2)
    ended = []
    for _ in range(60):
        streams.begin(Listener(streams, ended), "")
    await asyncio.wait_for(streams.drain(), 10)
    assert len(ended) == 60


async def test_nobody_is_let_in_while_draining(make_streams):
    """Who comes is sent elsewhere, with a time; uvicorn still listens."""
    streams = await make_streams()
    assert streams.knock(REQUEST) == ""
    await streams.drain()
    refusal = streams.knock(REQUEST)
    assert (refusal.status, refusal.code) == (503, "not_ready")
    assert refusal.retry_after_s >= 1
