# SPDX-License-Identifier: Apache-2.0
"""The subscription against bare sockets: WHATWG HTML 9.2.2, 9.2.3 and RFC 9110."""

import asyncio
import contextlib
import os
import socket

import httpx
import pytest
from fakes.certificates import make_certificate
from fakes.feed_server import (
    OK,
    FeedServer,
    answer,
    chunked,
    say,
    stream,
)

from updaterd.core.backoff import Backoff
from updaterd.core.sse import LimitError, Limits
from updaterd.errors import BrokenError
from updaterd.feed.client import ConnectionState, EventSource
from updaterd.feed.failure import FeedError

EVENT = b"data: a\n\n"
QUICK = Backoff(base=1e-5, cap=1e-3)
PATIENCE_S = 20  # a hang is a failure; no test waits so long


class Watched:
    """An EventSource whose states are kept."""

    def __init__(self, server, **more):
        self.states: list[ConnectionState] = []
        self.seen = asyncio.Event()
        more.setdefault("backoff", QUICK)
        url = more.pop("url", None) or server.url
        self.source = EventSource(url, on_state=self._take, **more)

    def _take(self, state):
        self.states.append(state)
        self.seen.set()

    async def __aenter__(self):
        self._patience = asyncio.timeout(PATIENCE_S)
        await self._patience.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self.source.aclose()
        await self._patience.__aexit__(*error)

    async def take(self, count=1):
        return [await anext(self.source) for _ in range(count)]

    async def until(self, phase, **also):
        """Iterate until a state comes; events on the way are dropped."""
        reading = asyncio.create_task(self.take(10**6))
        try:
            while True:
                for state in self.states:
                    if state.phase == phase and all(
                        getattr(state, name) == value for name, value in also.items()
                    ):
                        return state
                self.seen.clear()
                waiting = asyncio.create_task(self.seen.wait())
                await asyncio.wait(
                    {waiting, reading}, return_when=asyncio.FIRST_COMPLETED
                )
                waiting.cancel()
                if reading.done():
                    reading.result()
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await reading

    def codes(self):
        return [state.code for state in self.states if state.phase == "waiting"]


SERVERS = {"routes", "tls", "host", "greeting"}


@contextlib.asynccontextmanager
async def feeding(*answers, **more):
    """A server, and a subscription to it."""
    serving = {name: more.pop(name) for name in SERVERS & set(more)}
    async with FeedServer(*answers, **serving) as server, Watched(server, **more) as f:
        yield server, f


async def failed(*answers, code, **more):
    """Return the waiting state that the first answer leads to."""
    async with feeding(*answers, **more) as (_, feed):
        state = await feed.until("waiting")
        assert state.code == code
        return state


# ---- the request ----


async def test_what_is_asked():
    """A first request names what it accepts, no cache, and no id."""
    async with feeding(stream(EVENT)) as (server, feed):
        await feed.take()
    (request,) = server.requests
    assert (request.method, request.target) == ("GET", "/feed")
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["cache-control"] == "no-cache"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"].startswith("updaterd/")
    assert "last-event-id" not in request.headers


async def test_a_body_that_must_go_byte_for_byte():
    """As a signature over it wants; also where a redirect repeats it."""
    body = b'{"b" : 1,  "a":2}\r\n\xff'
    headers = {"Content-Type": "application/vnd.x+json"}
    routes = {
        "/feed": answer(307, "Location: /there"),
        "/there": stream(EVENT, ending="hold"),
    }
    async with feeding(routes=routes, method="POST", content=body, headers=headers) as (
        server,
        feed,
    ):
        await feed.take()
    for request in server.requests:
        assert request.body == body
        assert request.headers["content-type"] == headers["Content-Type"]
        assert request.headers["content-length"] == str(len(body))


async def test_a_request_has_one_body():
    with pytest.raises(ValueError, match="one body"):
        EventSource("http://127.0.0.1/", json={}, content=b"")


async def test_an_open_stream_says_what_it_was_asked_to_go_on_after():
    answers = stream(b"id: 7\n" + EVENT), stream(b"id:\n" + EVENT), stream(EVENT)
    async with feeding(*answers) as (_, feed):
        await feed.take(3)
    opened = [state for state in feed.states if state.phase == "open"]
    assert [state.resumed_after for state in opened] == ["", "7", ""]


