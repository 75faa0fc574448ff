# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 for code that waits: on sockets and h11 alone, one connection a server.

A look at the repository is a process of a few hundred milliseconds and two requests.
httpx with asyncio, anyio and httpcore would be more than half of its CPU
(docs/decisions/0041). RFC 9112 is h11's, as in the daemon's `direct`; `sockets` makes
the connections. Each wait is given how long it may take in all, so that
a server which sends a byte now and then ends nobody's patience later than a silent one.
"""

import contextlib
import select
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import PurePath
from urllib.parse import SplitResult, quote, unquote, urlsplit

import h11

from updaterd.net.addresses import origin_of
from updaterd.net.authorities import is_unknown_issuer, stream_contexts
from updaterd.net.failures import lost, not_a_header, not_an_address, not_in_time
from updaterd.net.sockets import connect, over_tls, remaining

_READ_SIZE = 1 << 18
_LARGEST_HEADERS = 100 * 1024
_IDLE_S = 5.0
"""How long an idle connection is kept: what lies between may forget it in silence."""
_UNCHANGED = "/%:@!$&'()*+,;=-._~"  # of a path, RFC 3986 section 3.3
_Origin = tuple[str, str, int]


class Plain:
    """Sends requests with no proxy between.

    Not for use by two threads at once.

    Args:
        ca_file: PEM, replaces the system's CAs.

    Raises:
        BrokenError: the CA file cannot be used.
    """

    def __init__(self, *, ca_file: PurePath | None) -> None:
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None
        self._wider: Callable[[], ssl.SSLContext] | None = None
        self._idle: dict[_Origin, _Connection] = {}
        if ca_file is not None:
            self._contexts()  # a file that cannot be used is told at once

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        patience_s: float,
    ) -> "Read":
        """Return the answer to one request; redirects are answers.

        Raises:
            LostError: no connection, or it broke.
            TransientError: no answer in time (`timeout`).
            BrokenError: it is not an address.
        """  # noqa: DOC501 - raised by the functions that make them
        deadline = time.monotonic() + patience_s
        try:
            parts = urlsplit(url)
            request = _request(method, parts, headers, body)
            origin = origin_of(url)
            if parts.scheme not in {"http", "https"} or parts.port == 0:
                raise not_an_address(url, "no scheme, host and port of http or https")
        except h11.LocalProtocolError:
            raise not_a_header(url) from None
        except ValueError as error:
            raise not_an_address(url, error) from error
        try:
            connection, head = self._sent(origin, parts, request, body, deadline)
        except TimeoutError as error:
            raise not_in_time(url) from error
        except (OSError, ValueError, ExceptionGroup, h11.ProtocolError) as error:
            raise lost(url, error) from error
        return Read(connection, head, url, lambda: self._done(origin, connection))

    def _sent(
        self,
        origin: _Origin,
        parts: SplitResult,
        request: h11.Request,
        body: bytes,
        deadline: float,
    ) -> tuple["_Connection", h11.Response]:
        """Send a request, over the connection that is open if it still is one.

        Raises:
            OSError: no connection, or it broke.
            RemoteProtocolError: what comes is no answer.
        """
        idle = self._idle.pop(origin, None)
        if idle is not None and idle.is_quiet():
            try:
                return idle, idle.ask(request, body, deadline)
            except (OSError, h11.RemoteProtocolError):
                # The server closed it meanwhile: no fault, for what may be repeated.
                idle.close()
                if request.method != b"GET" or time.monotonic() >= deadline:
                    raise
        elif idle is not None:
            idle.close()
        connection = _Connection(self._connected(parts, origin[2], deadline))
        try:
            return connection, connection.ask(request, body, deadline)
        except BaseException:
            connection.close()
            raise

    def _connected(
        self, parts: SplitResult, port: int, deadline: float
    ) -> socket.socket:
        """Return a new connection, with TLS where the address asks for it.

        Raises:
            OSError: there is none.
            TimeoutError: not in time.
            SSLCertVerificationError: nobody vouches for the server.
        """
        host = _ascii(parts.hostname or "")
        if parts.scheme == "http":
            return connect(host, port, deadline)
        tls = self._contexts()
        try:
            return over_tls(host, port, tls, deadline)
        except ssl.SSLCertVerificationError as error:
            if self._wider is None or not is_unknown_issuer(error):
                raise
        wider = self._wider()
        opened = over_tls(host, port, wider, deadline)
        self._tls, self._wider = wider, None
        return opened

    def _contexts(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls, self._wider = stream_contexts(self._ca_file)
        return self._tls

    def _done(self, origin: _Origin, connection: "_Connection") -> None:
        """Keep a connection whose answer was read; close any other."""
        if connection.is_reusable():
            before = self._idle.pop(origin, None)
            if before is not None:
                before.close()
            self._idle[origin] = connection
        else:
            connection.close()

    def close(self) -> None:
        """Close the connections; may be called twice."""
        for connection in self._idle.values():
            connection.close()
        self._idle.clear()


class Read:
    """The answer to one request, see `net.answer.Answer`."""

    def __init__(
        self,
        connection: "_Connection",
        head: h11.Response,
        url: str,
        done: Callable[[], None],
    ) -> None:
        self._connection: _Connection | None = connection
        self._url = url
        self._done = done
        self.status = head.status_code
        self.headers: dict[str, str] = {}
        for raw_name, raw in head.headers:
            name, value = raw_name.decode("ascii"), _text(raw)
            before = self.headers.get(name)
            self.headers[name] = value if before is None else f"{before}, {value}"

    def read(self, patience_s: float) -> bytes:
        """Return the next bytes of the body; none at its end.

        Raises:
            LostError: the connection broke.
            TransientError: nothing came in time (`timeout`).
        """  # noqa: DOC501 - raised by the functions that make them
        if self._connection is None:
            return b""
        try:
            return self._connection.body(time.monotonic() + patience_s)
        except TimeoutError as error:
            raise not_in_time(self._url) from error
        except (OSError, ValueError, h11.ProtocolError) as error:
            raise lost(self._url, error) from error

    def close(self) -> None:
        """Be done with it; whatever of the body was not read is given up."""
        if self._connection is not None:
            self._connection = None
            self._done()


class _Connection:
    """A connection to one server: one request after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._idle_since = time.monotonic()
        self._http = h11.Connection(
            h11.CLIENT, max_incomplete_event_size=_LARGEST_HEADERS
        )

    def ask(self, request: h11.Request, body: bytes, deadline: float) -> h11.Response:
        """Send a request; return the head of the answer.

        Raises:
            OSError: it broke, or not in time.
            RemoteProtocolError: what comes is no answer.
        """
        # A server may answer, and hang up, before it has read all of it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._send(request, deadline)
            if body:
                self._send(h11.Data(data=body), deadline)
            self._send(h11.EndOfMessage(), deadline)
        while True:
            event = self._event(deadline)
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("the answer is not HTTP")
            if event.status_code == 101:  # RFC 9110 section 15.2.2
                raise h11.RemoteProtocolError("switched protocols without being asked")

    def body(self, deadline: float) -> bytes:
        """Return the next bytes of the body; none at its end.

        Raises:
            OSError: it broke, or not in time.
            RemoteProtocolError: it ended before the body did.
        """
        while isinstance(event := self._event(deadline), h11.Data):
            if event.data:
                return bytes(event.data)
        return b""

    def _send(self, event: h11.Event, deadline: float) -> None:
        data = self._http.send(event)
        if data:
            self._sock.settimeout(remaining(deadline))
            self._sock.sendall(data)

    def _event(self, deadline: float) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._sock.settimeout(remaining(deadline))
            data = self._sock.recv(_READ_SIZE)
            if not data and self._http.their_state is h11.SEND_RESPONSE:
                raise h11.RemoteProtocolError(
                    "the server disconnected without an answer"
                )
            self._http.receive_data(data)
        return event

    def is_reusable(self) -> bool:
        """Tell whether another request may follow; what is here of a body is passed.

        An answer that was not read to its end, like that to a file which is not there,
        often is here as a whole.
        """
        try:
            while self._http.their_state is h11.SEND_BODY:
                if self._http.next_event() is h11.NEED_DATA:
                    return False
            if self._http.trailing_data[0]:  # RFC 9112 section 6.3: no answer to come
                return False
            self._http.start_next_cycle()
        except h11.ProtocolError:
            return False
        self._idle_since = time.monotonic()
        return True

    def is_quiet(self) -> bool:
        """Tell whether it is young, and the server has neither closed it nor spoken."""
        if time.monotonic() - self._idle_since > _IDLE_S:
            return False
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close it at once; nothing waits for the other end."""
        self._sock.close()


def _request(
    method: str, parts: SplitResult, headers: Mapping[str, str], body: bytes
) -> h11.Request:
    """Return a request with the headers that each has, and with those that are given.

    Raises:
        ValueError: the host's name cannot be looked up.
        h11.LocalProtocolError: a header is none.
    """
    host = _ascii(parts.hostname or "")
    named = f"[{host}]" if ":" in host else host
    port = parts.port
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    sent = {
        "Host": named if port in (None, usual) else f"{named}:{port}",
        "Accept": "*/*",
    }
    for name, value in headers.items():
        sent = {n: v for n, v in sent.items() if n.lower() != name.lower()}
        sent[name] = value
    if parts.username is not None or parts.password is not None:
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        sent = {n: v for n, v in sent.items() if n.lower() != "authorization"}
        sent["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    if body:
        sent["Content-Length"] = str(len(body))
    target = quote(parts.path or "/", safe=_UNCHANGED)
    if parts.query:
        target += "?" + quote(parts.query, safe=_UNCHANGED + "?")
    return h11.Request(method=method, target=target, headers=list(sent.items()))


def _text(raw: bytes) -> str:
    """Return a header's value: names of files come in UTF-8, the rest is ASCII."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _ascii(host: str) -> str:
    """Return a host's name as name servers know it.

    Raises:
        ValueError: it is none.
    """
    if host.isascii():
        return host
    import idna  # noqa: PLC0415 - for foreign names only: its tables are large

    return idna.encode(host.lower()).decode("ascii")
