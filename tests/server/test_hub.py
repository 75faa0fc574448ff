# SPDX-License-Identifier: Apache-2.0
"""The hub: no gap between catch-up and live, from ring and log alike."""

import asyncio
import json

import pytest

from updaterd.server.client_address import Proxies
from updaterd.server.listener import Listener
from updaterd.server.log.contract import ZERO, Event, Retention, Topic, write_id
from updaterd.server.log.sqlite import SqliteLog
from updaterd.server.options import Options
from updaterd.server.port.guard import Guard
from updaterd.server.process import FeedServer
from updaterd.server.streams import frames
from updaterd.server.streams.hub import Hub
from updaterd.server.streams.opening import Behind, Opening
from updaterd.server.streams.request import read_request
from updaterd.server.streams.ring import Filter
from updaterd.server.streams.sink_fast import FastStream

EVERYTHING = Filter(frozenset(), frozenset())


def event(number, product="acme", size=0):
    data = json.dumps({"n": number, "x": "y" * size}).encode()
    return Event("update_available", Topic(product, "stable"), data)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  counted by the hub's task
            await asyncio.sleep(0.01)


class Reader:
    """A sink that remembers; unlimited, as `streams` sees to limits."""

    port = None

    def __init__(self):
        self.blocks = []

    def write(self, block):
        self.blocks.append(block)

    def numbers(self):
        lines = b"".join(block.plain for block in self.blocks).split(b"\n")
        found = [json.loads(x[6:]) for x in lines if x.startswith(b"data: ")]
        return [data["n"] for data in found if "n" in data]


class Silence:
    """An observer that is told and forgets."""

    def __init__(self):
        self.count = 0

    def recalled(self, record):
        pass

    def log_down(self, error):
        pass

    def log_up(self):
        pass

    def arrived(self, record):
        pass

    def first_write(self, record):
        pass

    def delivered(self, count):
        self.count += count


@pytest.fixture
async def log(tmp_path, clock):
    log = SqliteLog(tmp_path / "feed.db", retention=Retention(count=50), now=clock)
    yield log
    await log.close()


@pytest.fixture
async def hub(log):
    """A hub with a ring of a few events, and slices of three streams."""
    hub = Hub(log, observer=Silence(), heartbeat_s=15, ring_bytes=3000, slice_size=3)
    await hub.start()
    task = asyncio.create_task(hub.run())
    yield hub
    task.cancel()


async def enter(hub, reader, cursor, wanted=EVERYTHING):
    """Join as `Streams` does: opening and join in one step."""

    async def drained():
        await asyncio.sleep(0)

    opening = hub.opening(wanted, cursor)
    if isinstance(opening, Behind):
        opening = await hub.backlog(wanted, cursor, reader.write, drained, most=1000)
    for block in opening.missed:
        reader.write(block)
    reader.write(opening.greeting)
    hub.join(reader, wanted)
    return opening.kind


async def test_readers_from_everywhere_get_everything_after_their_cursor(hub, log):
    """Cursors in the ring, in the log only, and at the start, while events come."""
    places = [ZERO]
    readers = []
    joining = []
    for number in range(200):
        appended = await log.append(event(number, size=100), f"k{number}")
        places.append(appended.position)
        if number % 10 == 5:
            for back in (1, 5, 20, 40):
                start = max(0, number + 1 - back)
                reader = Reader()
                readers.append((start, reader))
                cursor = write_id(hub.epoch, places[start])
                joining.append(asyncio.create_task(enter(hub, reader, cursor)))
    assert set(await asyncio.gather(*joining)) == {"replay"}
    await hub.reached(places[-1])
    await until(lambda: all(199 in reader.numbers() for _, reader in readers))
    for start, reader in readers:
        assert reader.numbers() == list(range(start, 200))


class TrimmedLog(SqliteLog):
    """Trimmed by its upkeep whenever somebody is about to read a page."""

    async def read(self, after, limit):
        await self.trim()
        return await super().read(after, limit)


