# SPDX-License-Identifier: Apache-2.0
"""Requests that two servers in a row would read differently: none is taken.

The kinds are those of RFC 9112 (sections 2, 3, 5, 6, 7 and 11.2) and of public lists
of smuggling and splitting. Each comes alone, whole and byte by byte, with a further
request hidden behind it; the application, which notes whatever reaches it, must
neither get all of the first nor anything of the second.
"""

import asyncio
import re

import pytest

from updaterd.server.listener import Listener
from updaterd.server.options import Deadlines, Options
from updaterd.server.port.guard import Guard

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
GET = b"GET /a HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
LENGTH = POST + b"Content-Length: 4\r\n"
BODY = b"\r\n4\r\nabcd\r\n"
END = b"0\r\n\r\n"

HEADS = {
    # which of two lengths counts (6.1, 6.3)
    "length, then chunks": LENGTH + b"Transfer-Encoding: chunked\r\n" + BODY + END,
    "chunks, then length": CHUNKED + b"Content-Length: 4\r\n" + BODY + END,
    "chunks and length 0": CHUNKED + b"Content-Length: 0\r\n" + BODY + END,
    "two lengths that differ": LENGTH + b"Content-Length: 5\r\n\r\nabcd",
    "two lengths that agree": LENGTH + b"Content-Length: 4\r\n\r\nabcd",
    "a list of lengths": POST + b"Content-Length: 4, 4\r\n\r\nabcd",
    "a list of lengths that differ": POST + b"Content-Length: 4, 5\r\n\r\nabcd",
    "a length with a sign": POST + b"Content-Length: +4\r\n\r\nabcd",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a length in hex": POST + b"Content-Length: 0x4\r\n\r\nabcd",
    "a length with a fraction": POST + b"Content-Length: 4.0\r\n\r\nabcd",
    "a length with a letter": POST + b"Content-Length: 4a\r\n\r\nabcd",
    "a length with an underscore": POST + b"Content-Length: 1_0\r\n\r\nabcd",
    "a length with a space within": POST + b"Content-Length: 1 0\r\n\r\nabcd",
    "a length beyond 64 bits": POST
    + b"Content-Length: 18446744073709551620\r\n\r\nabcd",
    "no length": POST + b"Content-Length:\r\n\r\nabcd",
    "a length of spaces": POST + b"Content-Length:   \r\n\r\nabcd",
    "a quoted length": POST + b'Content-Length: "4"\r\n\r\nabcd',
    "a length in other digits": POST + b"Content-Length: \xd9\xa4\r\n\r\nabcd",
    "a folded length": POST + b"Content-Length:\r\n 4\r\n\r\nabcd",
    "a length after NUL": POST + b"Content-Length: \x004\r\n\r\nabcd",
    "a length after a vertical tab": POST + b"Content-Length: \x0b4\r\n\r\nabcd",
    # what chunked looks like to somebody (6.1, 7)
    "another coding": POST + b"Transfer-Encoding: gzip\r\n" + BODY + END,
    "chunked that is not last": POST + b"Transfer-Encoding: chunked, gzip\r\n" + BODY,
    "chunked, and identity": POST + b"Transfer-Encoding: chunked, identity\r\n" + BODY,
    "identity, and chunked": POST + b"Transfer-Encoding: identity, chunked\r\n" + BODY,
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n" + BODY,
    "chunked twice, in two headers": CHUNKED + b"Transfer-Encoding: chunked\r\n" + BODY,
    "another coding in a second header": CHUNKED + b"Transfer-Encoding: x\r\n" + BODY,
    "another coding in a first header": (
        POST + b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n" + BODY
    ),
    "a coding like chunked": POST + b"Transfer-Encoding: xchunked\r\n" + BODY,
    "a coding longer than chunked": POST + b"Transfer-Encoding: chunkedx\r\n" + BODY,
    "chunked with a parameter": POST + b"Transfer-Encoding: chunked;a=b\r\n" + BODY,
    "chunked, quoted": POST + b'Transfer-Encoding: "chunked"\r\n' + BODY,
    "chunked after a comma": POST + b"Transfer-Encoding: , chunked\r\n" + BODY,
    "chunked before a comma": POST + b"Transfer-Encoding: chunked,\r\n" + BODY,
    "chunked after a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n" + BODY,
    "chunked after a form feed": POST + b"Transfer-Encoding: \x0cchunked\r\n" + BODY,
    "chunked before NUL": POST + b"Transfer-Encoding: chunked\x00\r\n" + BODY,
    "chunked, folded": POST + b"Transfer-Encoding:\r\n chunked\r\n" + BODY,
    "chunked behind a bare CR": POST + b"X: y\rTransfer-Encoding: chunked\r\n" + BODY,
    "chunked behind a bare LF": POST + b"X: y\nTransfer-Encoding: chunked\r\n" + BODY,
    "chunked with Latin letters": POST + b"Transfer-Encoding: chun\xe7ed\r\n" + BODY,
    "no coding": POST + b"Transfer-Encoding:\r\n" + BODY,
    "chunks of HTTP/1.0": (
        b"POST /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + BODY + END
    ),
    # what a header is (5)
    "a space before the colon": POST + b"Content-Length : 4\r\n\r\nabcd",
    "a tab before the colon": POST + b"Transfer-Encoding\t: chunked\r\n" + BODY,
    "a space before the name": POST + b" Transfer-Encoding: chunked\r\n" + BODY,
    "a folded first line": b"POST /a HTTP/1.1\r\n Host: x\r\n\r\n",
    "a folded header": GET + b"X: y\r\n z: 1\r\n\r\n",
    "a name that is empty": GET + b": y\r\n\r\n",
    "a line without a colon": GET + b"X\r\n\r\n",
    "NUL in a name": GET + b"X\x00Y: z\r\n\r\n",
    "a letter that is none in a name": GET + b"X\xff: y\r\n\r\n",
    "a bracket in a name": GET + b"X(Y: z\r\n\r\n",
    "NUL in a value": GET + b"X: a\x00b\r\n\r\n",
    "a bare CR in a value": GET + b"X: a\rb\r\n\r\n",
    "an escape in a value": GET + b"X: a\x1bb\r\n\r\n",
    "DEL in a value": GET + b"X: a\x7fb\r\n\r\n",
    "lines that end with LF": b"GET /a HTTP/1.1\nHost: x\n\n",
    "a head that ends with LF": GET + b"\n",
    "a head that ends with CR CR": GET + b"\r\r",
    # what is asked for (2, 3)
    "a space within the target": b"GET /a /b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab in the request line": b"GET\t/a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space after the version": b"GET /a HTTP/1.1 \r\nHost: x\r\n\r\n",
    "a space before the method": b" GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method in small letters": b"get /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method that is none": b"G(T /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n",
    "a version in small letters": b"GET /a http/1.1\r\nHost: x\r\n\r\n",
    "a version of many digits": b"GET /a HTTP/1.10\r\nHost: x\r\n\r\n",
    "a version with a sign": b"GET /a HTTP/+1.1\r\nHost: x\r\n\r\n",
    "a version to come": b"GET /a HTTP/1.2\r\nHost: x\r\n\r\n",
    "no version": b"GET /a\r\nHost: x\r\n\r\n",
    "HTTP/2's first words": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a target without a slash": b"GET a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target of another scheme": b"GET file:///a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target of no host": b"GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n",
    "an asterisk for GET": b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in the target": b"GET /a\x00b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a bare CR in the target": b"GET /a\rb HTTP/1.1\r\nHost: x\r\n\r\n",
    "a bare LF in the target": b"GET /a\nb HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes beyond ASCII in the target": b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /a HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"Host: y\r\n\r\n",
    "two hosts that agree": GET + b"Host: x\r\n\r\n",
    "a host with a path": b"GET /a HTTP/1.1\r\nHost: x/a\r\n\r\n",
    "a host with a user": b"GET /a HTTP/1.1\r\nHost: u@x\r\n\r\n",
    "a host with a space": b"GET /a HTTP/1.1\r\nHost: x y\r\n\r\n",
    "a folded host": b"GET /a HTTP/1.1\r\nHost:\r\n x\r\n\r\n",
    # another protocol's body (7.8 of RFC 9110)
    "an upgrade with a body": (
        LENGTH + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\nabcd"
    ),
}
"""Requests of which the application hears nothing."""