async def test_parameters_join_the_query():
    params = [("product", "a"), ("product", "b"), ("channel", "s")]
    async with FeedServer(stream(EVENT)) as server:
        url = server.url + "?x=1"
        async with Watched(server, url=url, params=params) as feed:
            await feed.take()
    assert server.requests[0].target == "/feed?x=1&product=a&product=b&channel=s"


async def test_post_with_json():
    """A feed may be asked with POST and a body, at every reconnection."""
    async with feeding(stream(EVENT), method="POST", json={"q": 1}) as (server, feed):
        await feed.take(2)
    for request in server.requests:
        assert (request.method, request.body) == ("POST", b'{"q":1}')
        assert request.headers["content-type"] == "application/json"


async def test_callers_headers_are_sent_but_not_over_ours():
    headers = {"Authorization": "Bearer t", "Accept": "text/html"}
    async with feeding(stream(EVENT), headers=headers) as (server, feed):
        await feed.take()
    assert server.requests[0].headers["authorization"] == "Bearer t"
    assert server.requests[0].headers["accept"] == "text/event-stream"


async def test_headers_file(tmp_path):
    (tmp_path / "h").write_text("# secret\nX-Key: 1\n")
    async with feeding(stream(EVENT), headers_file=tmp_path / "h") as (server, feed):
        await feed.take()
    assert server.requests[0].headers["x-key"] == "1"


async def test_basic_credentials_of_the_address():
    async with FeedServer(stream(EVENT)) as server:
        url = server.url.replace("//", "//u:p@")
        async with Watched(server, url=url) as feed:
            await feed.take()
    assert server.requests[0].headers["authorization"] == "Basic dTpw"


async def test_a_header_that_cannot_be_sent_is_the_owners_mistake():
    async with feeding(stream(EVENT), headers={"X": "a\nb"}) as (_, feed):
        with pytest.raises(BrokenError) as caught:
            await feed.take()
    assert caught.value.code == "bad_header"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "feed",
        "ftp://a/",
        "http://",
        "http://a:x/",
        "http://a:0/",
        "http://a:65536/",
    ],
)
def test_an_address_that_cannot_be_used(url):
    with pytest.raises(BrokenError):
        EventSource(url)


# ---- Last-Event-ID ----


async def test_last_event_id_is_sent_on_reconnection():
    async with feeding(stream(b"id: 1\n" + EVENT)) as (server, feed):
        await feed.take(3)
    assert [r.headers.get("last-event-id") for r in server.requests] == [None, "1", "1"]


async def test_last_event_id_to_start_with():
    async with feeding(stream(EVENT), last_event_id="7") as (server, feed):
        (event,) = await feed.take()
    assert server.requests[0].headers["last-event-id"] == "7"
    assert event.id == "7"
    assert not event.identified


async def test_last_event_id_is_utf8():
    async with feeding(stream("id: …é\n".encode() + EVENT)) as (server, feed):
        await feed.take(2)
    assert server.requests[1].headers["last-event-id"] == "…é"


async def test_an_empty_id_is_not_sent():
    answers = stream(b"id: 1\n" + EVENT), stream(b"id\n" + EVENT)
    async with feeding(*answers) as (server, feed):
        await feed.take(3)
    ids = [r.headers.get("last-event-id") for r in server.requests]
    assert ids == [None, "1", None]


async def test_an_id_without_data_counts():
    """An `id:` alone in its block moves the cursor, and the caller hears of it."""
    moved = []
    answers = stream(b"id: 1\n" + EVENT + b"id: 2\n\n"), stream(EVENT, ending="hold")
    async with feeding(*answers, on_cursor=moved.append) as (server, feed):
        await feed.take(2)
    assert server.requests[1].headers["last-event-id"] == "2"
    assert moved == ["2"]


async def test_an_unfinished_id_does_not_count():
    answers = stream(b"id: 1\n" + EVENT + b"id: 2\ndata: x\n"), stream(EVENT)
    async with feeding(*answers) as (server, feed):
        _, second = await feed.take(2)
    assert server.requests[1].headers["last-event-id"] == "1"
    assert second.data == "a"


