# SPDX-License-Identifier: Apache-2.0
"""What reports do to the feed's fan-out: p99 of an announcement, without and with them.

    python benchmarks/beside.py              5,000 streams, 1,000 reports a second
    python benchmarks/beside.py --streams 1000 --reports 200 --turns 3

One server with many streams and `--reports open`. Announcements go to all of them:
first while nothing else comes, then while another process sends reports, eight in a
request, into the same server, then into a server of its own (`--only reports`). The
three take turns; medians are printed, and the ratio to the first. The aim is 1.2.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]

import feed  # noqa: E402 # the benchmark beside this one
import reports  # noqa: E402 # as above

AIM = 1.2
WAYS = ("none", "same process", "process of its own")


async def send(url, rate):
    """Send reports at a rate until killed; say how many were taken when asked to."""
    bodies = reports.requests_of(64 * reports.BATCH)
    parts = urlsplit(url)
    began, count = time.monotonic(), 0

    async def connection(number):
        nonlocal count
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while True:
            turn = count
            count += 1
            due = began + turn * reports.BATCH / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            body = fresh(bodies[turn % len(bodies)], turn)
            head = (
                "POST /v1/reports HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
                f"\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            status = int((await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1])
            assert status == 202, (number, status)

    async def tell():
        await asyncio.to_thread(sys.stdin.readline)
        print(count * reports.BATCH / (time.monotonic() - began), flush=True)
        os._exit(0)

    await asyncio.gather(tell(), *map(connection, range(reports.CONNECTIONS)))


def fresh(body, turn):
    """Return a request whose reports have ids that never came before."""
    documents = json.loads(body)
    for document in documents:
        document["id"] = f"{turn:08x}{document['id'][8:]}"
    return json.dumps(documents, separators=(",", ":")).encode()


def started(folder, name, *more):
    state, address = folder / name, folder / f"{name}.address"
    token = subprocess.run(
        [sys.executable, "-m", "updaterd", "token", "create", "--state", state,
         "--scope", "publish:*/*"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    command = [
        *(sys.executable, "-m", "updaterd", "serve", "--state", state, "--port", "0"),
        *("--address-file", address, "--max-per-address", "0", "--rate", "100000"),
        *("--reports", "open", "--reports-rate", "1000000", *more),
    ]
    return feed.Server("updaterd-fast", command, folder, token=token, address=address)


def measure(way, arguments, folder):
    """Return p50 and p99 in ms, and reports a second."""
    name = os.urandom(3).hex()
    server = started(folder, name)
    other = sender = None
    pace = 0.0
    try:
        if way != WAYS[0]:
            other = started(folder, f"{name}-own", "--only", "reports")
            port = (server if way == WAYS[1] else other).port
            command = [sys.executable, __file__, "--reports", str(arguments.reports)]
            sender = subprocess.Popen(
                [*command, "--send", f"http://127.0.0.1:{port}"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        readers = feed.read(server, arguments.streams, arguments.events, folder)
        time.sleep(1.0)
        publish = server.publisher()
        for number in range(1, arguments.events + 1):
            due = time.monotonic() + max(0.1, arguments.streams * 40e-6)
            publish(number)
            time.sleep(max(0, due - time.monotonic()))
        readers.wait(120)  # they end when they have everything
        out, _ = readers.communicate()
        if sender is not None:
            pace = float(sender.communicate("\n", timeout=30)[0])
        answer = json.loads(out)
        assert answer["lost"] == answer["doubled"] == 0, answer
        return answer["p50_us"] / 1000, answer["p99_us"] / 1000, pace
    finally:
        if sender is not None and sender.poll() is None:
            sender.kill()
        for process in (server, other):
            if process is not None:
                process.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--events", type=int, default=30)
    parser.add_argument("--reports", type=float, default=1000.0, help="a second")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--send", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.send:
        asyncio.run(send(arguments.send, arguments.reports))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    results = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        feed.compile_c("feed_readers", folder)
        for _ in range(arguments.turns):
            for way in WAYS:
                results[way].append(measure(way, arguments, folder))
    quiet = median(p99 for _, p99, _ in results[WAYS[0]])
    print(f"{arguments.streams} streams; reports go to\n"
          f"{'':<20} {'a second':>8} {'p50 ms':>8} {'p99 ms':>8} {'x':>6}")  # fmt: skip
    for way, rows in results.items():
        p50, p99, rate = (median(column) for column in zip(*rows, strict=True))
        print(f"{way:<20} {rate:>8.0f} {p50:>8.1f} {p99:>8.1f} {p99 / quiet:>6.2f}")
    print(f"the aim: {AIM} x")


if __name__ == "__main__":
    main()
