# SPDX-License-Identifier: Apache-2.0
"""Reports a second, CPU of each, bytes at rest, and what kills cost.

    python benchmarks/reports.py                    SQLite and PostgreSQL, 20,000 each
    python benchmarks/reports.py --reports 100000   more of them
    python benchmarks/reports.py --fleet 100000     beside so many machines of before
    python benchmarks/reports.py --kills 20         the server is killed so often

A real server process, real connections, requests of 8 reports as a machine sends
them after some time without a network. CPU is the server's own (and PostgreSQL's, all
of its processes, beside it), from /proc. What got its 202 must be there, once.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from fakes.postgres import PostgresProcess  # noqa: E402 # after the path is set
from fakes.reports import body, received, report  # noqa: E402 # after the path is set
from fakes.serving import FeedProcess, request  # noqa: E402 # after the path is set

from updaterd.server.reports.contract import Keeping  # noqa: E402 # as above
from updaterd.server.reports.registry import open_store  # noqa: E402 # as above

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
BATCH, CONNECTIONS = 8, 16


def cpu_s(pids):
    """Return the CPU of processes, those that they waited for included."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total * TICK_S


def family(pid):
    """Return a process and what descends from it."""
    done = subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
    )
    below = (family(int(word)) for word in done.stdout.split())
    return [pid, *(member for group in below for member in group)]


def requests_of(count):
    """Return the bodies of so many reports: 5 tags, 3 platforms, one in 20 is bad."""
    platforms = ("linux-x86_64", "linux-aarch64", "linux-armv7l")
    tags = ("staff", "berlin", "paris", "kiosk", "lab")
    now_ms = int(time.time() * 1000)
    reports = [
        report(
            n,
            platform=platforms[n % 3],
            tags=(tags[n % 5],),
            outcome="rolled_back" if n % 20 == 0 else "installed",
            event_ms=now_ms - 3000,
            seen_s=0.1, fetched_s=1.2, staged_s=1.9, activated_s=2.0,
        )
        for n in range(count)
    ]  # fmt: skip
    return [body(*reports[at : at + BATCH]) for at in range(0, count, BATCH)]


class Feeder:
    """Sends each request until it has its 202, over connections that stay open."""

    def __init__(self, bodies, place):
        self.todo = list(reversed(bodies))
        self.place = place
        self.again = 0
        self.done = 0
        self.waits = []

    async def run(self):
        await asyncio.gather(*(self._machine() for _ in range(CONNECTIONS)))

    async def _machine(self):
        reader = writer = None
        while self.todo:
            data = self.todo.pop()
            while True:
                try:
                    if writer is None:
                        parts = urlsplit(self.place[0])
                        reader, writer = await asyncio.open_connection(
                            parts.hostname, parts.port
                        )
                    began = time.perf_counter()
                    head = (
                        "POST /v1/reports HTTP/1.1\r\nHost: x\r\nReports-Age: "
                        f"{','.join(['1'] * BATCH)}\r\nContent-Length: {len(data)}\r\n"
                        "Content-Type: application/json\r\n\r\n"
                    )
                    writer.write(head.encode() + data)
                    answer = await reader.readuntil(b"\r\n\r\n")
                    status = int(answer.split(b" ", 2)[1])
                    if status != 202:
                        raise ConnectionError(status)
                    self.waits.append(time.perf_counter() - began)
                    self.done += 1
                    break
                except (OSError, asyncio.IncompleteReadError):
                    self.again += 1
                    if writer is not None:
                        writer.close()
                    reader = writer = None
                    await asyncio.sleep(0.05)  # as a machine pauses, only shorter
        if writer is not None:
            writer.close()


def releases(server):
    token = server.token("fleet:read")
    answer = request(
        f"{server.url}/v1/fleet/products/acme/channels/stable",
        authorization=f"Bearer {token}",
    )
    return json.loads(answer.body)["releases"]


