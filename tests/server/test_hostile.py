# SPDX-License-Identifier: Apache-2.0
"""Clients that mean harm, or behave as if: bounded memory, nobody else suffers."""

import asyncio
import contextlib
import re
import socket
from pathlib import Path

import pytest
from fakes.serving import (
    DEADLINE_S,
    Reader,
    announcement,
    publish,
    pushed,
    request,
)

MiB = 1 << 20


def memory(feed):
    """Return the server's own memory, in bytes."""
    rollup = Path(f"/proc/{feed.process.pid}/smaps_rollup").read_text()
    line = next(x for x in rollup.splitlines() if x.startswith("Anonymous:"))
    return int(line.split()[1]) * 1024


def connect(feed, receive_buffer=None):
    host, port = feed.url.removeprefix("http://").split(":")
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(DEADLINE_S)
    sock.connect((host, int(port)))
    return sock


@pytest.fixture
def crowd():
    """A stack that closes its sockets whatever happens."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def feed(start_feed, sink):
    return start_feed(
        *("--sink", sink, "--metrics", "open", "--max-per-address", "0"),
        *("--rate", "5000", "--heartbeat", "5"),
    )


async def test_readers_that_never_read_are_dropped_and_delay_nobody(feed, crowd, sink):
    """1,000 silent readers: memory bounded, the others get every event."""
    count = 1000
    silent = [
        crowd.enter_context(connect(feed, receive_buffer=4096)) for _ in range(count)
    ]
    for sock in silent:
        sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
    await feed.streams(count)
    token = feed.token("publish:acme/stable")
    before = memory(feed)
    async with Reader(feed.url) as reader:
        assert (await reader.next()).name == "hello"
        worst = 0
        for number in range(1, 30):
            filler = announcement("v" + "1" * 60, seq=number) | {
                "tuf": pushed(number, padding=100_000)
            }
            answer = await asyncio.to_thread(publish, feed.url, token, filler)
            assert answer.status == 201, answer.body
            assert (await reader.next()).json["seq"] == number
            worst = max(worst, memory(feed) - before)
        await feed.streams(1)
    dropped = f'updaterd_streams_ended_total{{reason="slow"}} {count}.0'
    assert dropped in feed.metrics()
    # the events themselves, and little for each reader: queues share their bytes
    assert worst < 200 * MiB


async def test_silent_reader_is_dropped_by_events_alone(start_feed, crowd, sink):
    """Its queue is bounded with every block, not only when a heartbeat comes."""
    feed = start_feed(
        *("--sink", sink, "--heartbeat", "3600", "--metrics", "open"),
    )
    token = feed.token("publish:acme/stable")
    for _ in range(3):
        sock = crowd.enter_context(connect(feed, receive_buffer=4096))
        sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
    await feed.streams(3)
    for number in range(1, 31):
        filler = announcement(seq=number) | {"tuf": pushed(number, padding=100_000)}
        answer = await asyncio.to_thread(publish, feed.url, token, filler)
        assert answer.status == 201, answer.body
    await feed.streams(0)
    assert 'updaterd_streams_ended_total{reason="slow"} 3.0' in feed.metrics()


async def test_old_cursors_of_silent_readers_cost_no_copies_of_the_log(feed, crowd):
    """Last-Event-ID from before the ring, a thousand times, and nobody reads."""
    token = feed.token("publish:acme/stable")
    ids = []
    for number in range(1, 91):  # more than the ring holds
        filler = announcement(seq=number) | {"tuf": pushed(number, padding=240_000)}
        answer = await asyncio.to_thread(publish, feed.url, token, filler)
        assert answer.status == 201, answer.body
        ids.append(answer.json["id"])
    cursor = ids[0]
    before = memory(feed)
    head = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {cursor}\r\n\r\n"
    for _ in range(1000):
        sock = crowd.enter_context(connect(feed, receive_buffer=4096))
        sock.sendall(head.encode())
    await feed.streams(1000)
    async with Reader(feed.url, headers={"Last-Event-ID": cursor}) as reader:
        for number in range(2, 91):
            assert (await reader.next()).json["seq"] == number
        assert (await reader.next()).name == "hello"
    # one page for all; the plain sink copies what it sends, an event for each
    assert memory(feed) - before < 300 * MiB


async def test_request_heads_without_end_are_cut(feed):
    """100 MB of head, in the target, in names or in values: refused early."""
    parts = (
        b"GET /" + b"a" * MiB,
        b"GET / HTTP/1.1\r\n" + b"X-A: " + b"b" * MiB,
        b"GET / HTTP/1.1\r\n" + b"Xxxxxxxx: y\r\n" * 80_000,
    )
    before = memory(feed)
    for part in parts:
        with connect(feed) as sock:
            sent = 0
            with contextlib.suppress(OSError):
                for _ in range(100):
                    sent += sock.send(part)
            assert sent < 20 * MiB  # what the kernel's buffers took
    assert memory(feed) - before < 20 * MiB
    assert request(f"{feed.url}/healthz").status == 200


async def test_head_too_large_is_told(feed):
    """431, for who made an honest mistake."""
    with connect(feed) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nX-A: " + b"b" * 40_000)
        assert sock.recv(4096).startswith(b"HTTP/1.1 431 ")


async def test_trailers_and_pipelines_without_end_are_cut(feed):
    """What comes after the head cannot fill memory either."""
    before = memory(feed)
    with connect(feed) as sock, contextlib.suppress(OSError):
        sock.sendall(
            b"GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        )
        for _ in range(20):
            sock.sendall(b"Xxxxxxxx: y\r\n" * 80_000)
    with connect(feed) as sock, contextlib.suppress(OSError):
        for _ in range(20):
            sock.sendall(b"GET /readyz HTTP/1.1\r\n\r\n" * 40_000)
    assert memory(feed) - before < 30 * MiB
    assert request(f"{feed.url}/healthz").status == 200


async def test_many_connects_from_one_address_leave_room_for_others(
    start_feed, sink, crowd
):
    """5,000 connects: the cap holds, memory too, another address is served."""
    feed = start_feed(
        *("--sink", sink, "--metrics", "open", "--max-per-address", "100"),
        *("--trusted-proxy", "127.0.0.2", "--rate", "100000"),
    )
    before = memory(feed)
    for _ in range(5000):
        sock = crowd.enter_context(connect(feed))
        with contextlib.suppress(OSError):
            sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
    assert memory(feed) - before < 50 * MiB
    host, port = feed.url.removeprefix("http://").split(":")
    with socket.socket() as other:
        other.settimeout(DEADLINE_S)
        other.bind(("127.0.0.3", 0))
        other.connect((host, int(port)))
        other.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert other.recv(4096).startswith(b"HTTP/1.1 200 ")
    with socket.socket() as other:
        other.settimeout(DEADLINE_S)
        other.bind(("127.0.0.2", 0))
        other.connect((host, int(port)))
        other.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        text = b""
        while not (found := re.search(rb"\nupdaterd_streams (\d+)\.", text)):
            text += other.recv(65536)
    assert int(found[1]) <= 101


async def test_silent_connections_are_closed(start_feed, sink):
    """Nobody holds a connection without asking anything."""
    feed = start_feed("--sink", sink, "--head-timeout", "0.5")
    with connect(feed) as sock, connect(feed) as slow:
        slow.sendall(b"GET / HTT")
        assert sock.recv(10) == b""
        with contextlib.suppress(ConnectionError):
            assert slow.recv(10) == b""


async def test_chatter_on_a_stream_ends_it(feed):
    """A stream is no place to send data to."""
    with connect(feed) as sock:
        sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        while b"hello" not in sock.recv(4096):
            pass
        with pytest.raises(OSError):  # noqa: PT012  whichever call notices
            for _ in range(1000):
                sock.sendall(b"x" * 65536)
    assert request(f"{feed.url}/healthz").status == 200


async def test_body_too_large_is_refused_unread(feed):
    """A publisher's gigabyte is not taken in."""
    token = feed.token("publish:acme/stable")
    answer = request(
        f"{feed.url}/v1/events",
        "POST",
        b"{" + b" " * (2 * MiB),
        authorization=f"Bearer {token}",
        idempotency_key="k",
    )
    assert (answer.status, answer.json["code"]) == (413, "too_large")