BODIES = {
    "a size that is none": b"\r\nx\r\nabcd\r\n" + END,
    "an empty size": b"\r\n\r\nabcd\r\n" + END,
    "a size with 0x": b"\r\n0x4\r\nabcd\r\n" + END,
    "a size with a sign": b"\r\n+4\r\nabcd\r\n" + END,
    "a negative size": b"\r\n-4\r\nabcd\r\n" + END,
    "a size beyond 64 bits": b"\r\n10000000000000004\r\nabcd\r\n" + END,
    "a size with an underscore": b"\r\n0_4\r\nabcd\r\n" + END,
    "a space before the size": b"\r\n 4\r\nabcd\r\n" + END,
    "a space after the size": b"\r\n4 \r\nabcd\r\n" + END,
    "a tab after the size": b"\r\n4\t\r\nabcd\r\n" + END,
    "a size that ends with LF": b"\r\n4\nabcd\r\n" + END,
    "a size that ends with CR": b"\r\n4\rabcd\r\n" + END,
    "a chunk that ends with LF": b"\r\n4\r\nabcd\n" + END,
    "a chunk that ends with CR": b"\r\n4\r\nabcd\r" + END,
    "a chunk without an end": b"\r\n4\r\nabcd" + END,
    "a chunk that is longer": b"\r\n4\r\nabcde\r\n" + END,
    "an extension with LF": b"\r\n4;a\nb\r\nabcd\r\n" + END,
    "an extension with CR": b"\r\n4;a\rb\r\nabcd\r\n" + END,
    "an extension with NUL": b"\r\n4;a\x00b\r\nabcd\r\n" + END,
    "a last chunk that ends with LF": b"\r\n4\r\nabcd\r\n0\n\r\n",
    "an end of LF": b"\r\n4\r\nabcd\r\n0\r\n\n",
    "a trailer with a space before its colon": b"\r\n4\r\nabcd\r\n0\r\nX : y\r\n\r\n",
    "a trailer with NUL": b"\r\n4\r\nabcd\r\n0\r\nX: a\x00b\r\n\r\n",
    "a folded trailer": b"\r\n4\r\nabcd\r\n0\r\nX: y\r\n z\r\n\r\n",
}
"""Bodies that the application hears begin, and never end."""


