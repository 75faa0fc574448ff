# SPDX-License-Identifier: Apache-2.0
"""What every event log promises; all implementations are held to it."""

import asyncio

import pytest

from updaterd.errors import BrokenError, UpdaterError
from updaterd.server.log import registry
from updaterd.server.log.contract import (
    ZERO,
    Event,
    KeyReusedError,
    LogDownError,
    Retention,
    Topic,
    read_id,
)


def event(number=1, product="acme", channel="stable"):
    data = b'{"product":"%b","seq":%d}' % (product.encode(), number)
    return Event("update_available", Topic(product, channel), data)


def opened(url, state):
    return registry.open_log(url, state=state, retention=Retention(), now=lambda: 0)


async def test_events_come_back_in_order_and_whole(open_log):
    """What was appended is read back, oldest first, with rising ids."""
    log = open_log()
    sent = [event(n) for n in range(25)]
    ids = [(await log.append(e, f"k{n}")).id for n, e in enumerate(sent)]
    records = await log.read(ZERO, 1000)
    assert [r.event for r in records] == sent
    positions = [r.position for r in records]
    assert positions == sorted(set(positions))
    assert [read_id(i)[1] for i in ids] == positions
    assert await log.read(positions[9], 5) == records[10:15]


async def test_same_key_appends_once(open_log):
    """A repeated key gives the first id; the log holds the event once."""
    log = open_log()
    first = await log.append(event(), "key")
    again = await log.append(event(), "key")
    assert (first.id, True, False) == (again.id, first.fresh, again.fresh)
    assert len(await log.read(ZERO, 10)) == 1


async def test_key_of_another_event_is_refused(open_log):
    """A key cannot stand for two events."""
    log = open_log()
    await log.append(event(1), "key")
    with pytest.raises(KeyReusedError) as refused:
        await log.append(event(2), "key")
    assert isinstance(refused.value, UpdaterError)
    assert len(await log.read(ZERO, 10)) == 1


async def test_key_tells_what_it_was_used_for(open_log):
    """Without appending: the same answer, none, or a refusal."""
    log = open_log()
    appended = await log.append(event(1), "key")
    found = await log.find(event(1), "key")
    assert (found.id, found.fresh) == (appended.id, False)
    assert await log.find(event(1), "other") is None
    with pytest.raises(KeyReusedError):
        await log.find(event(2), "key")
    assert len(await log.read(ZERO, 10)) == 1


@pytest.mark.parametrize("open_log", ["sqlite"], indirect=True)
async def test_event_whose_publisher_left_is_told_all_the_same(open_log, tmp_path):
    """What is in the log reaches the tail, whoever waited for the answer."""
    log = open_log()
    await log.append(event(0), "k0")
    bounds = await log.bounds()
    following = asyncio.ensure_future(anext(log.tail(bounds.epoch, bounds.last)))
    wal = tmp_path / "feed.db-wal"
    size = wal.stat().st_size
    publisher = asyncio.create_task(log.append(event(1), "k1"))
    await asyncio.sleep(0)
    # the loop stands still: it is stored, and nobody has been told yet
    while wal.stat().st_size == size:
        pass
    publisher.cancel()
    await asyncio.wait([publisher])
    assert publisher.cancelled()
    batch = await asyncio.wait_for(following, 30)
    assert [record.event for record in batch.records] == [event(1)]


async def test_appends_at_once_with_one_key_append_once(open_log):
    """Publishers that race with one key get one event."""
    log = open_log()
    answers = await asyncio.gather(*(log.append(event(), "key") for _ in range(20)))
    assert len({a.id for a in answers}) == 1
    assert sum(a.fresh for a in answers) == 1


async def test_log_survives_its_process(open_log):
    """Another opening finds events, epoch, keys and newest positions."""
    log = open_log()
    appended = await log.append(event(), "key")
    before = await log.bounds()
    await log.close()
    other = open_log()
    assert await other.bounds() == before
    assert (await other.append(event(), "key")).id == appended.id
    assert await other.newest() == {Topic("acme", "stable"): before.last}


async def test_empty_log_has_a_place_to_start_from(open_log):
    """Before the first event there is an epoch and a cursor that misses nothing."""
    bounds = await open_log().bounds()
    assert (bounds.floor, bounds.last) == (ZERO, ZERO)
    assert len(bounds.epoch) == 8


