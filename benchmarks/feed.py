# SPDX-License-Identifier: Apache-2.0
"""Measure the feed server against its peers: memory, CPU, latency, loss.

    python benchmarks/feed.py [--streams 1000,5000,10000] [--events 100] [--json FILE]

Each server runs alone as one process on loopback and serves N streams, which one
C program reads (`feed_readers.c`, compiled here, as is `feed_epoll.c`, the bare
server that marks the limit). Memory is the server's private anonymous memory with
the streams open, less without, per stream. CPU is the server's time on a processor
(user and kernel, /proc/PID/task/*/schedstat) from before the first event to after
the last, per delivered event, what it costs to take the announcement included; idle
CPU is over one full turn of the heartbeats.

With --crowd, many streams on several workers, read by several processes from addresses
127.0.1.x, and then some that come back with a cursor. Kernel memory is that of the
whole machine, so both ends of each connection are in it. A soak of hours: `soak.py`.

Then the fast sink alone, with large events, next to readers that never read: what
becomes of the others' latency. Last, the aims, and whether they were reached. All of
it takes about eight minutes. The bare server and the fast sink take turns, three each,
and their rows are medians (`--quick`: one). sse-starlette gets a fifth of the events:
an event's cost does not depend on how many there are, but the hour does.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from updaterd.core.announcement import pack

HERE = Path(__file__).parent
HEARTBEAT_S = 15
CONNECTS_PER_S = 1500
TOPIC = {"product": "acme-" + "x" * 25, "channel": "stable-" + "x" * 25}
NOISE = "-" + "x" * 55  # about 300 bytes on the wire, with id and event name
LARGE = 20_000
SILENT = 1000
COMPARED = ("c-epoll", "updaterd-fast")  # taken in turn, TURNS times: a send's cost
TURNS = 3  # in the kernel differs by a third from one run to the next
AIMS = (
    # what, most, of which row
    ("KiB/stream", 2.5, "kib_per_stream"),
    ("us CPU/delivered", 8.0, "cpu_us_per_delivered"),
    ("x the C server", 1.6, "times_c"),
    ("idle us/stream/s", 1.5, "idle_us_per_stream_s"),
    ("lost, doubled, disordered", 0, "wrong"),
)


def compile_c(name, folder):
    out = folder / name
    subprocess.run(
        ["gcc", "-O2", "-o", out, HERE / f"{name}.c"],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return out


def _whole(answer):
    head, separator, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return separator and len(body) >= (int(length[1]) if length else 0)


def metadata(number, size):
    """Return pushed metadata that parses and does not compress, of about this size."""
    roles = {
        "timestamp": {"meta": {"snapshot.json": {"version": number}}},
        "snapshot": {"noise": os.urandom(size * 3 // 8).hex()},
    }
    return {role: pack(document_of(role, number, more)) for role, more in roles.items()}


def document_of(role, number, more):
    signed = {
        "_type": role,
        "version": number,
        "expires": "2099-01-01T00:00:00Z",
        **more,
    }
    document = {"signatures": [{"keyid": "k", "sig": "s"}], "signed": signed}
    return json.dumps(document).encode()


class Server:
    """A process, its port, and how it is told to publish."""

    def __init__(self, name, command, folder, *, token=None, address=None):
        self.name = name
        self.token = token
        self.log = (folder / f"{name}.log").open("wb")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL
        )
        if address is None:
            self.port = int(self.process.stdout.readline())
        else:
            end = time.monotonic() + 120
            while not address.exists():
                if time.monotonic() > end:
                    self.stop()
                    raise AssertionError("it never listened")
                time.sleep(0.02)
            self.port = int(address.read_text().rsplit(":", 1)[1])
            address.unlink()

    def publisher(self, size=0):
        connection = socket.create_connection(("127.0.0.1", self.port), 60)

        def publish(number):
            body = json.dumps(
                {
                    "schema": 1,
                    **TOPIC,
                    "version": f"{number}{NOISE}",
                    "seq": time.monotonic_ns() // 1000,
                    "urgency": "normal",
                    "spread_s": 0,
                    **({"tuf": metadata(number, size)} if size else {}),
                },
                separators=(",", ":"),
            ).encode()
            if self.name == "c-epoll":
                body = b"id: 1\nevent: update_available\ndata: " + body + b"\n\n"
            head = (
                "POST /v1/events HTTP/1.1\r\nHost: localhost\r\n"
                f"Authorization: Bearer {self.token}\r\nIdempotency-Key: {number}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body)  # in one: feed_epoll needs it so
            answer = b""
            while not _whole(answer):
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 201 "), answer

        return publish

    def pids(self):
        """Return the process and its workers."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [pid, *map(int, children.split())]

    def cpu_s(self):
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def memory(self):
        total = 0
        for pid in self.pids():
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            line = next(x for x in rollup.splitlines() if x.startswith("Anonymous:"))
            total += int(line.split()[1]) * 1024
        return total

    def stop(self):
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def kernel_memory():
    """Return what the kernel holds: slabs, and buffers of TCP; of the whole machine."""
    fields = dict(
        line.split(":") for line in Path("/proc/meminfo").read_text().splitlines()
    )
    slabs = int(fields["Slab"].split()[0]) * 1024
    tcp = re.search(
        r"^TCP: .* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE
    )
    return slabs + int(tcp[1]) * resource.getpagesize()