@pytest.mark.parametrize(
    "raw", [b" 1", b"1 ", b"\t1", b"a\x01b", b"\x7f", b"a\x1fb", b"x" * 5000]
)
async def test_an_id_that_no_header_can_carry(raw):
    """It is kept and given out, not sent, and that is said."""
    answers = stream(b"id: " + raw + b"\n" + EVENT), stream(EVENT, ending="hold")
    async with feeding(*answers) as (server, feed):
        one, two = await feed.take(2)
    assert one.id == two.id == raw.decode()
    assert "last-event-id" not in server.requests[1].headers
    assert "cannot be sent" in feed.states[-1].note


@pytest.mark.parametrize("raw", ["a b", "a\tb", "1.2-3", "{'a': \"b\"}", "%0d%0aX: 1"])
async def test_an_id_that_a_header_can_carry(raw):
    async with feeding(stream(EVENT, ending="hold"), last_event_id=raw) as (
        server,
        feed,
    ):
        await feed.take()
    assert server.requests[0].headers["last-event-id"] == raw
    assert not feed.states[-1].note


# ---- the answer ----


@pytest.mark.parametrize(
    "kind",
    [
        "text/event-stream",
        "text/event-stream;",
        "text/event-stream;charset=utf-8",
        "text/event-stream; charset=windows-1252",
        "Text/Event-Stream",
        "text/event-stream ;x=y",
    ],
)
async def test_content_types_of_feeds(kind):
    """Parameters are ignored: the stream is UTF-8 whatever `charset` says."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode()
    async with feeding(say(head, "data: é\n\n".encode())) as (_, feed):
        assert (await feed.take())[0].data == "é"


@pytest.mark.parametrize(
    "line",
    [
        "Content-Type: text/plain",
        "Content-Type: text/event-stream-x",
        "Content-Type: text/x-event-stream",
        "Content-Type: application/json",
        "Content-Type: text/html; x=text/event-stream",
        "Content-Type:",
        "X-Nothing: here",
    ],
)
async def test_content_types_of_other_things(line):
    """A captive portal's page is no feed: said so, asked again slowly."""
    head = f"HTTP/1.1 200 OK\r\n{line}\r\n\r\n".encode()
    state = await failed(say(head + EVENT), code="content_type")
    assert state.retry_in_s >= QUICK.cap


@pytest.mark.parametrize("status", [201, 202, 205, 206, 299, 300, 304, 305, 306])
async def test_other_answers_are_no_feed(status):
    head = answer(status, "Content-Type: text/event-stream")
    state = await failed(head, code=f"http_{status}")
    assert state.retry_in_s >= QUICK.cap


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 407, 410, 418, 451])
async def test_refusals_are_retried_slowly(status):
    """A person must act; a fleet does not hammer meanwhile."""
    state = await failed(answer(status), code=f"http_{status}")
    assert state.retry_in_s >= QUICK.cap


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_troubles_are_retried_soon(status):
    state = await failed(answer(status), code=f"http_{status}", draw=lambda: 0.0)
    assert state.retry_in_s == 0


async def test_204_stops_until_told_otherwise():
    async with feeding(answer(204), stream(EVENT)) as (server, feed):
        assert [event async for event in feed.source] == []
        assert feed.states[-1].phase == "stopped"
        assert feed.states[-1].code == "http_204"
        assert len(server.requests) == 1
        assert len(await feed.take()) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["Retry-After: 120"], 120),
        (["Retry-After: 0"], 0),
        (["Retry-After: 999999999999"], 3600),
        (["Retry-After: soon"], 0),
        (["Retry-After: -5"], 0),
        (["Retry-After: Sun, 06 Nov 1994 08:51:37 GMT"], 30),
        (["Retry-After: Sunday, 06-Nov-94 08:51:37 GMT"], 30),
        (["Retry-After: Sun Nov  6 08:51:37 1994"], 30),
        (["Retry-After: Sun, 06 Nov 1994 08:00:00 GMT"], 0),
        (
            [
                "Retry-After: Mon, 01 Jan 2035 00:01:00 GMT",
                "Date: Mon, 01 Jan 2035 00:00:00 GMT",
            ],
            60,
        ),
    ],
)
async def test_retry_after(headers, seconds):
    """Both forms; a date counts from the answer's own, then from our clock."""
    state = await failed(
        answer(503, *headers),
        code="http_503",
        draw=lambda: 0.0,
        wall=lambda: 784111867.0,  # 06 Nov 1994 08:51:07
    )
    assert state.retry_in_s == seconds


async def test_a_compressed_stream_is_refused():
    head = OK.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    await failed(say(head), code="content_encoding")


