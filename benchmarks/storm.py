# SPDX-License-Identifier: Apache-2.0
"""Simulate a reconnect storm, and run a real one on loopback.

    python benchmarks/storm.py            simulate: 100k and 1M clients, 1 s and 60 s
    python benchmarks/storm.py --real     5,000 streams, a server killed and restarted

Every stream breaks in the same instant. The clients wait as `core/backoff.py` says,
with the `retry:` that `server/streams/admission.py` gave each of them before; one that
is back lets in, or refuses with Retry-After, by that same code. Counted are attempts
to connect in each second, those into the void included. `browser` clients wait
exactly their `retry:`, as EventSource does.

`before` is what a fleet does without any of this: one fixed `retry:` for all.
"""

import argparse
import asyncio
import heapq
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from updaterd.core.backoff import Backoff
from updaterd.server.streams.admission import Admission

SCENES = (
    # clients, capacity a second (one replica has 2,000), outage in seconds
    (100_000, 2_000, 1),
    (100_000, 2_000, 60),
    (1_000_000, 6_000, 1),
    (1_000_000, 6_000, 60),
)


def simulate(clients, capacity, outage_s, kind, seed=1):
    """Return attempts by second, refusals, and when the last client was back."""
    draw = random.Random(seed).random
    backoff = Backoff()
    before = Admission(rate=capacity, burst=capacity, now=0.0)
    # as streams that joined a full fleet, or were told since (Streams.beat)
    retries = [before.retry_ms(clients, draw=draw()) / 1000 for _ in range(clients)]
    if kind == "before":
        retries = [3.0] * clients

    def wait(client, attempt, after=0.0):
        if kind == "updaterd":
            return backoff.delay(
                attempt, draw=draw(), retry=retries[client], after=after
            )
        return max(retries[client], after)

    # a replica that has just been started knows nothing of the fleet
    after = Admission(rate=capacity, burst=capacity, now=float(outage_s))
    queue = [(wait(client, 1), client, 1) for client in range(clients)]
    heapq.heapify(queue)
    seconds, refused, back = Counter(), 0, 0.0
    while queue:
        now, client, attempt = heapq.heappop(queue)
        seconds[int(now)] += 1
        if now < outage_s:
            again = wait(client, attempt + 1)
        else:
            refusal = 0 if kind == "before" else after.admit(now, draw=draw())
            if not refusal:
                back = now
                continue
            refused += 1
            again = wait(client, attempt + 1, refusal)
        heapq.heappush(queue, (now + again, client, attempt + 1))
    return seconds, refused, back


def simulated(scenes):
    row = "{:>9} {:>9} {:>7} {:<9} {:>10} {:>6} {:>8} {:>9}"
    print(row.format("clients", "capacity", "outage", "fleet", "peak/s", "ratio",
                     "refused", "all back"))  # fmt: skip
    worst = 0.0
    for clients, capacity, outage_s in scenes:
        for kind in ("before", "browser", "updaterd"):
            seconds, refused, back = simulate(clients, capacity, outage_s, kind)
            peak = max(seconds.values())
            print(
                row.format(
                    clients,
                    capacity,
                    f"{outage_s} s",
                    kind,
                    peak,
                    round(peak / capacity, 2),
                    refused,
                    f"{back:.0f} s",
                ),
                flush=True,
            )
            if kind != "before":
                worst = max(worst, peak / capacity)
    print(f"worst peak: {worst:.2f} x capacity")
    return worst


class Machine(asyncio.Protocol):
    """A client of the fleet: no more than a stream, its `retry:`, and the backoff."""

    def __init__(self, fleet):
        self.fleet = fleet
        self.retry_s = 3.0
        self.attempt = 0
        self.after_s = 0.0
        self.open = False

    def connection_made(self, transport):
        transport.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def data_received(self, data):
        if data.startswith(b"HTTP/1.1 200"):
            self.open, self.attempt, self.after_s = True, 0, 0.0
            self.fleet.open += 1
        elif refusal := re.match(
            rb"HTTP/1.1 503.*?retry-after: (\d+)", data, re.DOTALL
        ):
            self.after_s = float(refusal[1])
            self.fleet.refused += 1
        for match in re.finditer(rb"retry: (\d+)\n", data):
            self.retry_s = int(match[1]) / 1000

    def connection_lost(self, _error):
        if self.open:
            self.open = False
            self.fleet.open -= 1
        self.again()

    def again(self):
        self.attempt += 1
        delay = self.fleet.backoff.delay(
            self.attempt, draw=random.random(), retry=self.retry_s, after=self.after_s
        )
        self.fleet.loop.call_later(delay, self.fleet.connect, self)


class Fleet:
    def __init__(self, port):
        self.port = port
        self.backoff = Backoff()
        self.loop = asyncio.get_running_loop()
        self.open = self.refused = 0
        self.attempts = Counter()
        self.tasks = set()

    def connect(self, machine):
        task = self.loop.create_task(self._connect(machine))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _connect(self, machine):
        self.attempts[int(self.loop.time())] += 1
        try:
            await self.loop.create_connection(lambda: machine, "127.0.0.1", self.port)
        except OSError:
            machine.again()


def serve(folder, port, rate):
    address = folder / "address"
    address.unlink(missing_ok=True)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "updaterd", "serve", "--state", folder / "state"),
            *("--port", str(port), "--address-file", address, "--rate", str(rate)),
            *("--max-per-address", "0", "--heartbeat", "2"),
        ],
        stdin=subprocess.DEVNULL,
        stderr=(folder / "log").open("ab"),
    )
    while not address.exists():
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.02)
    return process, int(address.read_text().rsplit(":", 1)[1])


async def storm(streams, rate, folder, outage_s):
    process, port = serve(folder, 0, rate)
    fleet = Fleet(port)
    try:
        for n in range(streams):
            fleet.connect(Machine(fleet))
            if n % 20 == 19:
                await asyncio.sleep(20 / (0.8 * rate))
        while fleet.open < streams:  # noqa: ASYNC110  counted elsewhere
            await asyncio.sleep(0.1)
        # two turns of the heartbeats: early streams hear how large the fleet became
        await asyncio.sleep(4)
        fleet.attempts.clear()
        fleet.refused = 0
        process.kill()
        process.wait()
        began = fleet.loop.time()
        await asyncio.sleep(outage_s)
        process, _ = await asyncio.to_thread(serve, folder, port, rate)
        while fleet.open < streams:  # noqa: ASYNC110  counted elsewhere
            await asyncio.sleep(0.1)
        took = fleet.loop.time() - began
        peak = max(fleet.attempts.values())
        print(
            f"{streams} streams, capacity {rate}/s, killed for {outage_s} s: "
            f"peak {peak}/s = {peak / rate:.2f} x capacity, "
            f"{fleet.refused} refused, all back after {took:.0f} s"
        )
        return peak / rate
    finally:
        process.kill()
        process.wait()


def real(streams, rate):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(storm(streams, rate, Path(folder), 3))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument(
        "--small", action="store_true", help="a tenth of the smaller fleet: seconds"
    )
    arguments = parser.parse_args()
    if arguments.real:
        return 0 if real(arguments.streams, arguments.rate) <= 1.5 else 1
    small = [(n // 10, capacity // 10, outage) for n, capacity, outage in SCENES[:2]]
    worst = simulated(small if arguments.small else SCENES)
    return 0 if worst <= 1.5 else 1


if __name__ == "__main__":
    sys.exit(main())
