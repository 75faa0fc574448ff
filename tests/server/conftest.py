# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the real Redis, and feed servers that run as processes."""

import asyncio
import secrets
import socket
import time

import pytest
from fakes.nats import NatsProcess
from fakes.postgres import PostgresProcess
from fakes.serving import FeedProcess, RedisProcess
from fakes.tools import need, need_valkey

from updaterd.server.host.owned_log import AskedLog, LogOwner
from updaterd.server.host.talk import Talk
from updaterd.server.log import registry
from updaterd.server.log.contract import Retention
from updaterd.server.streams.streams import World


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory):
    program = need("redis-server")
    with RedisProcess(program, tmp_path_factory.mktemp("redis")) as redis:
        yield redis


@pytest.fixture(scope="session")
def valkey_process(tmp_path_factory):
    with RedisProcess(need_valkey(), tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey


@pytest.fixture(scope="session")
def postgres_process(tmp_path_factory):
    with PostgresProcess(tmp_path_factory.mktemp("pg")) as process:
        yield process


@pytest.fixture(scope="session")
def nats_process(tmp_path_factory):
    with NatsProcess(tmp_path_factory.mktemp("nats")) as process:
        yield process


class Clock:
    """Seconds since 1970 that a test can turn."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def world(clock):
    return World(time.monotonic, clock, secrets.SystemRandom().random)


def ask_for(log, talks):
    """Return a log as a worker has it, whose owner is asked over a socket pair."""
    ours, theirs = socket.socketpair()
    owner, asked = LogOwner(log), Talk(theirs, {})
    talks.append(asyncio.create_task(Talk(ours, owner.answers, owner.tells).run()))
    talks.append(asyncio.create_task(asked.run()))

    class Whole(AskedLog):
        async def trim(self):
            return await log.trim()

        async def close(self):
            await log.close()

    return Whole(asked)


@pytest.fixture(params=["sqlite", "asked", "redis", "valkey", "postgres", "nats"])
async def open_log(request, tmp_path, clock):
    """Opens one log, as often as asked: `open_log(retention)`."""
    opened, talks = [], []
    url, server = f"sqlite://{tmp_path}/feed.db", None
    if request.param not in {"sqlite", "asked"}:
        server = request.getfixturevalue(f"{request.param}_process")
        server.flush()
        url = server.url

    def make(retention=Retention()):  # noqa: B008 - frozen
        log = registry.open_log(url, state=tmp_path, retention=retention, now=clock)
        opened.append(log)
        return ask_for(log, talks) if request.param == "asked" else log

    make.server = server
    yield make
    for task in talks:
        task.cancel()
    await asyncio.gather(*talks, return_exceptions=True)
    for log in opened:
        await log.close()


@pytest.fixture(scope="module", params=["fast", "asgi"])
def sink(request):
    return request.param


@pytest.fixture(scope="module")
def shared_feed(sink, tmp_path_factory):
    """One server a module for tests that leave no trace but events."""
    folder = tmp_path_factory.mktemp("feed")
    repository = folder / "public"
    (repository / "metadata").mkdir(parents=True)
    feed = FeedProcess(
        folder / "state",
        *("--repo", str(repository), "--sink", sink, "--heartbeat", "0.5"),
        *("--allow-origin", "https://shop.example"),
    )
    with feed:
        feed.repository = repository
        feed.publisher = feed.token("publish:acme/*", "publish:other/stable")
        yield feed


@pytest.fixture
def start_feed(tmp_path):
    """Starts servers with arguments, and stops them after the test."""
    started = []

    def start(*arguments, state=None, **how):
        folder = state or tmp_path / "state"
        feed = FeedProcess(folder, *map(str, arguments), **how)
        started.append(feed)
        return feed.start()

    yield start
    for feed in started:
        feed.__exit__()