class Wire(asyncio.Transport):
    """The client's end: what was answered, and whether the connection was closed."""

    def __init__(self):
        super().__init__()
        self.said = b""
        self.closed = False

    def write(self, data):
        if not self.closed:
            self.said += data

    def close(self):
        self.closed = True

    abort = close

    def is_closing(self):
        return self.closed

    def get_extra_info(self, name, default=None):
        return ("192.0.2.1", 1) if name == "peername" else default

    def pause_reading(self):
        pass

    resume_reading = pause_reading

    def get_write_buffer_size(self):
        return 0


@pytest.fixture
def speak(tmp_path):
    """Says something on a connection; returns what came back and what was heard."""

    async def speak(*packets):
        heard = []

        async def app(scope, receive, send):
            body = b""
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message["body"]
                if not message["more_body"]:
                    break
            heard.append((scope["path"], body))
            length = (b"content-length", b"0")
            await send({
                "type": "http.response.start",
                "status": 200,
                "headers": [length],
            })
            await send({"type": "http.response.body", "body": b""})

        guard = Guard(Options(state=tmp_path, deadlines=Deadlines()), 10, lambda: 0)
        protocol, wire = Listener(app, guard).protocol(), Wire()
        protocol.connection_made(wire)
        for packet in packets:
            protocol.data_received(packet)
            for _ in range(8):
                await asyncio.sleep(0)
        protocol.connection_lost(None)
        for _ in range(8):
            await asyncio.sleep(0)
        assert guard.count == 0
        return wire, heard

    return speak