def start(name, folder, programs, workers=1):
    if name == "c-epoll":
        return Server(name, [programs / "feed_epoll"], folder)
    if name == "sse-starlette":
        script = HERE / "feed_sse_starlette.py"
        return Server(name, [sys.executable, script], folder)
    sink = name.rpartition("-")[2]
    state = folder / f"{name}-{os.urandom(3).hex()}"
    python = [sys.executable, "-m", "updaterd"]
    token = subprocess.run(
        [*python, "token", "create", "--state", state, "--scope", "publish:*/*"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    address = folder / "address"
    command = [
        *(*python, "serve", "--state", state, "--port", "0", "--sink", sink),
        *("--address-file", address, "--max-per-address", "0", "--rate", "100000"),
        *("--workers", str(workers), "--max-streams", "1000000"),
    ]
    return Server(name, command, folder, token=token, address=address)


def silent_streams(server, count):
    request = b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    held = []
    for _ in range(count):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(request)
        held.append(sock)
    return held


@dataclasses.dataclass
class Load:
    """What a server is to carry.

    Attributes:
        streams: read and timed.
        events: announced.
        size: bytes of each, 0 for small ones.
        silent: further streams that nobody reads.
        read: further streams that are read, but not timed.
        idle: whether a turn of the heartbeats is waited for.
    """

    streams: int
    events: int
    size: int = 0
    silent: int = 0
    read: int = 0
    idle: bool = False


def measure(name, load, programs):
    """Return what one server did under one load."""
    streams, events = load.streams, load.events
    server = start(name, programs, programs)
    held, beside = [], None
    try:
        # what the first streams make the process allocate once is not theirs
        read(server, 50, 1, programs).communicate("stop", timeout=20)
        time.sleep(0.5)
        held = silent_streams(server, load.silent)
        if load.read:
            beside = read(server, load.read, events, programs)
        time.sleep(0.5)
        before = server.memory()
        cpu = server.cpu_s()
        readers = read(server, streams, events, programs)
        opening = (server.cpu_s() - cpu) / streams
        time.sleep(0.5)
        memory = (server.memory() - before) / streams
        idle_us = None
        if load.idle:
            cpu = server.cpu_s()
            time.sleep(HEARTBEAT_S)
            idle_us = (server.cpu_s() - cpu) / streams / HEARTBEAT_S * 1e6
        publish = server.publisher(load.size)
        pause = max(0.1 if load.size else 0.05, streams * 25e-6)
        cpu = server.cpu_s()
        for number in range(1, events + 1):
            due = time.monotonic() + pause
            publish(number)
            time.sleep(max(0, due - time.monotonic()))
        with contextlib.suppress(subprocess.TimeoutExpired):
            readers.wait(60)  # they end by themselves when they have everything
        out, _ = readers.communicate("stop" if readers.poll() is None else None)
        cpu = server.cpu_s() - cpu
        result = json.loads(out)
        return {
            "server": name,
            "streams": streams,
            "events": events,
            "kib_per_stream": round(memory / 1024, 2),
            "cpu_us_per_opening": round(opening * 1e6, 1),
            "cpu_us_per_delivered": round(cpu / max(1, result["delivered"]) * 1e6, 2),
            "idle_us_per_stream_s": None if idle_us is None else round(idle_us, 2),
            "wrong": result["lost"] + result["doubled"] + result["disordered"],
            **result,
        }
    finally:
        server.stop()
        if beside is not None:
            beside.communicate("stop" if beside.poll() is None else None)
        for sock in held:
            sock.close()


def read(server, streams, events, programs, *more):
    """Open streams and read them; return once all are open."""
    numbers = (server.port, streams, events, CONNECTS_PER_S, *more)
    readers = subprocess.Popen(
        [programs / "feed_readers", *map(str, numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    opened = readers.stdout.readline().split()
    assert opened[:1] == ["open"], opened
    return readers


ROW = "{:<15} {:>7} {:>10} {:>8} {:>9} {:>9} {:>9} {:>8} {:>8} {:>5} {:>5} {:>5}"


def show(r):
    idle, times_c = r["idle_us_per_stream_s"], r.get("times_c")
    print(
        ROW.format(
            r["server"],
            r["streams"],
            r["kib_per_stream"],
            r["cpu_us_per_opening"],
            r["cpu_us_per_delivered"],
            "" if times_c is None else times_c,
            "" if idle is None else idle,
            round(r["p50_us"] / 1000, 1),
            round(r["p99_us"] / 1000, 1),
            r["lost"],
            r["doubled"],
            r["disordered"],
        ),
        flush=True,
    )


def compare(arguments, programs):
    """Measure every server with every number of streams."""
    print(ROW.format("server", "streams", "KiB/stream", "us/open", "us/deliv.", "x C",
                     "idle us/s", "p50 ms", "p99 ms",
                     "lost", "twice", "order"))  # fmt: skip
    results = []
    for streams in map(int, arguments.streams.split(",")):
        rows = {}
        for turn in range(1 if arguments.quick else TURNS):
            for name in arguments.servers.split(","):
                if name == "sse-starlette" and not find_spec("sse_starlette"):
                    print("sse-starlette is left out: pip install sse-starlette")
                    continue
                if turn and name not in COMPARED:
                    continue
                events = arguments.events
                if name == "sse-starlette":
                    events = max(1, events // 5)
                idle = name == "updaterd-fast" and not arguments.quick
                r = measure(name, Load(streams, events, idle=idle), programs)
                rows.setdefault(name, []).append(r)
        limit = None
        for name, turns in rows.items():
            r = middle(turns)
            cost = r["cpu_us_per_delivered"]
            if name == "c-epoll":
                limit = cost
            elif limit:
                r["times_c"] = round(cost / limit, 2)
            results.append(r)
            show(r)
    return results


def middle(turns):
    """Return each figure's median over the turns, and all that went wrong in any."""
    wrong = ("wrong", "lost", "doubled", "disordered")
    numbers = [name for name, value in turns[0].items() if type(value) in (int, float)]
    medians = {name: median(r[name] for r in turns) for name in numbers}
    return turns[0] | medians | {name: sum(r[name] for r in turns) for name in wrong}


def beside_silence(arguments, programs):
    """Measure the others' latency next to readers that never read."""
    events = min(60, arguments.events)  # 1.2 MB: more than a silent reader may owe
    print(f"\n{events} events of {LARGE // 1000} kB, 1,000 streams, fast sink:")
    p99 = []
    for habit in ("read", "silent"):
        load = Load(1000, events, LARGE, **{habit: SILENT})
        r = measure("updaterd-fast", load, programs)
        p99.append(r["p99_us"] / 1000)
        print(
            f"beside {SILENT:,} {habit:>6} ones: p50 {r['p50_us'] / 1000:.0f} ms, "
            f"p99 {p99[-1]:.0f} ms, lost, doubled, disordered {r['wrong']}",
            flush=True,
        )
    print(f"p99: {p99[1] / p99[0]:.2f} x")


READERS = 19_000  # streams of one process of readers: files, and ports of an address


def crowd(arguments, programs):
    """Measure many streams: several workers, several processes that read."""
    print("streams workers KiB/stream kernel KiB us/open us/again us/deliv. p50 ms "
          "p99 ms lost twice refused")  # fmt: skip
    results = []
    for streams in map(int, arguments.crowd.split(",")):
        server = start("updaterd-fast", programs, programs, arguments.workers)
        parts, readers = [], []
        try:
            read(server, 50, 1, programs).communicate("stop", timeout=20)
            before, kernel = server.memory(), kernel_memory()
            opening = 0.0
            remaining = streams
            while remaining:
                part = min(READERS, remaining)
                remaining -= part
                source = f"127.0.1.{len(parts) + 1}"
                cpu = server.cpu_s()
                more = (part, arguments.events, programs, source)
                readers.append(read(server, *more))
                opening += server.cpu_s() - cpu
                parts.append(part)
            time.sleep(1)
            memory = (server.memory() - before) / streams / 1024
            kernel = (kernel_memory() - kernel) / streams / 1024
            publish = server.publisher()
            cpu = server.cpu_s()
            for number in range(1, arguments.events + 1):
                due = time.monotonic() + max(0.1, streams * 60e-6)
                publish(number)
                time.sleep(max(0, due - time.monotonic()))
            outs = []
            for reader in readers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    reader.wait(120)
                stop = "stop" if reader.poll() is None else None
                outs.append(json.loads(reader.communicate(stop)[0]))
            cpu = server.cpu_s() - cpu
            again = coming_back(server, programs, min(10_000, streams))
            sums = {
                key: sum(out[key] for out in outs)
                for key in ("delivered", "lost", "doubled", "disordered", "refused")
            }
            r = {
                "streams": streams,
                "workers": arguments.workers,
                "kib_per_stream": round(memory, 2),
                "kernel_kib_per_stream": round(kernel, 2),
                "cpu_us_per_opening": round(opening / streams * 1e6, 1),
                "cpu_us_per_return": round(again * 1e6, 1),
                "cpu_us_per_delivered": round(cpu / max(1, sums["delivered"]) * 1e6, 2),
                "p50_ms": round(max(out["p50_us"] for out in outs) / 1000, 1),
                "p99_ms": round(max(out["p99_us"] for out in outs) / 1000, 1),
                **sums,
            }
            results.append(r)
            print(*(r[key] for key in r if key not in {"delivered", "disordered"}),
                  flush=True)  # fmt: skip
        finally:
            server.stop()
            for reader in readers:
                if reader.poll() is None:
                    reader.kill()
                    reader.wait()
    return results


def coming_back(server, programs, streams):
    """Return the CPU of a stream that comes back with a cursor, in seconds."""
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        text = b""
        while not (match := re.search(rb"\nid: (\S+)\nevent: hello\n", text)):
            text += sock.recv(4096)
    cpu = server.cpu_s()
    more = (streams, 1, programs, "127.0.2.1", match[1].decode())
    readers = read(server, *more)
    cpu = server.cpu_s() - cpu
    readers.communicate("stop")
    return cpu / streams


def verdict(results):
    """Say which aims were reached, for each number of streams."""
    rows = [r for r in results if r["server"] == "updaterd-fast"]
    if not rows:
        return
    print("\nfast sink against the aims (2 cores, load now "
          f"{os.getloadavg()[0]:.1f}):")  # fmt: skip
    print(
        "{:<26} {:>7}  ".format("aim", "at most"),
        *(f"{r['streams']:>13,}" for r in rows),
    )
    for aim, most, key in AIMS:
        cells = []
        for r in rows:
            value = r.get(key)
            reached = "" if value is None else "ok" if value <= most else "MISSED"
            cells.append(f"{'' if value is None else value:>6} {reached:<6}")
        print(f"{aim:<26} {most:>7}  ", *cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", default="1000,5000,10000")
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument(
        "--servers", default="c-epoll,updaterd-fast,updaterd-asgi,sse-starlette"
    )
    parser.add_argument(
        "--quick", action="store_true", help="neither idle cost nor silent readers"
    )
    parser.add_argument(
        "--crowd", metavar="N,...", help="so many streams, read by several processes"
    )
    parser.add_argument("--workers", type=int, default=2, help="with --crowd")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as temporary:
        programs = Path(temporary)
        for name in ("feed_epoll", "feed_readers"):
            compile_c(name, programs)
        if arguments.crowd:
            results = crowd(arguments, programs)
            wrong = ("lost", "doubled", "disordered", "refused")
            return 1 if any(r[key] for r in results for key in wrong) else 0
        results = compare(arguments, programs)
        if not arguments.quick:
            beside_silence(arguments, programs)
    verdict(results)
    print(f"took {time.monotonic() - began:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    own = [r for r in results if r["server"].startswith("updaterd")]
    return 1 if any(r["wrong"] for r in own) else 0


if __name__ == "__main__":
    sys.exit(main())
