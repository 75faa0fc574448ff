# SPDX-License-Identifier: Apache-2.0
"""Every phase of a connection, and whoever goes silent, drips or leaves in it.

The server is real and so are the sockets; its deadlines are short.
"""

import asyncio
import contextlib
import gc
import re
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.certificates import make_certificate
from fakes.serving import DEADLINE_S

from updaterd.server.options import Deadlines, Options
from updaterd.server.port.acceptor import Acceptor
from updaterd.server.port.guard import Guard
from updaterd.server.port.protocol import FeedProtocol
from updaterd.server.process import FeedServer

DEADLINES = Deadlines(
    handshake_s=0.3, head_s=0.3, body_s=0.3, reading_s=0.3, idle_s=0.3, closing_s=0.3
)
COUNT = 20
RESET = struct.pack("ii", 1, 0)
STREAM = b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n"
HELLO = bytes.fromhex("16030100c8010000c40303")
"""How a TLS handshake begins."""
BLOB = "ab" * 32
PATH = f"/repo/blobs/sha256/ab/{BLOB}"

OPENINGS: dict[str, tuple[bytes, bool]] = {
    "nothing": (b"", False),
    "half a head": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", False),
    "head of a post": (
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", False
    ),
    "body of a get": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", True
    ),
    "answered": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", True),
    "answered, then a line break": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n\r\n", True
    ),
    "pipelined, the second half": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP", True
    ),
    "download": (f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), False),
    "refused": (b"GET /healthz HTTP/1.1\r\n\r\n", True),
}  # fmt: skip
"""What a client says before it stops, and whether it reads the answer."""


@pytest.fixture
async def serve(tmp_path, world):
    """Starts servers within this loop."""
    tasks = []

    async def start(**more):
        blob = tmp_path / "public/blobs/sha256/ab" / BLOB
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(bytes(16 << 20))
        options = Options(
            state=tmp_path / "state",
            repository=tmp_path / "public",
            port=0,
            deadlines=DEADLINES,
            **more,
        )
        server = FeedServer(options, world)
        tasks.append((server, asyncio.create_task(server.run())))
        await asyncio.wait_for(server.started.wait(), DEADLINE_S)
        return server

    yield start
    for server, task in tasks:
        server.stop()
        server.stop()
        await asyncio.wait_for(task, DEADLINE_S)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  others' sockets
            await asyncio.sleep(0.01)


def port_of(server) -> int:
    return int(server.url.rpartition(":")[2])


async def connect(server, source: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.bind((source, 0))
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port_of(server)))
    return sock


def held(server) -> int:
    """How many connections the server holds, by its own count and by its files."""
    return max(server._guard.count, sockets())


def sockets() -> int:
    """How many connections that this process accepted are open."""
    count = 0
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += path.readlink().name.startswith("socket:")
    return count