@pytest.mark.parametrize("coding", ["", "identity", "Identity"])
async def test_no_compression_may_be_said_in_any_way(coding):
    line = f"\r\nContent-Encoding: {coding}\r\n\r\n".encode()
    async with feeding(say(OK.replace(b"\r\n\r\n", line), EVENT)) as (_, feed):
        assert len(await feed.take()) == 1


async def test_of_several_content_types_the_last_one_counts():
    """A proxy added what was there already (Fetch, "extract a MIME type")."""
    head = OK.replace(b"\r\n", b"\r\nContent-Type: text/plain\r\n", 1)
    async with feeding(say(head, EVENT)) as (_, feed):
        assert len(await feed.take()) == 1


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:9"], ids=["direct", "httpx"])
async def test_cookies_are_neither_kept_nor_sent(monkeypatch, proxy):
    """A feed that sets another one each time would fill the memory of years."""
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    line = b"\r\nSet-Cookie: a=b; Path=/\r\n\r\n"
    async with feeding(say(OK.replace(b"\r\n\r\n", line), EVENT)) as (server, feed):
        await feed.take(3)
    assert len(server.requests) >= 3
    assert all("cookie" not in request.headers for request in server.requests)


# ---- framing ----


async def test_without_framing_events_are_not_held_back():
    """Nothing waits for a buffer to fill or for the next chunk."""
    async with feeding(stream(EVENT, ending="hold")) as (_, feed):
        assert (await feed.take())[0].data == "a"


async def test_a_cr_stream_is_not_held_back():
    async with feeding(stream(b"data: a\r\r", ending="hold")) as (_, feed):
        assert (await feed.take())[0].data == "a"


async def test_chunks_cut_anywhere():
    text = "id: 1\ndata: é😀\n\n".encode()
    pieces = [text[i : i + 1] for i in range(len(text))]
    async with feeding(chunked(*pieces, ending="hold")) as (_, feed):
        assert (await feed.take())[0].data == "é😀"


async def test_content_length():
    body = b"data: a\n\ndata: b\n\n"
    reply = answer(200, "Content-Type: text/event-stream", body=body)
    async with feeding(reply) as (_, feed):
        assert [event.data for event in await feed.take(2)] == ["a", "b"]


async def test_http_1_0():
    head = OK.replace(b"HTTP/1.1", b"HTTP/1.0")
    async with feeding(say(head, EVENT)) as (_, feed):
        assert (await feed.take())[0].data == "a"


async def test_each_stream_may_have_a_bom():
    async with feeding(stream(b"\xef\xbb\xbf" + EVENT)) as (_, feed):
        assert [event.data for event in await feed.take(2)] == ["a", "a"]


async def test_nothing_leaks_into_the_next_stream():
    """Neither data nor a type nor half a line outlives its connection."""
    answers = stream(b"event: t\ndata: lost\nda"), stream(b"ta: x\n" + EVENT)
    async with feeding(*answers) as (_, feed):
        (event,) = await feed.take()
    assert (event.event, event.data) == ("message", "a")


async def test_beyond_the_limits():
    """What came before is given out, then it reconnects and says why."""
    answers = stream(b"id: 1\n" + EVENT + b":" * 99, ending="hold"), stream(EVENT)
    limits = Limits(line=20, event=20)
    async with feeding(*answers, limits=limits) as (server, feed):
        await feed.take(2)
    assert feed.codes()[0] == "stream_limit"
    assert server.requests[1].headers["last-event-id"] == "1"


# ---- redirects ----


def to(location, status=302):
    return answer(status, f"Location: {location}")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(status):
    routes = {"/feed": to("/moved", status), "/moved": stream(EVENT, ending="hold")}
    async with feeding(routes=routes, last_event_id="5") as (server, feed):
        await feed.take()
    assert [r.target for r in server.requests] == ["/feed", "/moved"]
    assert server.requests[1].headers["last-event-id"] == "5"


@pytest.mark.parametrize(
    ("status", "remembered"), [(301, 1), (308, 1), (302, 0), (303, 0), (307, 0)]
)
async def test_permanent_redirects_are_remembered(status, remembered):
    routes = {"/feed": to("/moved", status), "/moved": stream(EVENT)}
    async with feeding(routes=routes) as (server, feed):
        await feed.take(2)
    asked = [r.target for r in server.requests]
    again = ["/moved"] if remembered else ["/feed", "/moved"]
    assert asked == ["/feed", "/moved", *again]


