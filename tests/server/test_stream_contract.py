# SPDX-License-Identifier: Apache-2.0
"""What a subscriber may rely on, whichever sink writes its stream."""

import asyncio
import json
import signal
import socket

import pytest
from fakes.serving import (
    Reader,
    announcement,
    make_token,
    publish,
    pushed,
    request,
    wait_until,
)


def post(feed, *arguments, **more):
    answer = publish(feed.url, feed.publisher, announcement(*arguments, **more))
    assert answer.status == 201, answer.body
    return answer.json["id"]


async def test_stream_begins_with_retry_then_hello(shared_feed):
    """A new client is told when to come back, and gets a cursor at once."""
    async with Reader(shared_feed.url) as reader:
        hello = await reader.next()
        assert reader.status == 200
        assert reader.answer["content-type"].startswith("text/event-stream")
        assert reader.answer["cache-control"] == "no-cache"
        assert reader.answer["x-accel-buffering"] == "no"
        assert "date" in reader.answer
        assert len(reader.retry) == 1
        assert 1000 <= reader.retry[0] <= 3000
        assert (hello.name, hello.json) == ("hello", {"heartbeat_s": 0.5})
        assert hello.id


async def test_retry_differs_from_stream_to_stream(shared_feed):
    """A fleet of browsers is spread, although a browser draws nothing itself."""
    told = set()
    for _ in range(8):
        async with Reader(shared_feed.url) as reader:
            await reader.next()
            told.update(reader.retry)
    assert len(told) > 4


async def test_event_reaches_open_streams(shared_feed):
    """Contract: name, id and members of an announcement."""
    async with Reader(shared_feed.url) as reader:
        await reader.next()
        event_id = post(shared_feed, "2.0.0", seq=7)
        event = await reader.next()
        assert (event.id, event.name) == (event_id, "update_available")
        assert event.json == announcement("2.0.0", seq=7)


async def test_quiet_stream_gets_heartbeats(shared_feed):
    """Comment lines come by themselves."""
    async with Reader(shared_feed.url) as reader:
        await reader.next()
        waiting = asyncio.create_task(reader.next())
        while reader.heartbeats < 2:  # noqa: ASYNC110  the other task counts
            await asyncio.sleep(0.02)
        waiting.cancel()


async def test_missed_events_come_first_then_hello(shared_feed):
    """After a gap: every missed event once, in order, then live ones."""
    cursor = post(shared_feed, seq=1)
    missed = [post(shared_feed, seq=n) for n in range(2, 6)]
    async with Reader(shared_feed.url, headers={"Last-Event-ID": cursor}) as reader:
        events = await reader.take(5)
        assert [e.id for e in events] == [*missed, missed[-1]]
        assert events[-1].name == "hello"
        live = post(shared_feed, seq=6)
        assert (await reader.next()).id == live


async def test_current_cursor_gets_only_hello(shared_feed):
    """Nothing is told twice to a client that has it all."""
    cursor = post(shared_feed)
    async with Reader(shared_feed.url, headers={"Last-Event-ID": cursor}) as reader:
        hello = await reader.next()
        assert (hello.name, hello.id) == ("hello", cursor)


@pytest.mark.parametrize(
    "cursor",
    ["42", "nonsense", "00000000.1-1", "x" * 20000, "../../etc/passwd", "%00", "-1",
     "99999999999999999999-0"],
)  # fmt: skip
async def test_unknown_cursor_gets_resync(shared_feed, cursor):
    """An id that this log never gave: reconcile, with the cursor now."""
    newest = post(shared_feed)
    async with Reader(shared_feed.url, headers={"Last-Event-ID": cursor}) as reader:
        event = await reader.next()
        assert (event.name, event.id) == ("resync", newest)
        assert event.json["reason"] == "unknown_id"
        live = post(shared_feed)
        assert (await reader.next()).id == live