async def test_trim_by_count_keeps_the_newest_and_moves_the_floor(open_log):
    """After a trim the floor is the newest id that went."""
    log = open_log(Retention(count=10))
    for n in range(30):
        await log.append(event(n), f"k{n}")
    records = await log.read(ZERO, 100)
    assert await log.trim() == 20
    assert await log.read(ZERO, 100) == records[20:]
    bounds = await log.bounds()
    assert bounds.floor == records[19].position
    assert bounds.last == records[-1].position
    assert await log.trim() == 0
    assert (await log.bounds()).floor == bounds.floor


async def test_trim_by_age_forgets_everything_old_but_not_where_it_was(open_log, clock):
    """An emptied log still knows its newest id: cursors there miss nothing."""
    log = open_log(Retention(age_s=100))
    for n in range(5):
        await log.append(event(n), f"k{n}")
    last = (await log.bounds()).last
    clock.ahead = 200
    assert await log.trim() == 5
    assert await log.bounds() == type(await log.bounds())(
        (await log.bounds()).epoch, last, last
    )
    assert await log.newest() == {Topic("acme", "stable"): last}


async def test_newest_of_a_quiet_topic_outlives_its_event(open_log):
    """Busy topics trim a quiet one's event, but not its position."""
    log = open_log(Retention(count=5))
    quiet = await log.append(event(0, "quiet"), "q")
    for n in range(20):
        await log.append(event(n), f"k{n}")
    await log.trim()
    newest = await log.newest()
    assert newest[Topic("quiet", "stable")] == read_id(quiet.id)[1]


# Redis forgets keys by its own clock, which no test turns
@pytest.mark.parametrize(
    "open_log", ["sqlite", "asked", "postgres", "nats"], indirect=True
)
async def test_key_outlives_its_event_for_as_long_as_keys_are_kept(open_log, clock):
    """A publisher who comes back on the next day announces nothing twice."""
    log = open_log(Retention(count=1, key_s=1000))
    first = await log.append(event(0), "k0")
    for n in (1, 2):
        await log.append(event(n), f"k{n}")
    assert await log.trim() == 2
    again = await log.append(event(0), "k0")
    assert (again.id, again.fresh) == (first.id, False)
    clock.ahead = 2000
    await log.trim()
    for n in (2, 0):
        assert (await log.append(event(n), f"k{n}")).fresh
    assert len(await log.read((await log.bounds()).floor, 9)) == 3


async def test_tail_yields_everything_once_in_order(open_log):
    """A tail gets what was there and what comes, from several writers."""
    log = open_log()
    await log.append(event(0), "k0")
    bounds = await log.bounds()
    tail = log.tail(bounds.epoch, ZERO)

    async def write():
        for n in range(1, 100):
            await log.append(event(n), f"k{n}")

    writer = asyncio.create_task(write())
    got = []
    async with asyncio.timeout(30):
        async for batch in tail:
            assert batch.epoch == bounds.epoch
            got += batch.records
            if len(got) == 100:
                break
    await writer
    await tail.aclose()
    assert [r.event for r in got] == [event(n) for n in range(100)]


async def test_clock_that_goes_back_does_not_reorder(open_log, clock):
    """Ids rise although the clock fell."""
    log = open_log()
    first = await log.append(event(1), "a")
    clock.ahead = -3600
    second = await log.append(event(2), "b")
    assert read_id(second.id)[1] > read_id(first.id)[1]


async def test_data_is_kept_to_the_byte(open_log):
    """UTF-8 and the 512 KiB that are allowed come back as they were."""
    log = open_log()
    data = '{"x":"ü\u2028 '.encode() + b"y" * (512 << 10) + b'"}'
    await log.append(Event("metadata", Topic(None, None), data), "k")
    (record,) = await log.read(ZERO, 10)
    assert record.event == Event("metadata", Topic(None, None), data)


@pytest.mark.parametrize(
    "open_log", ["redis", "valkey", "postgres", "nats"], indirect=True
)
async def test_lost_log_starts_a_new_epoch(open_log):
    """A tail is told when the log was lost, and goes on with the new one."""
    log = open_log()
    await log.append(event(1), "a")
    bounds = await log.bounds()
    tail = log.tail(bounds.epoch, ZERO)
    async with asyncio.timeout(30):
        assert len((await anext(tail)).records) == 1
        following = asyncio.ensure_future(anext(tail))
        await asyncio.sleep(0)
        open_log.server.flush()
        await log.append(event(2), "b")
        batch = await following
        assert batch.epoch != bounds.epoch
        while not batch.records:
            batch = await anext(tail)
    assert [r.event for r in batch.records] == [event(2)]
    await tail.aclose()


