# SPDX-License-Identifier: Apache-2.0
"""The stream's own transport: what httpx would do, without what it would load."""

import asyncio
import gc
import socket

import httpx
import pytest
from fakes.certificates import make_certificate
from fakes.feed_server import FeedServer, answer, chunked, say

from updaterd.net import direct
from updaterd.net.connect import open_stream_client, tls_context
from updaterd.net.direct import DirectTransport

pytestmark = pytest.mark.slow

TIMEOUT = httpx.Timeout(5.0)
SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel"


def client():
    return httpx.AsyncClient(
        transport=DirectTransport(tls_context(None)), timeout=TIMEOUT, trust_env=False
    )


async def get(*answers, method="GET", **options):
    async with FeedServer(*answers) as server, client() as http:
        return await http.request(method, server.url, **options), server.requests[0]


async def test_body_by_length():
    """A body ends where its length says."""
    response, _ = await get(answer(200, "X-A: 1", body=b"hello"))
    assert (response.status_code, response.content) == (200, b"hello")
    assert response.reason_phrase == "Some Reason"
    assert response.headers["x-a"] == "1"


async def test_body_in_chunks_with_extensions():
    """Chunk extensions and trailers are passed over (RFC 9112 section 7.1)."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    response, _ = await get(say(head, b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"))
    assert response.content == b"hello"


async def test_body_until_the_connection_ends():
    """Without any framing the end of the connection is the end."""
    response, _ = await get(say(b"HTTP/1.1 200 OK\r\n\r\n", b"hel", b"lo"))
    assert response.content == b"hello"


async def test_interim_answers_are_passed_over():
    """100 and 103 come before the answer, not instead of it (RFC 9110 section 15.2)."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    response, _ = await get(say(b"HTTP/1.1 100 Continue\r\n\r\n", interim, final))
    assert (response.status_code, response.content) == (200, b"ok")


async def test_another_protocol_is_refused():
    """101 to somebody who asked for no upgrade is no answer."""
    with pytest.raises(httpx.RemoteProtocolError):
        await get(say(b"HTTP/1.1 101 Hop\r\nUpgrade: x\r\n\r\n", ending="hold"))


async def test_folded_headers():
    """obs-fold is a space (RFC 9112 section 5.2)."""
    response, _ = await get(
        say(b"HTTP/1.1 200 OK\r\nX-A: one\r\n  two\r\nContent-Length: 0\r\n\r\n")
    )
    assert response.headers["x-a"] == "one two"


async def test_headers_are_bounded():
    """Headers without end are refused while little is held."""
    with pytest.raises(httpx.RemoteProtocolError):
        await get(say(b"HTTP/1.1 200 OK\r\n", *[b"X: " + b"y" * 8000 + b"\r\n"] * 40))


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (say(), httpx.RemoteProtocolError),
        (say(b"SSH-2.0-x\r\n\r\n"), httpx.RemoteProtocolError),
        (say(SHORT), httpx.RemoteProtocolError),
        (chunked(b"hel", end=False), httpx.RemoteProtocolError),
        (say(b"HTTP/1.1 200 OK\r\n\r\n", ending="reset"), httpx.ReadError),
    ],
    ids=["nothing", "another protocol", "short", "cut chunks", "reset"],
)  # fmt: skip
async def test_answers_that_are_cut_are_told(reply, error):
    """A body that is not whole is an error, never a shorter body."""
    with pytest.raises(error):
        await get(reply)


async def test_an_answer_before_the_body_was_read():
    """A server that refuses a large body early is heard."""
    early = say(b"HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n")

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await early(None, reader, writer)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, client() as http:
        try:
            response = await http.post(
                f"http://127.0.0.1:{port}/", content=b"x" * 2**22
            )
        except httpx.ReadError:
            return  # the reset overtook the answer: TCP may do that
        assert response.status_code == 413


async def test_what_is_sent():
    """Method, target, host with its port, credentials of the address, and the body."""
    async with FeedServer(answer(200), host="::1") as server, client() as http:
        url = server.url.replace("http://", "http://me:secret@") + "?q=a%20b"
        await http.post(url, json={"a": 1})
        request = server.requests[0]
    assert (request.method, request.target) == ("POST", "/feed?q=a%20b")
    assert request.headers["host"] == f"[::1]:{server.port}"
    assert request.headers["authorization"] == "Basic bWU6c2VjcmV0"
    assert request.body == b'{"a":1}'