async def test_only_the_permanent_part_of_a_chain_is_remembered():
    routes = {
        "/feed": to("/b", 301),
        "/b": to("/c", 302),
        "/c": to("/d", 301),
        "/d": stream(EVENT),
    }
    async with feeding(routes=routes) as (server, feed):
        await feed.take(2)
    asked = "".join(r.target[1] for r in server.requests)
    assert asked == "fbcd" + "bcd"


async def test_a_permanent_redirect_to_no_feed_is_not_remembered():
    """A captive portal's 301 does not outlive the portal."""
    answers = to("/login", 301), answer(200, "Content-Type: text/html"), stream(EVENT)
    async with feeding(*answers) as (server, feed):
        await feed.take()
    assert [r.target for r in server.requests] == ["/feed", "/login", "/feed"]


async def test_a_permanent_redirect_that_stops_working_is_forgotten():
    routes = {"/feed": to("/moved", 301), "/moved": stream(EVENT)}
    async with feeding(routes=routes) as (server, feed):
        await feed.take()
        routes["/moved"] = answer(500)
        await feed.until("waiting", attempt=5)
        routes["/feed"] = stream(EVENT, ending="hold")
        await feed.take()
    assert server.requests[-1].target == "/feed"


async def test_redirects_are_bounded():
    state = await failed(to("/feed"), code="redirect")
    assert "more than" in state.error
    assert state.retry_in_s >= QUICK.cap


@pytest.mark.parametrize(
    "location",
    [
        "ftp://a/b",
        "javascript:alert(1)",
        "data:text/event-stream,",
        "http://a:x/",
        "http://\x01/",
    ],
)
async def test_redirects_that_are_not_followed(location):
    await failed(to(location), code="redirect")


@pytest.mark.parametrize(
    "location",
    [f"http://{'a' * 70}.invalid/", "http://a..b/", "http://127.0.0.1:99999/"],
    ids=["label too long", "empty label", "no such port"],
)
async def test_redirects_to_nowhere_do_not_end_the_subscription(location):
    """Whatever the resolver thinks of a name that a feed has made up."""
    async with feeding(to(location), stream(EVENT)) as (_, feed):
        assert len(await feed.take()) == 1
    assert feed.codes()


async def test_a_broken_tls_record_does_not_end_the_subscription(tmp_path):
    ca_file, context = make_certificate(tmp_path)

    async def break_record(_request, reader, writer):
        writer.write(OK + b": hi\n\n")
        await writer.drain()
        os.write(writer.get_extra_info("socket").fileno(), b"\x17\x03\x03\x00\x20" * 9)
        await reader.read()

    answers = break_record, stream(EVENT)
    async with feeding(*answers, tls=context, ca_file=ca_file) as (_, feed):
        await feed.take()
    assert feed.codes() == ["tls"]


async def test_a_redirect_without_a_location():
    await failed(answer(302), code="redirect")