async def test_cursor_ahead_of_the_log_gets_resync(shared_feed):
    """An id from the future is no reason to wait for it."""
    newest = post(shared_feed)
    epoch = newest.partition(".")[0]
    ahead = f"{epoch}.999999999999999-0"
    async with Reader(shared_feed.url, headers={"Last-Event-ID": ahead}) as reader:
        event = await reader.next()
        assert (event.name, event.id) == ("resync", newest)
        assert event.json["reason"] == "id_ahead"


async def test_filters_select_products_and_channels(shared_feed):
    """Both filters repeat; an event must pass both."""
    query = "?product=acme&product=none&channel=stable&channel=beta"
    async with Reader(shared_feed.url, query) as reader:
        await reader.next()
        post(shared_feed, product="other")
        post(shared_feed, channel="nightly")
        wanted = [post(shared_feed), post(shared_feed, channel="beta")]
        assert [e.id for e in await reader.take(2)] == wanted


async def test_filters_hold_for_catch_up(shared_feed):
    """Missed events of other topics are not told."""
    cursor = post(shared_feed)
    post(shared_feed, product="other")
    wanted = post(shared_feed, channel="beta")
    newest = post(shared_feed, product="other")
    headers = {"Last-Event-ID": cursor}
    async with Reader(shared_feed.url, "?channel=beta", headers) as reader:
        events = await reader.take(2)
        assert [(e.name, e.id) for e in events] == [
            ("update_available", wanted),
            ("hello", newest),
        ]


@pytest.mark.parametrize("query", ["?product=a/b", "?channel=", "?product=%FF"])
async def test_filter_that_is_no_name_is_refused(shared_feed, query):
    """400 with a code, not a stream that never matches."""
    async with Reader(shared_feed.url, query) as reader:
        assert reader.status == 400
        assert json.loads(await reader.body())["code"] in {"bad_name", "bad_query"}


async def test_joins_between_publishes_miss_nothing_and_repeat_nothing(shared_feed):
    """Streams that open while events are published: each event once, in order."""
    cursor = post(shared_feed)

    async def reads(delay):
        await asyncio.sleep(delay)
        headers = {"Last-Event-ID": cursor}
        async with Reader(shared_feed.url, headers=headers) as reader:
            got = []
            while len(got) < 40:
                event = await reader.next()
                if event.name == "update_available":
                    got.append(event.id)
            return got

    readers = [asyncio.create_task(reads(n / 100)) for n in range(40)]
    ids = [await asyncio.to_thread(post, shared_feed, seq=n) for n in range(40)]
    assert all(got == ids for got in await asyncio.gather(*readers))


async def test_cross_origin_page_may_read(shared_feed):
    """CORS: the allowed origin is named, others are not."""
    headers = {"Origin": "https://shop.example"}
    async with Reader(shared_feed.url, headers=headers) as reader:
        assert reader.answer["access-control-allow-origin"] == "https://shop.example"
    async with Reader(shared_feed.url, headers={"Origin": "https://x.example"}) as no:
        assert "access-control-allow-origin" not in no.answer


def test_other_methods(shared_feed):
    """HEAD has no body, OPTIONS is for browsers, DELETE is not allowed."""
    url = f"{shared_feed.url}/v1/events"
    assert request(url, "HEAD").status == 200
    asked = request(url, "OPTIONS", origin="https://shop.example")
    assert asked.status == 204
    assert "last-event-id" in asked.headers["access-control-allow-headers"]
    assert request(url, "DELETE").status == 405


def test_request_of_http_1_0_gets_a_stream(shared_feed):
    """No chunks for who cannot read them: the end of the connection is the end."""
    host, port = shared_feed.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as sock:
        sock.sendall(b"GET /v1/events HTTP/1.0\r\n\r\n")
        got = b""
        while b"event: hello" not in got:
            data = sock.recv(4096)
            assert data, got
            got += data
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b"connection: close" in head
    assert b"transfer-encoding" not in head
    assert body.startswith(b"retry: ")  # and no chunk's length before it