async def test_slow_catch_up_during_trimming_misses_nothing_in_silence(tmp_path, clock):
    """What a reader got is without a hole, or it was told `resync`."""
    log = TrimmedLog(tmp_path / "feed.db", retention=Retention(count=50), now=clock)
    hub = Hub(log, observer=Silence(), heartbeat_s=15, ring_bytes=300)
    await hub.start()
    task = asyncio.create_task(hub.run())
    places = [
        (await log.append(event(n, size=100), f"k{n}")).position for n in range(49)
    ]
    await hub.reached(places[-1])
    for start in (0, 10, 30):
        reader, count = Reader(), len(places)

        async def drained(reader=reader, last=count + 200):
            """Be slow: new events come, and old ones are trimmed, between two pages."""
            for n in range(len(places), min(len(places) + 20, last)):
                added = await log.append(event(n, size=100), f"k{n}")
                places.append(added.position)
            await asyncio.sleep(0)

        cursor = write_id(hub.epoch, places[start])
        opening = await hub.backlog(EVERYTHING, cursor, reader.write, drained, most=100)
        for block in opening.missed:
            reader.write(block)
        numbers = reader.numbers()
        assert numbers == list(range(start + 1, start + 1 + len(numbers)))
        if opening.kind != "resync":
            assert numbers[-1] >= count - 1
    task.cancel()
    await log.close()


async def test_gap_in_the_log_makes_everybody_look_anew(tmp_path, clock):
    """Trimmed before the hub read it: `resync`, and older cursors are not believed."""
    log = SqliteLog(tmp_path / "feed.db", retention=Retention(count=10), now=clock)
    hub = Hub(log, observer=Silence(), heartbeat_s=15)
    before = (await log.append(event(0), "k0")).position
    await hub.start()
    reader = Reader()
    await enter(hub, reader, "")
    for number in range(1, 60):
        await log.append(event(number), f"k{number}")
    await log.trim()

    task = asyncio.create_task(hub.run())
    await hub.reached((await log.bounds()).last)
    await until(lambda: 59 in reader.numbers())

    assert list(range(50, 60)) == reader.numbers()
    assert b"event: resync" in reader.blocks[1].plain
    assert isinstance(hub.opening(EVERYTHING, write_id(hub.epoch, before)), Behind)
    assert "resync" == await enter(hub, Reader(), write_id(hub.epoch, before))
    task.cancel()
    await log.close()


async def test_crowd_far_behind_holds_one_copy_of_a_small_page(hub, log):
    """Old cursors of readers that do not read: the log is not copied for each."""
    for number in range(60):
        await log.append(event(number, size=20_000), f"k{number}")
    await hub.reached((await log.bounds()).last)

    async def never():
        await asyncio.Event().wait()

    written, tasks = [], []
    for _ in range(50):
        blocks = []

        async def drained(blocks=blocks):
            if sum(len(block.plain) for block in blocks) > 100_000:
                await never()

        written.append(blocks)
        behind = hub.backlog(
            EVERYTHING, write_id(hub.epoch, ZERO), blocks.append, drained, most=1000
        )
        tasks.append(asyncio.create_task(behind))
    await until(lambda: all(len(blocks) == 5 for blocks in written))
    reader = Reader()  # the others' silence is nothing to it
    assert await asyncio.wait_for(enter(hub, reader, write_id(hub.epoch, ZERO)), 30)
    assert reader.numbers() == list(range(60))
    assert len({id(block) for blocks in written for block in blocks}) == 5
    held = [task.get_coro().cr_frame.f_locals["page"].missed for task in tasks]
    assert max(sum(len(block.plain) for block in page) for page in held) < 100_000
    for task in tasks:
        task.cancel()


async def test_stream_that_joins_during_a_fan_out_gets_the_event_once(hub, log):
    """Between two slices of one delivery, streams come and go."""
    readers = [Reader() for _ in range(50)]
    for reader in readers:
        await enter(hub, reader, "")
    late, gone = [], readers[25:30]

    async def come_and_go():
        await hub.reached((await log.bounds()).last)
        for reader in gone:
            hub.leave(reader, EVERYTHING)
        for _ in range(20):
            reader = Reader()
            late.append(reader)
            await enter(hub, reader, write_id(hub.epoch, ZERO))
            await asyncio.sleep(0)

    for number in range(5):
        await log.append(event(number), f"k{number}")
        await come_and_go()
    stayed = late + readers[:25] + readers[30:]
    await until(lambda: all(len(reader.numbers()) >= 5 for reader in stayed))
    for reader in stayed:
        assert reader.numbers() == [0, 1, 2, 3, 4]


async def test_event_is_encoded_once(hub, log):
    """All streams are written the very same bytes."""
    readers = [Reader() for _ in range(5)]
    for reader in readers:
        await enter(hub, reader, "")
    appended = await log.append(event(1), "k")
    await hub.reached(appended.position)
    await until(lambda: all(r.numbers() for r in readers))
    assert len({id(reader.blocks[-1]) for reader in readers}) == 1


