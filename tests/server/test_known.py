# SPDX-License-Identifier: Apache-2.0
"""Requests that were read before: they mean the same again, and are judged anew."""

import asyncio
import pickle

import pytest

from updaterd.server.client_address import Proxies
from updaterd.server.listener import Listener
from updaterd.server.options import Deadlines, Options
from updaterd.server.port.guard import Guard
from updaterd.server.streams.stream import Refusal

SECRET = "upd_" + "s" * 43
GET = b"GET /v1/events?product=acme HTTP/1.1\r\nHost: x\r\n"
WITH_TOKEN = GET + b"Authorization: Bearer " + SECRET.encode() + b"\r\n\r\n"
FORWARDED = GET + b"X-Forwarded-For: 192.0.2.%d\r\n\r\n"


class Wire(asyncio.Transport):
    def __init__(self, address):
        super().__init__({"peername": (address, 50_000)})
        self.said = b""
        self.closed = False
        self.is_cut = asyncio.Event()

    def write(self, data):
        self.said += data

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    def abort(self):
        self.is_cut.set()


class Taker:
    """Takes what it may; notes who asked for what."""

    def __init__(self):
        self.refusal = None
        self.asked, self.taken = [], []

    def ask(self, request):
        self.asked.append(request)
        return self.refusal or "id"

    def take(self, request, token, transport, head):
        transport.write(head)
        self.taken.append(request)


@pytest.fixture
async def door(tmp_path):
    """Returns a taker, the guard, and what speaks on a connection of its own."""
    taker = Taker()
    proxies = Proxies(["198.51.100.0/24"])
    options = Options(state=tmp_path, deadlines=Deadlines(closing_s=0.01))
    guard = Guard(options, 100, lambda: 0, taker, proxies=proxies)

    async def app(scope, receive, send):
        raise AssertionError("nothing here is for the application")

    listener = Listener(app, guard)

    def speak(*packets, address="192.0.2.1"):
        protocol, wire = listener.protocol(), Wire(address)
        protocol.connection_made(wire)
        for packet in packets:
            protocol.data_received(packet)
        return wire

    return taker, guard, speak


async def test_however_it_comes_it_means_the_same(door):
    """At once, again, byte by byte, or in two pieces."""
    taker, _, speak = door
    ways = [
        (WITH_TOKEN,), (WITH_TOKEN,), (WITH_TOKEN[:40], WITH_TOKEN[40:]),
        tuple(WITH_TOKEN[i : i + 1] for i in range(len(WITH_TOKEN))), (WITH_TOKEN,),
    ]  # fmt: skip
    for packets in ways:
        assert speak(*packets).said.startswith(b"HTTP/1.1 200 ")
    assert len(taker.taken) == len(ways)
    assert len(set(taker.taken)) == 1


async def test_who_may_is_asked_each_time(door):
    """A token that was revoked, a fleet that comes too fast: as if it were new."""
    taker, _, speak = door
    speak(WITH_TOKEN)
    taker.refusal = Refusal(401, "token_required")
    assert speak(WITH_TOKEN).said.startswith(b"HTTP/1.1 401 ")
    taker.refusal = Refusal(503, "too_many_at_once", 7)
    assert b"\r\nretry-after: 7\r\n" in speak(WITH_TOKEN).said
    assert len(taker.taken) == 1


async def test_each_counts_for_his_own_address(door):
    """Whoever said it first is not who says it now; nor is whoever a proxy names."""
    taker, _, speak = door
    for last in (1, 2, 1):
        speak(WITH_TOKEN, address=f"192.0.2.{last}")
    for last in (3, 4, 3):
        speak(FORWARDED % last, address="198.51.100.1")
    # the same words of somebody whom nobody believes
    speak(FORWARDED % 3, address="192.0.2.9")
    numbers = [request.address.rpartition(".")[2] for request in taker.asked]
    assert numbers == ["1", "2", "1", "3", "4", "3", "9"]


async def test_a_refusal_that_nobody_takes_has_the_time_of_any_refusal(door):
    """Known or new: it is an answer on its way, not a head that comes."""
    taker, _, speak = door
    speak(WITH_TOKEN)
    taker.refusal = Refusal(401, "token_required")
    new, known = speak(b"\r\n" + WITH_TOKEN), speak(WITH_TOKEN)
    async with asyncio.timeout(5):
        await new.is_cut.wait()
        await known.is_cut.wait()


@pytest.mark.parametrize(
    "packet",
    [
        WITH_TOKEN + WITH_TOKEN,
        WITH_TOKEN + b"POST /v1/events HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n\r\n" + WITH_TOKEN,
        WITH_TOKEN + b"\r\n",
    ],
)
async def test_what_is_more_than_one_request_is_read_each_time(door, packet):
    """Nothing that hides behind or before a request is known as a part of it."""
    _, guard, speak = door
    speak(packet)
    speak(packet)
    assert guard.memory.find(packet) is None
    speak(WITH_TOKEN)
    assert guard.memory.find(WITH_TOKEN) is not None


@pytest.mark.parametrize("packet", [b"", b"\r\n\r", b"GET", b"\r\n\r\n\r\n\r\n"])
async def test_what_is_no_request_is_never_known(door, packet):
    """Whatever it is told to keep: three bytes are no head."""
    _, guard, speak = door
    speak(WITH_TOKEN)
    guard.memory.keep(packet, guard.memory.find(WITH_TOKEN))
    assert guard.memory.find(packet) is None


async def test_a_refused_one_is_not_remembered(door):
    """Strangers must not fill it."""
    taker, guard, speak = door
    taker.refusal = Refusal(401, "token_required")
    speak(WITH_TOKEN)
    assert guard.memory.find(WITH_TOKEN) is None


async def test_no_secret_is_remembered(door):
    """Neither a token nor what it was sent in."""
    _, guard, speak = door
    speak(WITH_TOKEN)
    known = guard.memory.find(WITH_TOKEN)
    assert SECRET.encode() not in pickle.dumps((known, guard.memory))


async def test_it_has_an_end(door):
    """Who asks for something else each time makes it no larger."""
    taker, guard, speak = door
    packets = [GET + b"X: %d\r\n\r\n" % n for n in range(1100)]
    for packet in packets:
        speak(packet)
    known = [packet for packet in packets if guard.memory.find(packet)]
    assert packets[-1] in known
    assert len(known) <= 1024
    long = GET + b"X: " + b"a" * 4000 + b"\r\n\r\n"
    speak(long)
    assert guard.memory.find(long) is None
    assert taker.refusal is None
