# SPDX-License-Identifier: Apache-2.0
"""A real feed server and real readers, for tests: processes, sockets, no mocks."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import redis

DEADLINE_S = 30.0
"""How long a test waits for what must happen; none waits for nothing to happen."""


def announcement(version="1.0.0", *, seq=1, product="acme", channel="stable", **more):
    return {
        "schema": 1,
        "product": product,
        "channel": channel,
        "version": version,
        "seq": seq,
        "urgency": "normal",
        "spread_s": 0,
        **more,
    }


def pushed(version, padding):
    """Return pushed metadata that parses, incompressible."""

    def signed(role, **more):
        document = {
            "signatures": [{"keyid": "k", "sig": "s"}],
            "signed": {
                "_type": role,
                "version": version,
                "expires": "2030-01-01T00:00:00Z",
                **more,
            },
        }
        return base64.b64encode(zlib.compress(json.dumps(document).encode())).decode()

    return {
        "timestamp": signed("timestamp", meta={"snapshot.json": {"version": version}}),
        "snapshot": signed("snapshot", noise=os.urandom(padding // 2).hex()),
    }


def wait_until(condition, subject):
    end = time.monotonic() + DEADLINE_S
    while not (answer := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"never happened: {subject}")
        time.sleep(0.01)
    return answer


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class FeedProcess:
    """`updaterd serve`, as an operator starts it."""

    def __init__(
        self, state: Path, *arguments: str, prefix: tuple[str, ...] = (), pass_fds=()
    ):
        self.pass_fds = pass_fds
        self.prefix = prefix
        self.state = state
        self.arguments = arguments
        self.log = state / f"serve-{os.urandom(3).hex()}.log"
        self.process = None
        self.url = ""

    def start(self):
        self.state.mkdir(mode=0o700, exist_ok=True)
        address = self.log.with_suffix(".address")
        address.unlink(missing_ok=True)  # of one that was killed
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(*self.prefix, sys.executable, "-m", "updaterd"),
                    *("serve", "--state", self.state),
                    *("--port", "0", "--address-file", address, *self.arguments),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.pass_fds,
            )
        wait_until(
            lambda: address.exists() or self.process.poll() is not None, "listening"
        )
        assert self.process.poll() is None, self.log.read_text()
        self.url = address.read_text().strip()
        return self

    async def streams(self, count: int) -> None:
        """Return once so many streams are open."""
        line = f"updaterd_streams {count:.1f}"
        async with asyncio.timeout(DEADLINE_S):
            while line not in await asyncio.to_thread(self.metrics):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def metrics(self) -> str:
        """Return what Prometheus would read; needs --metrics open."""
        return request(f"{self.url}/metrics").body.decode()

    def token(self, *scopes: str) -> str:
        return make_token(self.state, *scopes)

    def stop(self, sig=signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(DEADLINE_S)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def make_token(state: Path, *scopes: str) -> str:
    state.mkdir(mode=0o700, exist_ok=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "updaterd", "token", "create", "--state", state),
            *(part for scope in scopes for part in ("--scope", scope)),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def says(self):
        """What a problem tells a person."""
        return f"{self.json['detail']}. {self.json['remedy']}"


def request(url, method="GET", body=None, **headers) -> Answer:
    question = urllib.request.Request(  # noqa: S310  our own server
        url, data=body, method=method
    )
    for name, value in headers.items():
        question.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.urlopen(question, timeout=DEADLINE_S) as answer:  # noqa: S310  our own server
            return _answer(answer.status, answer)
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, error)


def _answer(status, response):
    headers = {k.lower(): v for k, v in response.headers.items()}
    return Answer(status, headers, response.read())


def publish(url, token, document, key=None) -> Answer:
    return request(
        f"{url}/v1/events",
        "POST",
        json.dumps(document).encode(),
        authorization=f"Bearer {token}",
        idempotency_key=key or os.urandom(8).hex(),
    )


@dataclass
class Event:
    id: str
    name: str
    data: str

    @property
    def json(self):
        return json.loads(self.data)


@dataclass
class Reader:
    """A plain SSE client, written apart from the product's own."""

    url: str
    query: str = ""
    headers: dict = field(default_factory=dict)
    status: int = 0
    answer: dict = field(default_factory=dict)
    retry: list = field(default_factory=list)
    heartbeats: int = 0
    ended: bool = False
    last_id: str = ""
    tls: ssl.SSLContext | None = None
    source: str = ""

    async def __aenter__(self):
        parts = urlsplit(self.url)
        self.reader, self.writer = await asyncio.open_connection(
            parts.hostname,
            parts.port,
            ssl=self.tls,
            local_addr=(self.source, 0) if self.source else None,
        )
        lines = [f"GET /v1/events{self.query} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{k.replace('_', '-')}: {v}" for k, v in self.headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
        first, *rest = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.answer = {
            line.partition(":")[0].lower(): line.partition(":")[2].strip()
            for line in rest
            if line
        }
        self._buffer = b""
        return self

    async def __aexit__(self, *_):
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def _chunk(self) -> bytes:
        size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def body(self) -> bytes:
        return await self.reader.readexactly(int(self.answer["content-length"]))

    async def next(self) -> Event | None:
        """Return the next dispatched event; None at the end of the response."""
        return await asyncio.wait_for(self._next(), DEADLINE_S)

    async def _next(self):
        while True:
            while b"\n\n" in self._buffer:
                block, _, self._buffer = self._buffer.partition(b"\n\n")
                event = self._block(block.decode())
                if event is not None:
                    return event
            try:
                chunk = await self._chunk()
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            if not chunk:
                self.ended = True
                return None
            self._buffer += chunk

    def _block(self, block):
        fields = {}
        for line in block.split("\n"):
            if line.startswith(":"):
                self.heartbeats += 1
                continue
            name, _, value = line.partition(": ")
            fields[name] = value
        if "retry" in fields:
            self.retry.append(int(fields["retry"]))
        if "id" in fields:
            self.last_id = fields["id"]
        if "data" not in fields:
            return None
        return Event(
            fields.get("id", ""), fields.get("event", "message"), fields["data"]
        )

    async def take(self, count) -> list[Event]:
        events = []
        while len(events) < count:
            event = await self.next()
            assert event is not None, f"ended after {events}"
            events.append(event)
        return events


class RedisProcess:
    """A real Redis or Valkey on a loopback port of its own, with an append-only file.

    `program` is what `fakes.tools` returned: `need("redis-server")` or `need_valkey()`.
    """

    def __init__(self, program: str, folder: Path, fsync: str = "everysec"):
        self.program = program
        self.folder = folder
        self.fsync = fsync
        self.port = free_port()
        self.process = None

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        self.folder.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [
                *(self.program, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self.folder), "--save", "", "--appendonly", "yes"),
                *("--appendfsync", self.fsync),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self.answers, "redis answers")
        return self

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, *words):
        """Send one command, as somebody else who shares the database."""
        with contextlib.closing(redis.Redis(port=self.port)) as client:
            return client.execute_command(*words)

    def flush(self):
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(b"FLUSHALL\r\n")
            assert sock.recv(64).startswith(b"+OK")

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()
