"""Several servers over one Redis: every acknowledged event, everywhere, once."""

import asyncio
import signal

import pytest
from fakes.serving import (
    FeedProcess,
    Reader,
    RedisProcess,
    announcement,
    publish,
    request,
)
from fakes.tools import need

EVENTS = 60


@pytest.fixture
def own_redis(tmp_path):
    with RedisProcess(need("redis-server"), tmp_path / "redis") as server:
        yield server


@pytest.fixture
def replicas(own_redis, tmp_path):
    feeds = [
        FeedProcess(
            tmp_path / "state",
            *("--log", own_redis.url, "--sink", sink, "--heartbeat", "1"),
            *("--metrics", "open"),
        )
        for sink in ("fast", "fast", "asgi")
    ]
    for feed in feeds:
        feed.start()
    yield feeds
    for feed in feeds:
        feed.__exit__()


async def announce(feeds, token, seq):
    """Publish like a release tool: with one key, until someone acknowledges."""
    for attempt in range(200):
        feed = feeds[(seq + attempt) % len(feeds)]
        try:
            answer = await asyncio.to_thread(
                publish, feed.url, token, announcement(seq=seq), f"key-{seq}"
            )
        except OSError:
            await asyncio.sleep(0.05)
            continue
        if answer.status == 201:
            return answer.json["id"]
        assert answer.status == 503, answer.body
        await asyncio.sleep(0.05)
    raise AssertionError("nobody acknowledged")


async def follow(feeds, start, until):
    """Read like a daemon: remember the id, come back to any replica that answers."""
    got, cursor, at = [], "", start
    while True:
        headers = {"Last-Event-ID": cursor} if cursor else {}
        try:
            async with Reader(feeds[at].url, headers=headers) as reader:
                while reader.status == 200:
                    event = await reader.next()
                    if event is None:
                        break
                    assert event.name != "resync"
                    cursor = event.id
                    if event.name == "update_available":
                        got.append((event.id, event.json["seq"]))
                        if event.json["seq"] == until:
                            return got
        except (OSError, asyncio.IncompleteReadError):
            pass
        at = (at + 1) % len(feeds)
        await asyncio.sleep(0.02)


async def start_followers(feeds):
    followers = [asyncio.create_task(follow(feeds, n % 3, EVENTS)) for n in range(9)]
    for feed in feeds:
        await feed.streams(3)
    return followers


async def test_posted_to_any_reaches_all_in_order_once(replicas):
    """Three replicas, one order."""
    token = replicas[0].token("publish:acme/stable")
    followers = await start_followers(replicas)
    ids = [(await announce(replicas, token, n), n) for n in range(1, EVENTS + 1)]
    for got in await asyncio.gather(*followers):
        assert got == ids


async def test_kill_9_of_redis_while_publishing(replicas, own_redis):
    """Redis dies and comes back twice: nothing acknowledged is lost or doubled."""
    token = replicas[0].token("publish:acme/stable")
    followers = await start_followers(replicas)
    ids = []
    for n in range(1, EVENTS + 1):
        if n in {20, 40}:
            # some announcement is under way while it dies
            under_way = asyncio.create_task(announce(replicas, token, n))
            await asyncio.sleep(0)
            own_redis.kill()
            own_redis.start()
            ids.append((await under_way, n))
        else:
            ids.append((await announce(replicas, token, n), n))
    for got in await asyncio.gather(*followers):
        assert got == ids


async def test_kill_9_of_one_of_three_replicas(replicas):
    """Its streams go elsewhere with their cursors; publishers try the next."""
    token = replicas[0].token("publish:acme/stable")
    followers = await start_followers(replicas)
    ids = []
    for n in range(1, EVENTS + 1):
        if n == 20:
            replicas[1].process.send_signal(signal.SIGKILL)
        if n == 45:
            replicas[2].process.send_signal(signal.SIGKILL)
        ids.append((await announce(replicas, token, n), n))
    for got in await asyncio.gather(*followers):
        assert got == ids


async def test_lost_log_tells_open_streams_to_reconcile(replicas, own_redis):
    """A Redis that forgot everything: resync now, and live events again."""
    token = replicas[0].token("publish:acme/stable")
    await announce(replicas, token, 1)
    async with Reader(replicas[2].url) as reader:
        assert (await reader.next()).name == "hello"
        own_redis.flush()
        event_id = await announce(replicas, token, 2)
        events = [await reader.next()]
        while events[-1].name != "update_available":
            events.append(await reader.next())
        assert events[0].name == "resync"
        assert events[0].json == {"reason": "log_lost"}
        assert events[-1].id == event_id


async def test_not_ready_without_redis_but_streams_stay(replicas, own_redis):
    """The log is down: /readyz says so, open streams and /healthz live on."""
    feed = replicas[0]
    async with Reader(feed.url) as reader:
        await reader.next()
        assert request(f"{feed.url}/readyz").status == 200
        own_redis.kill()
        assert request(f"{feed.url}/readyz").status == 503
        assert request(f"{feed.url}/healthz").status == 200
        own_redis.start()
        token = feed.token("publish:acme/stable")
        event_id = await announce(replicas, token, 1)
        assert (await reader.next()).id == event_id