def ways(said):
    """Return how it can come: at once, or a byte in a packet."""
    return [(said,), tuple(said[i : i + 1] for i in range(len(said)))]


@pytest.mark.parametrize("kind", HEADS)
async def test_a_request_that_can_be_read_in_two_ways_is_not_taken(speak, kind):
    for packets in ways(HEADS[kind] + HIDDEN):
        wire, heard = await speak(*packets)
        assert heard == []
        assert b" 200 " not in wire.said
        assert len(re.findall(rb"HTTP/1\.1 \d", wire.said)) <= 1
        assert wire.closed or kind == "no length"


@pytest.mark.parametrize("kind", BODIES)
async def test_a_body_that_can_be_read_in_two_ways_has_no_end(speak, kind):
    for packets in ways(CHUNKED + BODIES[kind] + HIDDEN):
        wire, heard = await speak(*packets)
        assert heard == []
        assert b" 200 " not in wire.said
        assert len(re.findall(rb"HTTP/1\.1 \d", wire.said)) <= 1
        assert wire.closed


GOOD = {
    "a body of a length": (LENGTH + b"\r\nabcd", b"abcd"),
    "a body of no bytes": (POST + b"Content-Length: 0\r\n\r\n", b""),
    "a body in chunks": (CHUNKED + BODY + b"2\r\nef\r\n" + END, b"abcdef"),
    "Chunked": (POST + b"transfer-encoding: Chunked\r\n" + BODY + END, b"abcd"),
    "a size in capitals": (CHUNKED + b"\r\nA\r\n0123456789\r\n" + END, b"0123456789"),
    "a size with zeros": (CHUNKED + b"\r\n004\r\nabcd\r\n" + END, b"abcd"),
    "extensions": (CHUNKED + b'\r\n4;a=b;c="d"\r\nabcd\r\n' + END, b"abcd"),
    "trailers": (CHUNKED + b"\r\n4\r\nabcd\r\n0\r\nX: y\r\n\r\n", b"abcd"),
    # section 3 lets a server take them, and nobody could read them otherwise
    "spaces too many": (b"GET  /a  HTTP/1.1\r\nHost: x\r\n\r\n", b""),
    "a line break before": (b"\r\n" + GET + b"\r\n", b""),
    "an absolute target": (b"GET http://x/a HTTP/1.1\r\nHost: x\r\n\r\n", b""),
    "a header without a value": (GET + b"X:\r\n\r\n", b""),
    "a request in a body": (
        POST + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN, HIDDEN
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", GOOD)
async def test_what_is_clear_is_taken_and_so_is_what_follows(speak, kind):
    """Or the others would prove nothing."""
    said, body = GOOD[kind]
    for packets in ways(said + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"):
        wire, heard = await speak(*packets)
        assert heard == [("/a", body), ("/next", b"")]
        assert wire.said.count(b"HTTP/1.1 200 OK") == 2
        assert not wire.closed


ENDLESS = {
    "a method": (b"", b"A"),
    "a target": (b"GET /", b"a"),
    "a header's name": (GET, b"a"),
    "a header's value": (GET + b"X: ", b"a"),
    "headers": (GET, b"X: y\r\n"),
    "line breaks before a request": (b"", b"\r\n"),
    "a chunk's size": (CHUNKED + b"\r\n", b"0"),
    "an extension": (CHUNKED + b"\r\n4;", b"a"),
    "trailers": (CHUNKED + b"\r\n0\r\n", b"X: y\r\n"),
    "a trailer's value": (CHUNKED + b"\r\n0\r\nX: ", b"a"),
    "talk after an upgrade": (GET + b"Connection: upgrade\r\nUpgrade: x\r\n\r\n", b"a"),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_what_has_no_end_is_ended(speak, kind):
    """Little is kept of it, however small the pieces are."""
    begin, more = ENDLESS[kind]
    packets = [begin] * bool(begin) + [more * (1400 // len(more))] * 60
    wire, heard = await speak(*packets)
    assert wire.closed
    assert b" 200 " not in wire.said or kind == "talk after an upgrade"
    assert heard in ([], [("/a", b"")])