async def behind(log, bounds):
    """Return the first batch of a tail that was somewhere else for a while."""
    tail = log.tail(bounds.epoch, bounds.last)
    async with asyncio.timeout(30):
        batch = await anext(tail)
    await tail.aclose()
    return batch


async def test_tail_is_told_what_was_trimmed_before_it_was_read(open_log):
    """Without it, subscribers miss events and are told that they are up to date."""
    log = open_log(Retention(count=10))
    await log.append(event(0), "k0")
    bounds = await log.bounds()
    for n in range(1, 41):
        await log.append(event(n), f"k{n}")
    await log.trim()

    batch = await behind(log, bounds)

    assert batch.gap == (await log.bounds()).floor
    assert [r.event for r in batch.records] == [event(n) for n in range(31, 41)]


@pytest.mark.parametrize("open_log", ["redis", "valkey"], indirect=True)
async def test_entries_of_a_stranger_end_nothing(open_log):
    """`XADD` by somebody else: passed over by reads, by a tail, and at a start."""
    log, redis = open_log(), open_log.server
    await log.append(event(0), "k0")
    bounds = await log.bounds()
    for words in (
        ("foo", "bar"),
        ("name", "x", "topic", "acme/stable", "data", "{}\n\nevent: resync\ndata: {}"),
        ("name", b"\xff", "topic", b"\xff", "data", "{}"),
    ):
        redis.ask("XADD", "{updaterd}:events", "*", *words)
    await log.append(event(1), "k1")

    assert [r.event for r in await log.read(ZERO, 3)] == [event(0), event(1)]
    assert [r.event for r in (await behind(log, bounds)).records] == [event(1)]
    assert (await log.bounds()).last == (await log.read(ZERO, 9))[-1].position


@pytest.mark.parametrize("open_log", ["redis", "valkey"], indirect=True)
async def test_fail_over_to_a_replica_that_was_behind(open_log):
    """Two acknowledged events are gone, and new ones come with lower ids."""
    log, redis = open_log(), open_log.server
    kept = await log.append(event(0), "k0")
    for n in (1, 2):
        await log.append(event(n), f"k{n}")
    bounds = await log.bounds()
    tail = log.tail(bounds.epoch, bounds.last)
    low = kept.position
    redis.ask("DEL", "{updaterd}:events")
    for add, number in ((0, 0), (1, 3)):
        redis.ask(
            "XADD", "{updaterd}:events", f"{low.ms}-{low.seq + add}",
            "name", "update_available", "topic", "acme/stable",
            "data", event(number).data,
        )  # fmt: skip
    newest = f"{low.ms}-{low.seq + 1}"
    redis.ask("HSET", "{updaterd}:newest", "acme/stable", newest)

    async with asyncio.timeout(30):
        batch = await anext(tail)
    await tail.aclose()

    assert batch.epoch != bounds.epoch  # each cursor out there is void: all look anew
    assert batch.gap is not None
    assert batch.gap < bounds.last
    other = open_log()
    assert (await other.bounds()).epoch == batch.epoch


@pytest.mark.parametrize("open_log", ["postgres"], indirect=True)
async def test_database_from_an_older_backup(open_log):
    """Acknowledged events are gone, and their positions come again: a new epoch."""
    log = open_log()
    await log.append(event(0), "k0")
    for n in (1, 2):
        await log.append(event(n), f"k{n}")
    bounds = await log.bounds()
    tail = log.tail(bounds.epoch, bounds.last)
    first = (await log.read(ZERO, 1))[0].position
    open_log.server.run("DELETE FROM updaterd_event WHERE (ms, seq) > (%s, %s)", first)
    open_log.server.run("UPDATE updaterd_log SET last_ms = %s, last_seq = %s", first)

    async with asyncio.timeout(30):
        batch = await anext(tail)
    await tail.aclose()

    assert batch.epoch != bounds.epoch
    assert batch.gap == first
    assert (await open_log().bounds()).epoch == batch.epoch


@pytest.mark.parametrize("open_log", ["postgres", "nats"], indirect=True)
async def test_database_that_takes_and_never_answers(open_log):
    """It is given up after some seconds, and works again when it does."""
    log = open_log()
    await log.append(event(0), "k0")
    with open_log.server.stopped(), pytest.raises(LogDownError, match="no answer"):
        await log.append(event(1), "k1")
    await log.append(event(1), "k1")
    assert [r.event for r in await log.read(ZERO, 9)] == [event(0), event(1)]


