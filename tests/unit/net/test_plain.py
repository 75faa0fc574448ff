# SPDX-License-Identifier: Apache-2.0
"""What a worker asks by: sockets and h11, without what httpx would load."""

import contextlib
import socket
import threading

import pytest
from fakes.certificates import make_certificate

from updaterd.errors import BrokenError, TransientError
from updaterd.net.failures import LostError
from updaterd.net.plain import Plain

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ABSENT = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + bytes(900)
PATIENCE_S = 20.0


class Server:
    """Answers the nth request of each connection with its nth answer, then closes.

    An answer that is None: waits for the request, and hangs up. `hold`: keeps the
    connections open in the end.
    """

    def __init__(self, *connections, tls=None, hold=False):
        self.connections = list(connections)
        self.tls = tls
        self.hold = hold
        self.requests = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/x"
        self.open = []
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        for answers in self.connections:
            with contextlib.suppress(OSError):
                peer, _ = self.socket.accept()
                self.open.append(peer)
                if self.tls:
                    peer = self.tls.wrap_socket(peer, server_side=True)
                    self.open.append(peer)
                self.talk(peer, answers)
                if not self.hold:
                    peer.close()
                    self.closed.set()

    def talk(self, peer, answers):
        for answer in answers:
            request = b""
            while b"\r\n\r\n" not in request:
                data = peer.recv(65536)
                if not data:
                    return
                request += data
            self.requests.append(request)
            if answer is not None:
                peer.sendall(answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for peer in self.open:
            peer.close()
        self.thread.join()


@pytest.fixture
def plain():
    way = Plain(ca_file=None)
    yield way
    way.close()


def get(way, url, *, method="GET", body=b"", patience_s=PATIENCE_S, **headers):
    answer = way.ask(method, url, headers, body, patience_s)
    data = b""
    while piece := answer.read(patience_s):
        data += piece
    answer.close()
    return answer.status, data


def test_one_connection_for_one_request_after_another(plain):
    with Server([OK, OK]) as server:
        assert [get(plain, server.url), get(plain, server.url)] == [(200, b"ok")] * 2


def test_an_answer_that_nobody_reads_costs_no_connection(plain):
    """To look for a newer root is to be told that there is none, each time."""
    with Server([ABSENT, OK]) as server:
        plain.ask("GET", server.url, {}, b"", PATIENCE_S).close()
        assert get(plain, server.url) == (200, b"ok")


def test_bytes_behind_an_answer_are_no_answer_to_the_next_request(plain):
    """RFC 9112 section 6.3: a proxy that sends one body too many shifts no answer."""
    evil = OK.replace(b"\r\n\r\nok", b"\r\n\r\nno")
    with Server([OK + evil], [OK], hold=True) as server:
        assert get(plain, server.url) == (200, b"ok")
        assert get(plain, server.url) == (200, b"ok")
        assert 2 == len(server.requests)


def test_a_connection_that_was_idle_for_long_is_made_anew(plain, monkeypatch):
    """What lies between may have forgotten it, and says so to nobody."""
    with Server([OK, OK], [OK], hold=True) as server:
        get(plain, server.url)
        monkeypatch.setattr("updaterd.net.plain._IDLE_S", -1.0)
        get(plain, server.url)
        assert 2 == len(server.open)


def test_a_header_that_cannot_be_sent_is_not_shown(plain):
    with pytest.raises(BrokenError) as caught:
        get(plain, "http://127.0.0.1:9/x", Authorization="Bearer s3cret\r\n")
    assert "headers_file" == caught.value.code
    assert "s3cret" not in str(caught.value)


def test_errors_show_no_password_and_no_signed_query(plain):
    with pytest.raises(LostError) as caught:
        get(plain, "http://user:s3cret@127.0.0.1:9/x?sig=s3cret")
    assert "s3cret" not in str(caught.value)


def test_a_long_answer_that_nobody_reads_is_hung_up_on(plain):
    with Server([LONG], [OK]) as server:
        plain.ask("GET", server.url, {}, b"", PATIENCE_S).close()
        assert get(plain, server.url) == (200, b"ok")


def test_a_connection_that_the_server_closed_meanwhile_is_made_anew(plain):
    with Server([OK], [OK]) as server:
        assert get(plain, server.url) == (200, b"ok")
        server.closed.wait(PATIENCE_S)
        assert get(plain, server.url) == (200, b"ok")


def test_what_may_be_repeated_is_when_an_old_connection_breaks(plain):
    with Server([OK, None], [OK]) as server:
        assert [get(plain, server.url), get(plain, server.url)] == [(200, b"ok")] * 2


def test_what_may_not_be_repeated_is_not(plain):
    with Server([OK, None], [OK]) as server:
        get(plain, server.url)
        with pytest.raises(LostError):
            get(plain, server.url, method="POST", body=b"{}")


def test_a_server_that_says_nothing_ends_patience(plain):
    with Server([None], hold=True) as server, pytest.raises(TransientError) as caught:
        get(plain, server.url, patience_s=0.2)
    assert caught.value.code == "timeout"


def test_a_head_that_comes_byte_by_byte_ends_patience_no_later(plain):
    """Each byte in time does not make the answer in time."""
    dripping = threading.Event()

    class Dripping(Server):
        def talk(self, peer, answers):
            peer.recv(65536)
            for at in range(100_000):
                if dripping.wait(0.02):
                    return
                peer.sendall(b"HTTP/1.1 200 OK\r\nX: "[at : at + 1] or b"x")

    with Dripping([OK]) as server:
        with pytest.raises(TransientError) as caught:
            get(plain, server.url, patience_s=0.3)
        dripping.set()
    assert caught.value.code == "timeout"


def test_interim_answers_are_passed_over_and_another_protocol_is_refused(plain):
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    other = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"
    with Server([early + OK], [other]) as server:
        assert get(plain, server.url) == (200, b"ok")
        server.closed.wait(PATIENCE_S)
        with pytest.raises(LostError):
            get(plain, server.url)


def test_certificates_are_checked(plain, tmp_path):
    """By the CA that is given; without it nobody vouches for the server."""
    ca, tls = make_certificate(tmp_path)
    with Server([OK, OK], tls=tls) as server:
        given = Plain(ca_file=ca)
        assert [get(given, server.url), get(given, server.url)] == [(200, b"ok")] * 2
        given.close()
    with (
        Server([OK], [OK], tls=tls) as server,
        pytest.raises(LostError) as caught,
    ):
        get(plain, server.url)
    assert caught.value.code == "tls"


def test_a_certificate_for_another_host_is_refused(tmp_path):
    ca, tls = make_certificate(tmp_path, hosts=("other.test",), addresses=())
    with Server([OK], tls=tls) as server, pytest.raises(LostError) as caught:
        get(Plain(ca_file=ca), server.url)
    assert caught.value.code == "tls"


def test_the_next_address_is_tried(plain, monkeypatch):
    """A name may have one that nobody listens at (RFC 8305)."""
    with Server([OK]) as server, socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = ("127.0.0.1", closed.getsockname()[1])
        closed.close()
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        addresses = [(*kind, nobody), (*kind, ("127.0.0.1", server.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        assert get(plain, f"http://feed.test:{server.port}/") == (200, b"ok")


def test_nobody_there_is_told(plain):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(LostError) as caught:
        get(plain, f"http://127.0.0.1:{port}/")
    assert caught.value.code == "unreachable"
    assert "refused" in str(caught.value)


@pytest.mark.parametrize("url", ["http://h:0/", "http://h:x/", "ftp://h/", "x"])
def test_what_is_no_address_is_told(plain, url):
    with pytest.raises(BrokenError) as caught:
        get(plain, url)
    assert caught.value.code == "bad_url"


def test_what_is_sent(plain):
    """What httpx sent: a user of the address, signs of the path encoded."""
    with Server([OK]) as server:
        url = server.url.replace("//", "//user:p%40ss@") + "/a b?c=d e%20f"
        get(plain, url, Range="bytes=1-")
        (request,) = server.requests
    assert request.startswith(b"GET /x/a%20b?c=d%20e%20f HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{server.port}\r\n".encode() in request
    assert b"Authorization: Basic dXNlcjpwQHNz\r\n" in request
    assert b"Range: bytes=1-\r\n" in request


def test_a_line_break_in_a_header_is_refused(plain):
    with Server([OK]) as server, pytest.raises(BrokenError):
        get(plain, server.url, Evil="a\r\nX: y")
