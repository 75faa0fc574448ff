# SPDX-License-Identifier: Apache-2.0
"""Measure what opening a stream costs in Python: no sockets, no kernel, one process.

    python benchmarks/opening.py [--streams 10000] [--profile]

Each opening goes the whole way: a connection is made and counted, the request parsed,
judged (token, limits, admission), greeted, caught up, and joined. The transport below
only counts bytes, so what is measured is ours to change; `feed.py` has the rest. Each
opening is timed by itself with the thread's CPU clock; the rows are medians.

    plain     no filter, no token
    private   a filter, and a token of twenty that may read
    returns   the same, with a cursor in a ring of 1,000 events, one of them missed
    strangers the same as private, but no two requests are alike in their bytes
    far       the same as returns, but no two requests are alike
"""

import argparse
import asyncio
import cProfile
import pstats
import socket
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import uvloop

from updaterd.clocks import Draws
from updaterd.server.client_address import Proxies
from updaterd.server.http.publish import MetadataWatch
from updaterd.server.listener import Listener
from updaterd.server.log.contract import Event, Topic, write_id
from updaterd.server.log.sqlite import SqliteLog
from updaterd.server.metrics import Metrics
from updaterd.server.observer import Observer
from updaterd.server.options import Options
from updaterd.server.port.guard import Guard
from updaterd.server.streams.hub import Hub
from updaterd.server.streams.ledger import SharedLedger, make_memory
from updaterd.server.streams.sink_fast import Takeover
from updaterd.server.streams.streams import Streams, World
from updaterd.server.tokens import Tokens

EVENTS = 1000
AIMS = {"plain": 100, "private": 100, "returns": 40, "strangers": 100, "far": 100}


class Wire(asyncio.Transport):
    """A connection that takes everything and goes nowhere."""

    def __init__(self, sock, address):
        super().__init__()
        self._extra = {"socket": sock, "peername": (address, 50_000)}
        self.written = 0
        self.protocol = None

    def get_extra_info(self, name, default=None):
        return self._extra.get(name, default)

    def write(self, data):
        self.written += len(data)

    def set_protocol(self, protocol):
        self.protocol = protocol

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return False

    def abort(self):
        raise AssertionError("refused")

    close = abort


async def server(folder, private, shared):
    """Return a listener, its streams, and the newest event's id but one."""
    world = World(time.monotonic, time.time, Draws())
    if shared:
        ledger = SharedLedger(make_memory(2), seats=2, seat=1)
        world = World(time.monotonic, time.time, Draws(), ledger)
    options = Options(
        state=folder, private=private, rate=1e9, max_streams=10**6, max_per_address=1000
    )
    metrics = Metrics(now=time.time)
    log = SqliteLog(folder / "feed.db", now=time.time, retention=options.retention)
    for number in range(EVENTS):
        data = b'{"product":"acme","channel":"stable","seq":%d}' % number
        event = Event("update_available", Topic("acme", "stable"), data)
        await log.append(event, f"k{number}")
    watch = MetadataWatch(None, None)
    hub = Hub(log, observer=Observer(metrics, watch), heartbeat_s=15)
    await hub.start()
    tokens = Tokens(folder)
    streams = Streams(options, hub, tokens=tokens, metrics=metrics, world=world)
    streams.ready = True
    guard = Guard(options, 10**6, lambda: streams.detached, proxies=Proxies())
    guard.taker = Takeover(streams)
    records = await log.read((await log.bounds()).floor, EVENTS)
    cursor = write_id(hub.epoch, records[-2].position)
    await log.close()
    return Listener(None, guard), streams, cursor


def secrets_of(folder, count=20):
    tokens = Tokens(folder)
    return [
        tokens.create(("read",), name=f"r{n}", now=time.time)[1] for n in range(count)
    ]


async def measure(kind, count, shared, profile):
    """Return the microseconds of each opening."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        known = secrets_of(folder) if kind != "plain" else []
        listener, streams, cursor = await server(folder, kind != "plain", shared)
        sock = socket.socket()
        head = [b"GET /v1/events%b HTTP/1.1", b"Host: updates.example"]
        head += [b"Accept: text/event-stream", b"User-Agent: updaterd/1"]
        query = b""
        if known:
            query = b"?product=acme&channel=stable"
        if kind in {"returns", "far"}:
            head.append(b"Last-Event-ID: " + cursor.encode())
        took, wires = [], []
        for n in range(count):
            lines = list(head)
            if known:
                lines.append(b"Authorization: Bearer " + known[n % 20].encode())
            if kind in {"strangers", "far"}:
                lines.append(b"X-Request-Id: %d" % n)
            request = b"\r\n".join([*lines, b"", b""]) % query
            wire = Wire(sock, f"127.0.{n // 200 % 200}.{n % 200}")
            wires.append(wire)
            if n % 100 == 0:
                await asyncio.sleep(0)  # as between two packets: the loop turns
            if profile:
                profile.enable()
            began = time.thread_time_ns()
            protocol = listener.protocol()
            protocol.connection_made(wire)
            protocol.data_received(request)
            took.append((time.thread_time_ns() - began) / 1000)
            if profile:
                profile.disable()
        assert streams.count == count, streams.count
        assert all(wire.written for wire in wires)
        sock.close()
        return took


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--workers", action="store_true", help="the ledger of a host")
    parser.add_argument("--profile", action="store_true", help="where it goes")
    arguments = parser.parse_args()
    print("opening    median us   p10 us   p90 us   aim")
    for kind, aim in AIMS.items():
        profile = cProfile.Profile() if arguments.profile else None
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            took = runner.run(
                measure(kind, arguments.streams, arguments.workers, profile)
            )
        tenths = quantiles(took, n=10)
        print(
            f"{kind:<10} {median(took):>9.1f} {tenths[0]:>8.1f} {tenths[8]:>8.1f} "
            f"{aim:>5}",
            flush=True,
        )
        if profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(28)


if __name__ == "__main__":
    main()