async def test_groups_keep_no_one_who_left(hub):
    """A fleet that is gone leaves nothing behind."""
    for n in range(100):
        wanted = Filter(frozenset({f"p{n}"}), frozenset())
        reader = Reader()
        await enter(hub, reader, "", wanted)
        hub.leave(reader, wanted)
        hub.leave(reader, wanted)
    assert not hub._groups


async def test_cursor_of_another_replica_that_is_ahead_is_waited_for(hub, log):
    """A client that moved here before its last event did must not reconcile."""
    first = await log.append(event(0), "k0")
    await hub.reached(first.position)
    # what another replica has read already, and this hub is just about to
    ahead = await log.append(event(1), "k1")
    reader = Reader()
    kind = await asyncio.wait_for(enter(hub, reader, ahead.id), 10)
    assert kind == "replay"
    last = await log.append(event(2), "k2")
    await hub.reached(last.position)
    await until(lambda: reader.numbers() == [2])


def test_chunks_are_what_http_says():
    """RFC 9112 section 7.1: size in hexadecimal, CRLF, data, CRLF."""
    block = frames.block("1.2-3", "hello", b"{}")
    size, _, rest = block.chunk.partition(b"\r\n")
    assert int(size, 16) == len(block.plain)
    assert rest == block.plain + b"\r\n"


async def test_hello_carries_the_newest_id_even_of_other_topics(hub, log):
    """So that a quiet filter's cursor moves on."""
    appended = await log.append(event(0, "other"), "k")
    await hub.reached(appended.position)
    wanted = Filter(frozenset({"acme"}), frozenset())
    opening = hub.opening(wanted, write_id(hub.epoch, ZERO))
    assert isinstance(opening, Opening)
    assert opening.missed == ()
    assert appended.id.encode() in opening.greeting.plain


class Wire(asyncio.Transport):
    """A transport that leads nowhere."""

    def write(self, data):
        pass

    def abort(self):
        pass

    close = abort

    def is_closing(self):
        return False

    def get_write_buffer_size(self):
        return 0


@pytest.mark.parametrize("end", ["finish", "drop", "connection_lost"])
async def test_hub_writes_past_a_stream_only_while_it_would_pass_everything_on(
    end, tmp_path, world
):
    """Not while its reader lags, and never again once it has ended."""

    streams = FeedServer(Options(state=tmp_path), world).streams
    wire = Wire()
    request = read_request(b"", [], "127.0.0.1", Proxies())
    stream = FastStream(streams, request, "", wire)
    streams.begin(stream, "")
    assert stream.port is wire
    stream.pause_writing()
    assert stream.port is None
    stream.resume_writing()
    assert stream.port is wire
    getattr(stream, end)(*([None] if end == "connection_lost" else []))
    assert stream.port is None
    stream.resume_writing()
    assert stream.port is None


@pytest.mark.parametrize("full", [False, True])
async def test_connection_whose_buffer_is_full_becomes_no_fast_stream(
    full, tmp_path, world
):
    """The transport would never say so again, and all that comes be kept for it."""

    class Taker:
        def __init__(self):
            self.took = []

        def ask(self, request):
            return ""

        def take(self, request, token, transport, head):
            self.took.append(head)

    asked = []

    async def app(scope, _receive, _send):
        asked.append(scope["path"])

    guard = Guard(Options(state=tmp_path), 10, lambda: 0, taker=Taker())
    protocol = Listener(app, guard).protocol()
    protocol.connection_made(Wire())
    if full:
        protocol.pause_writing()
    protocol.data_received(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(0)
    assert len(guard.taker.took) == (not full)
    assert asked == ["/v1/events"] * full
    protocol.connection_lost(None)


@pytest.mark.parametrize(
    ("query", "headers", "cursor"),
    [
        (b"lastEventId=a.1-0", [], "a.1-0"),
        (b"product=a&lastEventId=old&lastEventId=a.1%2D0", [], "a.1-0"),
        (b"lastEventId=a.1-0", [(b"last-event-id", b"a.2-0")], "a.2-0"),
        (b"lastEventId=a.1-0", [(b"last-event-id", b"")], ""),
        (b"lastEventId=", [], ""),
        (b"lasteventid=a.1-0", [], ""),
    ],
)
def test_a_polyfill_names_its_last_event_in_the_query(query, headers, cursor):
    """It can set no header; where there is one, that counts."""
    request = read_request(query, headers, "127.0.0.1", Proxies())
    assert request.cursor == cursor