def test_two_requests_on_one_connection(shared_feed):
    """A stream may follow another request on the same connection."""
    host, port = shared_feed.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        got = b""
        while b"event: hello" not in got:
            got += sock.recv(4096)
    assert got.count(b"200 OK") == 2


async def test_admission_refuses_with_time_to_come_back(start_feed, sink):
    """Beyond the rate: 503 with Retry-After, and places booked one after another."""
    feed = start_feed("--sink", sink, "--rate", "2")
    waits = []
    for _ in range(6):
        async with Reader(feed.url) as reader:
            if reader.status == 503:
                assert json.loads(await reader.body())["code"] == "too_many_at_once"
                waits.append(int(reader.answer["retry-after"]))
    assert len(waits) >= 3
    assert waits == sorted(waits)


async def test_one_address_has_a_limit(start_feed, sink):
    """The cap counts open streams, and gives places back."""
    feed = start_feed("--sink", sink, "--max-per-address", 2, "--metrics", "open")
    async with Reader(feed.url) as one:
        assert one.status == 200
        async with Reader(feed.url) as two, Reader(feed.url) as three:
            assert (two.status, three.status) == (200, 429)
            assert json.loads(await three.body())["code"] == "too_many_of_address"
        await feed.streams(1)
        async with Reader(feed.url) as four:
            assert four.status == 200


async def test_forwarded_address_counts_only_from_a_trusted_proxy(start_feed, sink):
    """X-Forwarded-For of anyone else is a lie."""
    feed = start_feed("--sink", sink, "--max-per-address", "1")
    one = Reader(feed.url, headers={"X-Forwarded-For": "192.0.2.1"})
    two = Reader(feed.url, headers={"X-Forwarded-For": "192.0.2.2"})
    async with one, two:
        assert (one.status, two.status) == (200, 429)
    feed.stop()
    feed.arguments += ("--trusted-proxy", "127.0.0.1")
    feed.start()
    async with Reader(feed.url, headers={"X-Forwarded-For": "192.0.2.1"}):
        headers = {"X-Forwarded-For": "192.0.2.9, 192.0.2.2"}
        async with Reader(feed.url, headers=headers) as yes:
            assert yes.status == 200
        async with Reader(feed.url, headers={"X-Forwarded-For": "192.0.2.1"}) as no:
            assert no.status == 429


async def test_private_feed_wants_a_token_with_read(start_feed, sink, tmp_path):
    """401 without, 403 with another scope, a stream with it; a cap per token."""
    repository = tmp_path / "public"
    (repository / "metadata").mkdir(parents=True)
    (repository / "metadata/1.root.json").write_bytes(b"secret")
    feed = start_feed(
        "--sink", sink, "--private", "--max-per-token", 1, "--repo", repository
    )
    reads = f"Bearer {feed.token('read')}"
    wrong = f"Bearer {feed.token('operate')}"
    async with Reader(feed.url) as no:
        assert (no.status, no.answer["www-authenticate"]) == (401, "Bearer")
    async with Reader(feed.url, headers={"Authorization": wrong}) as no:
        assert no.status == 403
    async with Reader(feed.url, headers={"Authorization": reads}) as yes:
        assert (await yes.next()).name == "hello"
        async with Reader(feed.url, headers={"Authorization": reads}) as second:
            assert second.status == 429
    url = f"{feed.url}/repo/metadata/1.root.json"
    assert request(url).status == 401
    assert request(url, authorization=reads).body == b"secret"


async def test_lifetime_ends_a_stream_properly(start_feed, sink):
    """Rotation: the response ends as HTTP says, not by a cut."""
    feed = start_feed("--sink", sink, "--heartbeat", "0.2", "--lifetime", "0.4")
    async with Reader(feed.url) as reader:
        assert (await reader.next()).name == "hello"
        assert await reader.next() is None
        assert reader.ended