@pytest.mark.parametrize(
    ("status", "method"),
    [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")],
)
async def test_what_a_post_becomes(status, method):
    """Fetch, HTTP-redirect fetch step 12."""
    routes = {"/feed": to("/moved", status), "/moved": stream(EVENT, ending="hold")}
    async with feeding(routes=routes, method="POST", json=[1]) as (server, feed):
        await feed.take()
    last = server.requests[1]
    assert last.method == method
    assert last.body == (b"[1]" if method == "POST" else b"")
    assert ("content-type" in last.headers) == (method == "POST")


SECRETS = {"Authorization": "Bearer s", "X-Api-Key": "s", "Cookie": "s=s"}


async def test_credentials_stay_within_the_origin():
    """Another port is another origin; a way back does not bring them back."""
    async with FeedServer() as home, FeedServer() as away:
        home.routes = {
            "/feed": to(away.url),
            "/back": stream(EVENT, ending="hold"),
        }
        away.routes = {"/feed": to(home.url.replace("feed", "back"))}
        url = home.url.replace("//", "//user:secret@")
        async with Watched(home, url=url, headers=SECRETS) as feed:
            await feed.take()
    assert home.requests[0].headers["x-api-key"] == "s"
    assert home.requests[0].headers["authorization"].startswith("B")
    for request in (away.requests[0], home.requests[1]):
        assert not {"authorization", "x-api-key", "cookie"} & set(request.headers)
        assert request.headers["accept"] == "text/event-stream"


async def test_credentials_of_a_client_stay_too(tmp_path):
    (tmp_path / "h").write_text("X-Key: s\nAuthorization: Bearer s\n")
    async with FeedServer() as home, FeedServer(stream(EVENT)) as away:
        home.routes = {"/feed": to(away.url, 308)}
        async with Watched(home, headers_file=tmp_path / "h") as feed:
            await feed.take(2)
    assert len(home.requests) == 1
    assert len(away.requests) == 2
    for request in away.requests:
        assert not {"authorization", "x-key"} & set(request.headers)


async def test_a_redirect_does_not_choose_who_we_are():
    async with FeedServer() as home, FeedServer(stream(EVENT)) as away:
        home.routes = {"/feed": to(away.url.replace("//", "//evil:evil@"))}
        async with Watched(home) as feed:
            await feed.take()
    assert "authorization" not in away.requests[0].headers


async def test_credentials_follow_within_the_origin():
    routes = {"/feed": to("/moved"), "/moved": stream(EVENT, ending="hold")}
    async with FeedServer(routes=routes) as server:
        url = server.url.replace("//", "//u:p@")
        async with Watched(server, url=url, headers={"X-Key": "s"}) as feed:
            await feed.take()
    assert server.requests[1].headers["x-key"] == "s"
    assert server.requests[1].headers["authorization"] == "Basic dTpw"


# ---- what breaks, told apart ----


async def test_refused():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
        async with Watched(None, url=url) as feed:
            state = await feed.until("waiting")
    assert state.code == "refused"


async def test_no_such_name(monkeypatch):
    async def nowhere(*_args, **_kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", nowhere)
    async with Watched(None, url="http://feed.invalid/") as feed:
        state = await feed.until("waiting")
    assert state.code == "dns"
    assert "not known" in state.error


async def test_reset():
    await failed(stream(b": hi\n", ending="reset"), code="reset")


async def test_reset_before_the_answer():
    await failed(say(ending="reset"), code="reset")


async def test_closed_without_an_answer():
    await failed(say(), code="closed")


async def test_ended_stream():
    await failed(stream(b": hi\n"), code="closed")


async def test_cut_in_the_middle_of_a_chunk():
    await failed(chunked(b": hi\n", end=False), code="cut")


async def test_not_http():
    await failed(say(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), code="protocol")


async def test_headers_that_never_end():
    """Bytes keep coming, the deadline stands."""
    drip = say(b"HTTP/1.1 200 OK\r\nX: ", *[b"x"] * 10**4, pause_s=0.01)
    await failed(drip, code="header_timeout", header_deadline_s=0.1)


async def test_headers_without_bound():
    flood = say(b"HTTP/1.1 200 OK\r\n", *[b"X: " + b"x" * 2**16] * 64)
    await failed(flood, code="protocol")


async def test_no_answer_at_all():
    await failed(say(ending="hold"), code="header_timeout", header_deadline_s=0.05)


async def test_silence():
    await failed(stream(ending="hold"), code="idle_timeout", idle_timeout_s=0.05)


async def test_any_byte_ends_the_silence():
    """Heartbeats, and even parts of one, keep a stream open beyond the timeout."""
    drip = stream(*[b":"] * 20, b"\n" + EVENT, pause_s=0.05)
    async with feeding(drip, idle_timeout_s=0.5) as (_, feed):
        await feed.take()
    assert feed.codes() == []


async def test_tls_that_nobody_vouches_for(tmp_path):
    _, context = make_certificate(tmp_path)
    async with feeding(stream(EVENT), tls=context) as (_, feed):
        state = await feed.until("waiting")
    assert state.code == "tls"
    assert "certificate" in state.error.lower()


async def test_tls_with_a_private_ca(tmp_path):
    ca_file, context = make_certificate(tmp_path)
    async with feeding(stream(EVENT), tls=context, ca_file=ca_file) as (_, feed):
        assert (await feed.take())[0].data == "a"


async def test_silence_under_tls_is_no_tls_failure(tmp_path):
    ca_file, context = make_certificate(tmp_path)
    more = {"tls": context, "ca_file": ca_file, "idle_timeout_s": 0.05}
    await failed(stream(ending="hold"), code="idle_timeout", **more)


async def test_a_reset_under_tls_is_no_tls_failure(tmp_path):
    ca_file, context = make_certificate(tmp_path)
    more = {"tls": context, "ca_file": ca_file}
    await failed(stream(b": hi\n", ending="reset"), code="reset", **more)


async def test_tls_where_plain_http_answers():
    async with FeedServer(greeting=b"HTTP/1.1 400 Bad\r\n\r\n") as server:
        url = server.url.replace("http:", "https:")
        async with Watched(server, url=url) as feed:
            state = await feed.until("waiting")
    assert state.code == "tls"


async def test_from_https_to_http_is_refused(tmp_path):
    ca_file, context = make_certificate(tmp_path)
    async with (
        FeedServer(stream(EVENT)) as plain,
        FeedServer(to(plain.url), tls=context) as server,
        Watched(server, ca_file=ca_file) as feed,
    ):
        state = await feed.until("waiting")
    assert state.code == "redirect"
    assert plain.requests == []


async def test_over_ipv6():
    try:
        async with feeding(stream(EVENT), host="::1") as (_, feed):
            assert (await feed.take())[0].data == "a"
    except OSError:
        pytest.skip("no IPv6 here")


# ---- proxies ----


async def test_a_proxy_of_the_environment(monkeypatch):
    async with FeedServer(stream(EVENT)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/feed"))
        monkeypatch.delenv("no_proxy", raising=False)
        async with Watched(None, url="http://feed.invalid/x") as feed:
            await feed.take()
    assert proxy.requests[0].target == "http://feed.invalid/x"


async def test_no_proxy(monkeypatch):
    async with FeedServer(stream(EVENT)) as server:
        monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with Watched(server) as feed:
            await feed.take()
    assert server.requests[0].target == "/feed"


async def test_a_proxy_of_the_configuration():
    async with FeedServer(stream(EVENT)) as proxy:
        address = proxy.url.removesuffix("/feed")
        async with Watched(None, url="http://feed.invalid/x", proxy=address) as feed:
            await feed.take()
    assert proxy.requests[0].target == "http://feed.invalid/x"


async def test_a_proxy_that_refuses_the_tunnel():
    async with FeedServer(answer(403)) as proxy:
        address = proxy.url.removesuffix("/feed")
        async with Watched(None, url="https://feed.invalid/x", proxy=address) as feed:
            state = await feed.until("waiting")
    assert state.code == "proxy"


def test_socks_without_its_package():
    """The error names what to install."""
    try:
        import socksio  # noqa: F401 # only whether it is there
    except ImportError:
        with pytest.raises(BrokenError) as caught:
            EventSource("http://a/", proxy="socks5://127.0.0.1:1")
        assert "updaterd[socks]" in caught.value.do


# ---- the loop ----


async def test_retry_of_the_stream_is_a_floor():
    answers = stream(b"retry: 250\n" + EVENT)
    state = await failed(
        answers, code="closed", backoff=Backoff(base=1, cap=300), draw=lambda: 0.0
    )
    assert state.retry_in_s == 0.25


async def test_retry_is_remembered_beyond_its_stream():
    answers = stream(b"retry: 2000\n\n"), answer(503)
    async with FeedServer(*answers) as server:
        backoff = Backoff(base=1, cap=300)
        async with Watched(server, backoff=backoff, draw=lambda: 0.0) as feed:
            await feed.until("waiting", attempt=1)
            feed.source.wake()
            state = await feed.until("waiting", attempt=2)
    assert state.retry_in_s == 2


async def test_backoff_is_reset_by_an_event_not_by_a_200():
    empty, full = stream(), stream(EVENT)
    answers = empty, empty, answer(503), full, empty, full
    patient = {"backoff": Backoff(base=1, cap=300), "draw": lambda: 0.0}
    async with feeding(*answers, **patient) as (_, feed):
        await feed.take(2)
        attempts = [s.attempt for s in feed.states if s.phase == "waiting"]
    assert attempts == [1, 2, 3, 1, 2]


async def test_a_quiet_stream_that_held_long_is_no_storm():
    """A feed that rotates quiet streams does not drive the wait up for ever."""
    backoff = Backoff(base=1e-5, cap=0.02)
    quiet = stream(b":", b":", b":", pause_s=0.05)
    async with feeding(quiet, backoff=backoff) as (_, feed):
        await feed.until("waiting")
        for _ in range(3):
            feed.states.clear()
            assert (await feed.until("waiting")).attempt == 1


async def test_wake_ends_the_waiting():
    answers = answer(404), stream(EVENT)
    backoff = Backoff(base=1, cap=300)
    async with feeding(*answers, backoff=backoff) as (_, feed):
        state = await feed.until("waiting")
        assert state.retry_in_s >= 300
        feed.source.wake()
        await feed.take()


class Waking(Watched):
    """Is woken as soon as it is in a phase for the first time."""

    def __init__(self, server, *, phase, **more):
        super().__init__(server, **more)
        self.phase = phase

    def _take(self, state):
        super()._take(state)
        if state.phase == self.phase:
            self.phase = ""
            self.source.wake()


async def test_wake_during_an_attempt_is_not_forgotten_when_it_fails():
    """A token that came while the old one was refused: else it waits for minutes."""
    patient = Backoff(base=1, cap=300)
    async with (
        FeedServer(answer(401), stream(EVENT)) as server,
        Waking(server, phase="connecting", backoff=patient) as feed,
    ):
        await feed.take()
    assert len(server.requests) == 2


async def test_wake_of_an_open_stream_does_not_hurry_a_later_attempt():
    """Else all that were woken in a day come at once when the server is restarted."""
    patient = Backoff(base=1, cap=300)
    async with (
        FeedServer(stream(EVENT), stream(EVENT)) as server,
        Waking(server, phase="open", backoff=patient) as feed,
    ):
        await feed.until("waiting")
        reading = asyncio.create_task(feed.take())
        for _ in range(20):
            await asyncio.sleep(0)
        assert feed.states[-1].phase == "waiting"
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading


async def test_without_reconnection_the_end_is_the_end():
    async with feeding(stream(EVENT), reconnect=False) as (server, feed):
        assert [event.data async for event in feed.source] == ["a"]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (answer(503), "http_503"),
        (answer(404), "http_404"),
        (say(), "closed"),
        (chunked(EVENT, end=False), "cut"),
        (stream(EVENT, ending="reset"), "reset"),
    ],
)
async def test_without_reconnection_failures_are_raised(reply, code):
    async with feeding(reply, reconnect=False) as (_, feed):
        with pytest.raises(FeedError) as caught:
            await feed.take(9)
    assert caught.value.code == code


async def test_without_reconnection_the_parsers_error_is_raised():
    async with FeedServer(stream(EVENT + b"x" * 99)) as server:
        limits = Limits(line=20, event=20)
        async with Watched(server, reconnect=False, limits=limits) as feed:
            assert len(await feed.take()) == 1
            with pytest.raises(LimitError):
                await feed.take()


# ---- cancelling ----


async def test_cancelling_a_read_loses_nothing():
    """A caller's own timeouts neither drop the connection nor an event."""
    pieces = [b"data: %d\n" % i + b"\n" for i in range(20)]
    halves = [half for piece in pieces for half in (piece[:5], piece[5:])]
    async with feeding(stream(*halves, ending="hold", pause_s=0.003)) as (server, feed):
        got = []
        while len(got) < 20:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.002):
                    got += await feed.take()
    assert [event.data for event in got] == [str(i) for i in range(20)]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply", [say(ending="hold"), stream(ending="hold"), answer(404)], ids=str
)
async def test_closing_at_any_await(reply):
    """While connecting, reading or waiting: closing ends it, and leaves no task."""
    backoff = Backoff(base=1, cap=300)
    async with FeedServer(reply) as server:
        before = asyncio.all_tasks()
        feed = Watched(server, backoff=backoff)
        reading = asyncio.create_task(feed.take())
        await server.requested.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await feed.source.aclose()
        left = asyncio.all_tasks() - before
        assert not [t for t in left if t.get_coro().__name__ == "_advance"]


async def test_a_borrowed_client_is_not_closed():
    async with FeedServer(stream(EVENT)) as server, httpx.AsyncClient() as client:
        async with EventSource(server.url, client=client) as source:
            await anext(source)
        assert not client.is_closed


async def test_events_can_be_taken_many_at_a_time():
    async with feeding(stream(EVENT * 50, ending="hold")) as (_, feed):
        got = [*(await feed.take()), *feed.source.take_ready()]
        while len(got) < 50:
            got += [*(await feed.take()), *feed.source.take_ready()]
    assert len(got) == 50