async def drip(sock: socket.socket) -> None:
    """Say a byte every now and then, and read one."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while True:
            await loop.sock_sendall(sock, b"a")
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("way", ["silence", "drip", "half-close", "reset"])
@pytest.mark.parametrize("opening", OPENINGS)
async def test_no_phase_is_held_for_longer_than_its_deadline(serve, opening, way):
    server = await serve()
    said, reads = OPENINGS[opening]
    loop = asyncio.get_running_loop()
    before = sockets()
    crowd, drips = [], []
    for _ in range(COUNT):
        sock = await connect(server)
        crowd.append(sock)
        await loop.sock_sendall(sock, said)
        if reads:
            assert await asyncio.wait_for(loop.sock_recv(sock, 4096), DEADLINE_S)
        if way == "drip":
            drips.append(asyncio.create_task(drip(sock)))
        elif way == "half-close":
            sock.shutdown(socket.SHUT_WR)
        elif way == "reset":
            sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            sock.close()

    await until(lambda: server._guard.count == 0)
    for task in drips:
        task.cancel()
    await asyncio.gather(*drips, return_exceptions=True)
    for sock in crowd:
        sock.close()
    await until(lambda: sockets() <= before)


@pytest.mark.parametrize(
    "said", [b"", HELLO[:1], HELLO], ids=["nothing", "a byte", "hello"]
)
async def test_tls_that_is_never_spoken_is_counted_from_accept(serve, tmp_path, said):
    """By address: another one is served, and all of it is let go in time."""
    make_certificate(tmp_path)
    pem = tmp_path / "server.pem"
    server = await serve(tls_cert=pem, tls_key=pem, max_per_address=10)
    loop = asyncio.get_running_loop()
    crowd = [await connect(server) for _ in range(400)]
    for sock in crowd:
        with contextlib.suppress(OSError):
            await loop.sock_sendall(sock, said)
    await until(lambda: server._guard.count <= 10 + 256)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port_of(server), ssl=context, local_addr=("127.0.0.2", 0)
    )
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"200 OK" in await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()
    await until(lambda: server._guard.count == 0)
    for sock in crowd:
        sock.close()


async def test_downloads_that_nobody_reads_are_bounded_and_told_once(serve, capsys):
    """Each holds a file; and one address cannot have them all."""
    server = await serve(max_downloads=5)
    loop = asyncio.get_running_loop()
    said, _ = OPENINGS["download"]
    crowd, answers = [], []
    for _ in range(15):
        sock = await connect(server)
        crowd.append(sock)
        await loop.sock_sendall(sock, said)
        answers.append(await asyncio.wait_for(loop.sock_recv(sock, 12), DEADLINE_S))
    assert 3 == answers.count(b"HTTP/1.1 200")
    assert 12 == answers.count(b"HTTP/1.1 503")
    other = await connect(server, "127.0.0.2")
    crowd.append(other)
    await loop.sock_sendall(other, said)
    assert b"HTTP/1.1 200" == await asyncio.wait_for(
        loop.sock_recv(other, 12), DEADLINE_S
    )
    await until(lambda: server._guard.count == 0)
    for sock in crowd:
        sock.close()
    assert 1 == "".join(capsys.readouterr()).count("downloads_full")


GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /v1/events HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
REQUESTS = {
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "two hosts": (GET + b"Host: y\r\n\r\n", 400),
    "a host with a path": (b"GET /healthz HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
    "an older version needs none": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    "a slash too many": (b"GET /healthz/ HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    "no coding": (POST + b"Transfer-Encoding: identity, chunked\r\n\r\n", 501),
    "two lengths": (POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n", 400),
    "100 kB in one burst": (GET + b"X: " + b"y" * 100_000 + b"\r\n\r\n", 431),
    "many headers in one burst": (GET + b"X: y\r\n" * 20_000 + b"\r\n", 431),
    "an old stream": (b"GET /v1/events HTTP/1.0\r\n\r\n", 200),
    "an old stream, absolute": (b"GET http://x/v1/events HTTP/1.0\r\n\r\n", 200),
    "an old stream, escaped": (b"GET /v1/event%73 HTTP/1.0\r\n\r\n", 200),
    "a fragment": (b"GET /v1/events#x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a version to come": (b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    "a version of old": (b"GET /healthz HTTP/0.9\r\n\r\n", 505),
    "no version": (b"GET /healthz\r\n\r\n", 505),
    "an old stream with a body": (
        b"GET /v1/events HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
        505,
    ),
    "another protocol's body": (POST + UPGRADE + b"Content-Length: 2\r\n\r\n{}", 400),
    "an upgrade that is not taken": (GET + UPGRADE + b"\r\n", 200),
}


@pytest.mark.parametrize("request_", REQUESTS)
async def test_requests_are_taken_and_refused_as_rfc_9112_says(serve, request_):
    said, status = REQUESTS[request_]
    server = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    writer.write(said)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
    writer.close()
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"location" not in head.lower()
    assert b"transfer-encoding" not in head.lower() or b"1.0" not in said


async def test_refusal_waits_for_the_answer_before_it(serve):
    """Of two in one packet, the first is answered first."""
    server = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    ask = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n".encode()
    writer.write(ask + REQUESTS["no host"][0])
    text = await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()
    assert 0 <= text.index(b"206 Partial") < text.index(b"400 Bad Request")


@pytest.mark.parametrize(
    "rest",
    [b"junk junk\r\n\r\n", GET + b"X: " + b"y" * 40_000, GET + b"A : b\r\n\r\n"],
    ids=["junk", "a head without end", "a broken head"],
)
@pytest.mark.parametrize("asked", ["download", "answered"])
async def test_nothing_is_said_in_the_middle_of_an_answer(serve, asked, rest):
    """What cannot be read is refused after the answer before it, whole as it is."""
    server = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    writer.write(OPENINGS[asked][0] + rest)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
    assert head.startswith(b"HTTP/1.1 200")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    body = await asyncio.wait_for(reader.readexactly(length), DEADLINE_S)
    assert body == (b"ok\n" if asked == "answered" else bytes(16 << 20))
    after = await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()
    assert after.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))


@pytest.mark.parametrize("target", [b"http:///x", b"http://[/", b"http://h:99999999/"])
async def test_a_target_that_cannot_be_read_takes_no_answer_of_others(serve, target):
    """Two good requests, then that: 200, 200, 400, and not 200, 400."""
    server = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    bad = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    writer.write(OPENINGS["answered"][0] * 2 + bad)
    text = await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()
    assert re.findall(rb"HTTP/1.1 (\d+)", text) == [b"200", b"200", b"400"]


async def test_talk_after_a_refusal_cuts_no_answer_that_is_owed(serve):
    """A byte more, in a packet of its own, after a head without end."""
    server = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    writer.write(OPENINGS["download"][0] + GET + b"X: " + b"y" * 40_000)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
    writer.write(b"y")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    await asyncio.wait_for(reader.readexactly(length), DEADLINE_S)
    after = await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()
    assert after.startswith(b"HTTP/1.1 431")


async def test_nothing_of_a_request_lives_on_until_a_collection(serve):
    """Streams that are made meanwhile would lie between what is dead."""
    server = await serve()
    gc.collect()
    gc.disable()
    try:
        for opening in (STREAM, OPENINGS["answered"][0]):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(opening)
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
            writer.close()
            await until(lambda: server._guard.count == 0)
            alive = [one for one in gc.get_objects() if isinstance(one, FeedProtocol)]
            assert [] == alive
    finally:
        gc.enable()


async def test_a_body_that_cannot_be_read_is_refused_at_once(serve):
    server = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    writer.write(GET + CHUNKED + b"\r\nnot a size\r\n")
    text = await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()
    assert text.startswith(b"HTTP/1.1 400")
    assert text.count(b"HTTP/1.1 4") == 1
    await until(lambda: server._guard.count == 0)


async def test_server_that_ends_as_a_handshake_does_counts_it_once(tmp_path):
    """Acceptor and protocol both let go of the connection, in the same step."""
    make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    guard = Guard(Options(state=tmp_path), 10, lambda: 0)
    ended = asyncio.Event()

    class Both(asyncio.Protocol):
        def __init__(self, place):
            self.place = place

        def connection_made(self, transport):
            acceptor.close()

        def connection_lost(self, exc):
            self.place.leave()
            ended.set()

    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        acceptor = Acceptor(sock, guard, context, Both, deadline_s=DEADLINE_S)
        acceptor.start()
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(*sock.getsockname(), ssl=trusting)
            writer.close()
        await asyncio.wait_for(ended.wait(), DEADLINE_S)
        await until(lambda: not acceptor._tasks)
    assert (guard.count, dict(guard.open)) == (0, {})


async def test_private_files_are_for_no_shared_cache(serve):
    server = await serve(private=True)
    from updaterd.server.tokens import Tokens

    _, secret = Tokens(server.options.state).create(("read",), name="", now=lambda: 0.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    head = f"HEAD {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n\r\n"
    writer.write(head.encode())
    text = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
    writer.close()
    assert b"cache-control: private, max-age=31536000, immutable" in text
    assert b"vary: authorization" in text
    assert b"public" not in text
