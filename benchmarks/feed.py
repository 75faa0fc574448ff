"""Measure the feed server against its peers: memory, CPU, latency, loss.

    python benchmarks/feed.py [--streams 1000,5000,10000] [--events 100] [--json FILE]

Each server runs alone as one process on loopback and serves N streams, which one
C program reads (`feed_readers.c`, compiled here, as is `feed_epoll.c`, the bare
server that marks the limit). Memory is the server's private anonymous memory with
the streams open, less without, per stream. CPU is the server's time on a processor
(user and kernel, /proc/PID/task/*/schedstat) from before the first event to after
the last, per delivered event; idle CPU is over one full turn of the heartbeats.
"""

import argparse
import contextlib
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

HERE = Path(__file__).parent
HEARTBEAT_S = 15
CONNECTS_PER_S = 1500
PADDING = "x" * 40


def compile_c(name, folder):
    out = folder / name
    subprocess.run(
        ["gcc", "-O2", "-o", out, HERE / f"{name}.c"],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return out


def _whole(answer):
    head, found, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return found and len(body) >= (int(length[1]) if length else 0)


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
            end = time.monotonic() + 30
            while not address.exists():
                assert time.monotonic() < end, "it never listened"
                time.sleep(0.02)
            self.port = int(address.read_text().rsplit(":", 1)[1])
            address.unlink()

    def publisher(self):
        connection = socket.create_connection(("127.0.0.1", self.port), 60)

        def publish(number):
            body = json.dumps(
                {
                    "schema": 1,
                    "product": "acme",
                    "channel": "stable",
                    "version": str(number),
                    "seq": time.monotonic_ns() // 1000,
                    "urgency": "normal",
                    "spread_s": 0,
                    # about 300 bytes on the wire, as a small announcement has
                    **({} if self.token else {"padding": PADDING}),
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

    def cpu_s(self):
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def memory(self):
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        line = next(x for x in rollup.splitlines() if x.startswith("Anonymous:"))
        return int(line.split()[1]) * 1024

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def start(name, folder, programs):
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


def measure(name, streams, arguments, folder, *, idle):
    programs, events = folder, arguments.events
    server = start(name, folder, programs)
    silent = []
    try:
        # what the first streams make the process allocate once is not theirs
        run_readers(server, 50, 1, programs)
        time.sleep(0.5)
        silent = silent_streams(server, arguments.silent)
        time.sleep(0.5)
        before = server.memory()
        readers = subprocess.Popen(
            reading(server, streams, events, programs),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        opened = readers.stdout.readline().split()
        assert opened[:1] == ["open"], opened
        time.sleep(0.5)
        memory = (server.memory() - before) / streams
        idle_us = None
        if idle:
            cpu = server.cpu_s()
            time.sleep(HEARTBEAT_S)
            idle_us = (server.cpu_s() - cpu) / streams / HEARTBEAT_S * 1e6
        publish = server.publisher()
        pause = max(0.05, streams * 25e-6)
        cpu = server.cpu_s()
        for number in range(1, events + 1):
            due = time.monotonic() + pause
            publish(number)
            time.sleep(max(0, due - time.monotonic()))
        with contextlib.suppress(subprocess.TimeoutExpired):
            readers.wait(30)  # they end by themselves when they have everything
        out, _ = readers.communicate("stop", timeout=20)
        cpu = server.cpu_s() - cpu
        result = json.loads(out)
        return {
            "server": name,
            "streams": streams,
            "kib_per_stream": round(memory / 1024, 2),
            "cpu_us_per_delivered": round(cpu / max(1, result["delivered"]) * 1e6, 2),
            "idle_us_per_stream_s": None if idle_us is None else round(idle_us, 3),
            **result,
        }
    finally:
        server.stop()
        for sock in silent:
            sock.close()


def reading(server, streams, events, programs):
    numbers = (server.port, streams, events, CONNECTS_PER_S)
    return [programs / "feed_readers", *map(str, numbers)]


def run_readers(server, streams, events, programs):
    readers = subprocess.Popen(
        reading(server, streams, events, programs),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    readers.stdout.readline()
    readers.communicate("stop", timeout=20)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", default="1000,5000,10000")
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument(
        "--servers", default="c-epoll,updaterd-fast,updaterd-asgi,sse-starlette"
    )
    parser.add_argument(
        "--silent",
        type=int,
        default=0,
        help="also this many streams that nobody reads, to compare p99 with",
    )
    parser.add_argument("--no-idle", action="store_true", help="skip the idle cost")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with_lost = ("lost", "doubled", "disordered")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    results = []
    row = "{:<15} {:>7} {:>10} {:>10} {:>9} {:>9} {:>9} {:>5} {:>5} {:>5}"
    print(row.format("server", "streams", "KiB/stream", "us/deliv.", "idle us/s",
                     "p50 ms", "p99 ms", "lost", "twice", "order"))  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("feed_epoll", "feed_readers"):
            compile_c(name, folder)
        for streams in map(int, arguments.streams.split(",")):
            for name in arguments.servers.split(","):
                if name == "sse-starlette" and not find_spec("sse_starlette"):
                    print("sse-starlette is left out: pip install sse-starlette")
                    continue
                idle = name.startswith("updaterd") and not arguments.no_idle
                r = measure(name, streams, arguments, folder, idle=idle)
                results.append(r)
                idle_us = r["idle_us_per_stream_s"]
                print(
                    row.format(
                        name,
                        streams,
                        r["kib_per_stream"],
                        r["cpu_us_per_delivered"],
                        "" if idle_us is None else idle_us,
                        round(r["p50_us"] / 1000, 1),
                        round(r["p99_us"] / 1000, 1),
                        r["lost"],
                        r["doubled"],
                        r["disordered"],
                    ),
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    ours = [r for r in results if r["server"].startswith("updaterd")]
    return 1 if any(r[what] for r in ours for what in with_lost) else 0


if __name__ == "__main__":
    sys.exit(main())