async def test_sigterm_ends_streams_and_exits_zero(start_feed, sink):
    """Every stream ends properly within the grace period, then the process."""
    feed = start_feed("--sink", sink, "--grace", "2")
    readers = [Reader(feed.url) for _ in range(20)]
    for reader in readers:
        await reader.__aenter__()
        assert (await reader.next()).name == "hello"
    feed.process.send_signal(signal.SIGTERM)
    for reader in readers:
        assert await reader.next() is None
        assert reader.ended
        await reader.__aexit__()
    assert await asyncio.to_thread(feed.stop) == 0


async def test_restart_goes_on_where_it_was(start_feed, sink):
    """SIGKILL loses nothing that was acknowledged: cursors stay good."""
    feed = start_feed("--sink", sink)
    token = feed.token("publish:acme/stable")
    first = publish(feed.url, token, announcement(seq=1)).json["id"]
    second = publish(feed.url, token, announcement(seq=2)).json["id"]
    feed.stop(signal.SIGKILL)
    feed.start()
    async with Reader(feed.url, headers={"Last-Event-ID": first}) as reader:
        events = await reader.take(2)
        assert [e.id for e in events] == [second, second]


async def test_trimmed_cursor_gets_resync_but_a_quiet_channel_does_not(
    start_feed, sink
):
    """A cursor is good as long as nothing of its own topics was missed."""
    feed = start_feed("--sink", sink, "--keep-events", "3")
    token = make_token(feed.state, "publish:*/*")
    quiet = publish(feed.url, token, announcement(product="quiet")).json["id"]
    old = publish(feed.url, token, announcement(seq=1)).json["id"]
    for n in range(2, 12):
        newest = publish(feed.url, token, announcement(seq=n)).json["id"]
    feed.stop()
    feed.start()  # trims as it starts
    wait_until(lambda: "trimmed" in feed.log.read_text(), "trimmed")
    feed.stop()
    feed.start()  # nothing of it is in memory any more
    async with Reader(feed.url, headers={"Last-Event-ID": old}) as reader:
        event = await reader.next()
        assert (event.name, event.json["reason"]) == ("resync", "id_trimmed")
    headers = {"Last-Event-ID": quiet}
    async with Reader(feed.url, "?product=quiet", headers) as reader:
        event = await reader.next()
        assert (event.name, event.id) == ("hello", newest)


async def test_browser_is_told_to_wait_in_a_stream(start_feed, sink):
    """EventSource gives up for ever on 503, so it gets a `retry:` and the end."""
    feed = start_feed("--sink", sink, "--rate", "1")
    seen = []
    for _ in range(4):
        async with Reader(feed.url, headers={"Sec-Fetch-Mode": "cors"}) as reader:
            assert reader.status == 200
            assert reader.answer["content-type"].startswith("text/event-stream")
            if "content-length" in reader.answer or "transfer-encoding" not in (
                reader.answer
            ):
                body = await reader.reader.read()
                seen.append(int(body.decode().strip().removeprefix("retry: ")))
    assert len(seen) >= 2
    assert all(ms >= 1000 for ms in seen)


async def test_catch_up_larger_than_the_queue_arrives_whole(start_feed, sink):
    """Megabytes that were missed come as the reader takes them, then live events."""
    feed = start_feed("--sink", sink, "--metrics", "open")
    token = feed.token("publish:acme/stable")
    cursor = publish(feed.url, token, announcement(seq=0)).json["id"]
    for seq in range(1, 25):
        large = announcement(seq=seq) | {"tuf": pushed(seq, padding=240_000)}
        assert publish(feed.url, token, large).status == 201
    async with Reader(feed.url, headers={"Last-Event-ID": cursor}) as reader:
        seen = [(await reader.next()).json["seq"] for _ in range(5)]
        # events that come while it is still behind must not overtake
        for seq in (25, 26):
            assert publish(feed.url, token, announcement(seq=seq)).status == 201
        while len(seen) < 26:
            event = await reader.next()
            if event.name != "hello":
                seen.append(event.json["seq"])
    assert seen == list(range(1, 27))
    await feed.streams(0)
    assert 'reason="slow"' not in feed.metrics()