@pytest.mark.parametrize("open_log", ["postgres"], indirect=True)
async def test_database_that_cannot_be_written(open_log):
    """A standby says what to do."""
    log = open_log()
    await log.append(event(0), "k0")
    name = "default_transaction_read_only"
    open_log.server.run(f"ALTER DATABASE postgres SET {name} = on")
    other = open_log()
    try:
        with pytest.raises(LogDownError) as refused:
            await other.append(event(1), "k1")
        assert "primary" in refused.value.do
    finally:
        undo = f"ALTER DATABASE postgres RESET {name}"
        open_log.server.run(f"SET TRANSACTION READ WRITE; {undo}")


@pytest.mark.parametrize("open_log", ["redis", "valkey"], indirect=True)
async def test_notes_of_a_stranger_beside_the_topics_end_nothing(open_log):
    """`HSET` by somebody else: passed over, as an entry of the stream is."""
    log = open_log()
    await log.append(event(0), "k0")
    before = await log.newest()
    for topic, value in (("foo", "bar"), (b"\xff", "1-1"), ("a/b", b"\xff")):
        open_log.server.ask("HSET", "{updaterd}:newest", topic, value)
    assert await log.newest() == before
    assert (await log.bounds()).last == before[Topic("acme", "stable")]


@pytest.mark.parametrize("open_log", ["redis", "valkey"], indirect=True)
@pytest.mark.parametrize(("name", "value"), [("epoch", b"\xff"), ("floor", "low")])
async def test_log_whose_own_notes_are_damaged_is_down_and_says_so(
    open_log, name, value
):
    """Neither an end of the process nor cursors that nobody can read."""
    log = open_log()
    await log.append(event(0), "k0")
    open_log.server.ask("HSET", "{updaterd}:meta", name, value)
    with pytest.raises(LogDownError, match="something else has written") as caught:
        await log.bounds()
    assert "delete its keys" in caught.value.do


@pytest.mark.parametrize("open_log", ["sqlite"], indirect=True)
async def test_log_that_could_only_be_read_stays_when_worse_comes(open_log, tmp_path):
    """Damaged while it is read: announcements get 503, the server goes on."""
    log = open_log()
    await log.append(event(0), "k0")
    await log.close()
    path = tmp_path / "feed.db"
    path.with_name("feed.db-wal").symlink_to(tmp_path / "nowhere/wal")
    log = open_log()
    assert len(await log.read(ZERO, 9)) == 1
    with pytest.raises(LogDownError, match="can only be read"):
        await log.append(event(1), "k1")
    with path.open("r+b") as file:
        file.write(b"no database")
    with pytest.raises(LogDownError, match="file is not a database"):
        await log.append(event(1), "k1")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://feed:100%sure@db.example/feed",
        "postgresql://feed:100%sure@[::1/feed",
        "postgresql://feed:100%sure@[::1]x/feed",
    ],
)
def test_password_that_breaks_an_address_is_not_said(url, tmp_path):
    """libpq quotes what it cannot read."""
    with pytest.raises(BrokenError) as refused:
        opened(url, tmp_path)
    error = refused.value
    assert "sure" not in f"{error} {error.do} {error.__cause__!r}"
    assert "%XX" in error.do


@pytest.mark.parametrize("open_log", ["postgres"], indirect=True)
async def test_schema_in_the_address_holds(open_log, tmp_path):
    """What libpq is told there is not replaced by what we want of it."""
    open_log()
    open_log.server.run("CREATE SCHEMA feed")
    url = open_log.server.url + "&options=-csearch_path%3Dfeed"
    log = opened(url, tmp_path)
    try:
        await log.append(event(0), "k0")
        open_log.server.run("DELETE FROM feed.updaterd_event")
        assert await log.read(ZERO, 9) == ()
    finally:
        await log.close()
        open_log.server.run("DROP SCHEMA feed CASCADE")


async def test_database_that_lets_us_in_and_falls_silent_holds_no_shutdown(tmp_path):
    """Its first question is never answered; the server stops all the same."""
    asked = asyncio.Event()

    async def greet(reader, writer):
        await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)
        writer.write(b"R\0\0\0\x08\0\0\0\0" + b"Z\0\0\0\x05I")  # in, and ready
        await reader.readexactly(1)
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    options = "sslmode=disable&gssencmode=disable"
    log = opened(f"postgresql://x@127.0.0.1:{port}/x?{options}", tmp_path)
    async with server, asyncio.timeout(30):
        publishing = asyncio.create_task(log.append(event(0), "k0"))
        await asked.wait()
        await log.close()
        with pytest.raises(LogDownError):
            await publishing