async def test_the_next_address_is_tried(monkeypatch):
    """One address that refuses does not hide the one that answers."""
    async with FeedServer(answer(200)) as server, client() as http:
        _resolve_to(monkeypatch, ["127.0.0.2", "127.0.0.1"])
        response = await http.get(f"http://feed.example:{server.port}/")
    assert response.status_code == 200


async def test_all_addresses_refuse(monkeypatch):
    """When no address answers, each one's reason is kept."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        _resolve_to(monkeypatch, ["127.0.0.1", "127.0.0.2"])
        async with client() as http:
            with pytest.raises(httpx.ConnectError) as caught:
                await http.get(f"http://feed.example:{taken.getsockname()[1]}/")
    group = caught.value.__cause__
    assert isinstance(group, ExceptionGroup)
    assert [type(error) for error in group.exceptions] == [ConnectionRefusedError] * 2


async def test_nobody_takes_the_connection():
    """A full backlog is a connection that times out."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        async with client() as http:
            with pytest.raises(httpx.ConnectTimeout):
                await http.get(
                    f"http://127.0.0.1:{full.getsockname()[1]}/",
                    timeout=httpx.Timeout(5.0, connect=0.05),
                )


async def test_cancelling_at_any_moment_leaves_no_socket(monkeypatch):
    """Also not the one that came in first while another was still under way."""
    async with FeedServer(say(b"HTTP/1.1 200 OK\r\n\r\n", ending="hold")) as server:
        _resolve_to(monkeypatch, ["127.0.0.1", "127.0.0.1"])
        monkeypatch.setattr(direct, "_HEAD_START_S", 0.0)
        async with client() as http:
            for moments in range(40):
                url = f"http://feed.example:{server.port}/"
                asking = asyncio.create_task(http.get(url))
                for _ in range(moments):
                    await asyncio.sleep(0)
                asking.cancel()
                await asyncio.wait({asking})
    gc.collect()  # a socket that nobody has closed is a warning here, thus an error


async def test_cancelling_tls_at_any_moment_leaves_no_socket(tmp_path):
    """Nor a number that the next connection's socket cannot have."""
    ca_file, context = make_certificate(tmp_path)
    hold = say(b"HTTP/1.1 200 OK\r\n\r\n", ending="hold")
    async with FeedServer(hold, tls=context) as server:
        transport = DirectTransport(tls_context(ca_file))
        async with httpx.AsyncClient(transport=transport, trust_env=False) as http:
            for moments in range(40):
                asking = asyncio.create_task(http.get(server.url))
                for _ in range(moments):
                    await asyncio.sleep(0)
                asking.cancel()
                await asyncio.wait({asking})
                assert asking.cancelled(), asking.exception()
    gc.collect()


@pytest.mark.parametrize("port", [0, 65536, 99999])
async def test_a_port_that_is_none_is_no_other_port(port):
    """The C library would take it modulo 65536."""
    async with client() as http:
        with pytest.raises(httpx.ConnectError, match="no port"):
            await http.get(f"http://127.0.0.1:{port}/")


async def test_another_scheme_is_refused():
    """Only http and https are spoken."""
    async with client() as http:
        with pytest.raises(httpx.UnsupportedProtocol):
            await http.get("ftp://127.0.0.1/")


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "all_proxy"])
async def test_with_a_proxy_httpx_is_whole(monkeypatch, name):
    """A proxy in the environment brings back httpx's own transport."""
    for other in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(other, raising=False)
        monkeypatch.delenv(other.upper(), raising=False)
    async with open_stream_client() as plain:
        assert isinstance(plain._transport, DirectTransport)
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with open_stream_client() as proxied:
        assert not isinstance(proxied._transport, DirectTransport)


def _resolve_to(monkeypatch, addresses):
    """Let the name server say what a test wants said; literals are as ever."""

    async def getaddrinfo(_loop, _host, port, **_):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