def fill(url, state, machines):
    """Keep a report of each of so many machines of another product."""
    store = open_store(url, state=state, keeping=Keeping())
    for at in range(0, machines, 2000):
        store.add(received(*(
            report(n, product="other") for n in range(at, min(at + 2000, machines))
        )))  # fmt: skip
    store.close()


def bytes_of(state, database):
    """Return how many bytes the store has on its disk."""
    if database is None:
        return sum(path.stat().st_size for path in state.glob("reports.db*"))
    import psycopg

    with psycopg.connect(database.url) as db:
        (size,) = db.execute(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
            "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ).fetchone()
    return size


async def measure(kind, folder, options):
    count = options.reports // BATCH * BATCH
    kills, only, fleet = options.kills, options.only, options.fleet
    arguments = ["--reports", "open", "--reports-rate", "1000000"]
    arguments += ["--only", "reports"] if only else []
    database = None
    if kind == "postgres":
        place = folder / "pg"
        place.mkdir()
        database = PostgresProcess(place).init().start()
        arguments += ["--reports-store", database.url]
    state = folder / "state"
    state.mkdir(mode=0o700)
    fill(database.url if database else "", state, fleet)
    bodies = requests_of(count)
    server = FeedProcess(state, *arguments).start()
    address = [server.url]
    feeder = Feeder(bodies, address)
    began, spent = time.perf_counter(), 0.0
    before = cpu_s([server.process.pid])
    before_db = cpu_s(family(database.process.pid)) if database else 0.0
    sending = asyncio.create_task(feeder.run())
    for number in range(kills):
        share = (number + 1) / (kills + 1)
        while feeder.done < share * len(bodies) and not sending.done():  # noqa: ASYNC110 - counted, not signalled
            await asyncio.sleep(0.01)
        victim = database if database and number % 2 else None
        if victim:
            await asyncio.to_thread(victim.kill)
            await asyncio.to_thread(victim.start)
        else:
            spent += cpu_s([server.process.pid]) - before
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
            server = await asyncio.to_thread(FeedProcess(state, *arguments).start)
            address[0] = server.url
            before = cpu_s([server.process.pid])
    await sending
    seconds = time.perf_counter() - began
    spent += cpu_s([server.process.pid]) - before
    spent_db = cpu_s(family(database.process.pid)) - before_db if database else 0.0
    rows = await asyncio.to_thread(releases, server)
    counted = sum(sum(row["reports"].values()) for row in rows)
    machines = sum(row["running"] for row in rows)
    server.stop()
    size = bytes_of(state, database)
    if database is not None:
        database.stop()
    waits = sorted(feeder.waits)
    print(
        f"{kind:<9} {'alone' if only else 'feed':<6} {count:>8} {count / seconds:>8.0f}"
        f" {1e6 * spent / count:>8.0f} {1e6 * spent_db / count:>8.0f}"
        f" {1000 * waits[len(waits) // 2]:>7.1f}"
        f" {1000 * waits[int(0.99 * len(waits))]:>7.1f}"
        f" {float(size) / (count + fleet):>7.0f} {kills:>5} {feeder.again:>6}"
        f" {count - min(counted, machines):>5} {max(counted, machines) - count:>6}",
        flush=True,
    )
    assert counted == machines == count, (counted, machines, count)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, default=20_000)
    parser.add_argument("--fleet", type=int, default=0, help="machines before")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--store", choices=("sqlite", "postgres"), action="append")
    parser.add_argument("--only", action="store_true", help="in a process of its own")
    arguments = parser.parse_args()
    print(
        f"{'store':<9} {'server':<6} {'reports':>8} {'a second':>8} {'CPU us':>8}"
        f" {'db us':>8} {'p50 ms':>7} {'p99 ms':>7} {'bytes':>7} {'kills':>5}"
        f" {'again':>6} {'lost':>5} {'double':>6}"
    )
    for kind in arguments.store or ("sqlite", "postgres"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o755)
            asyncio.run(measure(kind, folder, arguments))


if __name__ == "__main__":
    main()
