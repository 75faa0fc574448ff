# SPDX-License-Identifier: Apache-2.0
"""Several servers over one log: every acknowledged event, everywhere, once."""

import asyncio
import http.client
import signal
from dataclasses import dataclass, field

import pytest
from fakes.nats import NatsProcess
from fakes.postgres import PostgresProcess
from fakes.serving import (
    DEADLINE_S,
    FeedProcess,
    Reader,
    RedisProcess,
    announcement,
    publish,
    request,
    wait_until,
)
from fakes.tools import need, need_valkey

EVENTS = 90
PUBLISHERS = 3
FOLLOWERS = 9
END = "end"


@pytest.fixture
def fsync():
    """How often Redis syncs its file; killed, it loses nothing either way."""
    return "everysec"


@pytest.fixture
def program():
    """What stands behind the log."""
    return "redis"


@pytest.fixture
def own_redis(tmp_path, program, fsync):
    if program == "nats":
        with NatsProcess(tmp_path / "nats") as server:
            yield server
        return
    if program == "postgres":
        (tmp_path / "pg").mkdir()
        with PostgresProcess(tmp_path / "pg") as server:
            yield server
        return
    path = need_valkey() if program == "valkey" else need("redis-server")
    with RedisProcess(path, tmp_path / "redis", fsync) as server:
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


@dataclass
class Campaign:
    """Publishers that all work at once, and what they were told.

    Attributes:
        acknowledged: seq by id, as the answers said.
        failed: attempts that got no answer, or 503.
    """

    feeds: list
    token: str
    numbers: list = field(default_factory=lambda: list(range(EVENTS, 0, -1)))
    acknowledged: dict = field(default_factory=dict)
    failed: int = 0

    async def announce(self, seq, version="1.0.0"):
        """Publish like a release tool: with one key, until someone acknowledges."""
        for attempt in range(400):
            feed = self.feeds[(seq + attempt) % len(self.feeds)]
            document = announcement(version, seq=seq)
            try:
                answer = await asyncio.to_thread(
                    publish, feed.url, self.token, document, f"key-{seq}"
                )
            except (OSError, http.client.HTTPException):
                answer = None  # killed before it answered: stored, or not
            if answer is not None and answer.status == 201:
                return answer.json["id"]
            assert answer is None or answer.status == 503, answer.body
            self.failed += 1
            await asyncio.sleep(0.02)
        raise AssertionError("nobody acknowledged")

    async def publish(self):
        """Announce number after number, until none is left."""
        while self.numbers:
            seq = self.numbers.pop()
            self.acknowledged[await self.announce(seq)] = seq

    async def reached(self, count):
        """Return when so many are acknowledged; the others are under way."""
        while len(self.acknowledged) < count:  # noqa: ASYNC110  publishers count
            await asyncio.sleep(0.001)
        assert len(self.acknowledged) < EVENTS

    async def run(self, *faults):
        """Publish everything while faults happen, each at its time, then the end."""
        publishers = [asyncio.create_task(self.publish()) for _ in range(PUBLISHERS)]
        for at, fault in faults:
            await self.reached(at)
            await asyncio.to_thread(fault)
        await asyncio.gather(*publishers)
        await self.announce(EVENTS + 1, END)


@dataclass
class Follower:
    """Reads like a daemon: remembers the id, comes back to any replica that answers.

    Attributes:
        got: (id, seq) of every announcement, as it came.
        breaks: streams that ended.
    """

    feeds: list
    at: int
    got: list = field(default_factory=list)
    breaks: int = 0
    cursor: str = ""

    async def run(self):
        """Read until the end of the campaign."""
        while not await self.stream():
            self.breaks += 1
            self.at = (self.at + 1) % len(self.feeds)
            await asyncio.sleep(0.02)
        return self

    async def stream(self):
        """Read one stream; tell whether the campaign ended on it."""
        headers = {"Last-Event-ID": self.cursor} if self.cursor else {}
        try:
            async with Reader(self.feeds[self.at].url, headers=headers) as reader:
                while reader.status == 200 and (event := await reader.next()):
                    assert event.name != "resync"
                    self.cursor = event.id
                    if event.name == "update_available":
                        if event.json["version"] == END:
                            return True
                        self.got.append((event.id, event.json["seq"]))
        except (OSError, asyncio.IncompleteReadError):
            pass
        return False


async def follow(feeds):
    """Start followers, three on each replica, and wait until they are there."""
    followers = [
        asyncio.create_task(Follower(feeds, n % len(feeds)).run())
        for n in range(FOLLOWERS)
    ]
    for feed in feeds:
        await feed.streams(FOLLOWERS // len(feeds))
    return followers


async def hold_to_it(campaign, followers):
    """Every acknowledged event is on every stream, once, in the log's order."""
    done = await asyncio.wait_for(asyncio.gather(*followers), 2 * DEADLINE_S)
    assert sorted(campaign.acknowledged.values()) == list(range(1, EVENTS + 1))

    def position(told):
        return tuple(map(int, told[0].partition(".")[2].split("-")))

    in_order = sorted(campaign.acknowledged.items(), key=position)
    for follower in done:
        assert follower.got == in_order
    return done


async def test_posted_to_any_reaches_all_in_order_once(replicas):
    """Three replicas, three publishers, one order."""
    followers = await follow(replicas)
    campaign = Campaign(replicas, replicas[0].token("publish:acme/stable"))
    await campaign.run()
    done = await hold_to_it(campaign, followers)
    assert campaign.failed == sum(follower.breaks for follower in done) == 0


@pytest.mark.parametrize(
    ("program", "fsync"),
    [
        ("redis", "everysec"),
        ("redis", "always"),
        ("valkey", "everysec"),
        ("postgres", "always"),
        ("nats", "never"),
    ],
)
async def test_kill_9_of_the_log_while_publishing(replicas, own_redis):
    """It dies and comes back, twice: nothing acknowledged is lost or doubled."""
    followers = await follow(replicas)
    campaign = Campaign(replicas, replicas[0].token("publish:acme/stable"))
    seen = []

    def kill():
        before = campaign.failed
        own_redis.kill()
        wait_until(lambda: campaign.failed > before, "a publisher notices")
        own_redis.start()
        seen.append(campaign.failed - before)

    await campaign.run((20, kill), (50, kill))
    done = await hold_to_it(campaign, followers)
    assert all(seen)
    # the replicas carried their streams through it
    assert sum(follower.breaks for follower in done) == 0
    log = replicas[0].log.read_text()
    assert log.count('"log_down"') >= 1
    assert log.count('"log_down"') == log.count('"log_back"')


async def test_kill_9_of_one_of_three_replicas(replicas):
    """Then of a second: streams go elsewhere with their cursors, publishers too."""
    followers = await follow(replicas)
    campaign = Campaign(replicas, replicas[0].token("publish:acme/stable"))

    def kill(number):
        assert "updaterd_streams 0" not in replicas[number].metrics()
        replicas[number].stop(signal.SIGKILL)

    await campaign.run((20, lambda: kill(1)), (60, lambda: kill(2)))
    done = await hold_to_it(campaign, followers)
    assert campaign.failed > 0
    moved = [follower.breaks > 0 for follower in done]
    assert moved == [False, True, True] * 3


async def announce(feeds, token, seq):
    return await Campaign(feeds, token).announce(seq)


async def test_lost_log_tells_open_streams_to_reconcile(replicas, own_redis):
    """A Redis that forgot everything: resync now, and live events again."""
    token = replicas[0].token("publish:acme/stable")
    await announce(replicas, token, 1)
    async with Reader(replicas[2].url) as reader:
        assert (await reader.next()).name == "hello"
        own_redis.flush()
        event_id = await announce(replicas, token, 2)
        events = [await reader.next()]
        while events[-1].id != event_id:
            events.append(await reader.next())
        # the first announcement may have been on its way to this replica yet
        told = next(one for one in events if one.name != "update_available")
        assert told.name == "resync"
        assert told.json == {"reason": "log_lost"}
        assert events[-1].name == "update_available"


async def test_not_ready_without_redis_but_streams_stay(replicas, own_redis):
    """The log is down: /readyz says so, open streams and /healthz live on."""
    feed = replicas[0]
    async with Reader(feed.url) as reader:
        await reader.next()
        assert request(f"{feed.url}/readyz").status == 200
        own_redis.kill()
        answer = request(f"{feed.url}/readyz")
        assert (answer.status, answer.json["code"]) == (503, "log_unreachable")
        assert str(own_redis.port) not in answer.body.decode()
        assert request(f"{feed.url}/healthz").status == 200
        own_redis.start()
        token = feed.token("publish:acme/stable")
        event_id = await announce(replicas, token, 1)
        assert (await reader.next()).id == event_id
