# SPDX-License-Identifier: Apache-2.0
"""A loopback file server that can be told to misbehave, one path at a time."""

import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[["_Handler"], None]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Origin"

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *_):
        pass

    def do_GET(self):
        origin = self.server
        origin.requests.append(self.path)
        origin.headers_seen.append(dict(self.headers))
        try:
            for pattern, answer in reversed(origin.rules):
                if re.search(pattern, self.path):
                    answer(self)
                    return
            self.file(origin.root / self.path.lstrip("/").partition("?")[0])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def file(self, path: Path):
        if not path.is_file():
            self.whole(b"", status=404)
            return
        data = path.read_bytes()
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        etag = f'"{path.name}"'
        if requested and self.headers.get("If-Range", etag) == etag:
            start = int(requested[1])
            if start >= len(data):
                self.whole(b"", status=416)
                return
            end = min(int(requested[2] or len(data)) + 1, len(data))
            self.whole(
                data[start:end],
                status=206,
                headers={
                    "Content-Range": f"bytes {start}-{end - 1}/{len(data)}",
                    "ETag": etag,
                },
            )
        else:
            self.whole(data, headers={"ETag": etag})

    def whole(self, data: bytes, *, status=200, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.server.sent += len(data)


class Origin(ThreadingHTTPServer):
    """Serves `root`; `misbehave(pattern, answer)` overrides some paths."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, root: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.rules: list[tuple[str, Answer]] = []
        self.requests: list[str] = []
        self.headers_seen: list[dict[str, str]] = []
        self.sent = 0
        self.ending = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, *_):
        pass

    def misbehave(self, pattern: str, answer: Answer):
        self.rules.append((pattern, answer))

    def behave(self):
        self.rules.clear()
        self.requests.clear()
        self.headers_seen.clear()
        self.sent = 0


def body(data: bytes, **headers: str) -> Answer:
    return lambda handler: handler.whole(data, headers=headers)


def status(code: int) -> Answer:
    return lambda handler: handler.whole(b"", status=code)


def redirect(to: str) -> Answer:
    return lambda handler: handler.whole(b"", status=302, headers={"Location": to})


def endless(handler: _Handler):
    """Send without end, and without saying how much."""
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    while not handler.server.ending.is_set():
        handler.wfile.write(b" " * 65536)
        handler.server.sent += 65536


def drip_body(handler: _Handler):
    """Promise a body and send it a byte at a time."""
    handler.send_response(200)
    handler.send_header("Content-Length", "4000")
    handler.end_headers()
    while not handler.server.ending.wait(0.05):
        handler.wfile.write(b" ")


def drip_headers(handler: _Handler):
    """Never finish the headers, never stop sending them."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.server.ending.wait(0.05):
        handler.wfile.write(b"X-A: b\r\n")


def cut(at: int) -> Answer:
    """Promise the whole file, send `at` bytes, hang up."""

    def answer(handler: _Handler):
        path = handler.server.root / handler.path.lstrip("/").partition("?")[0]
        data = path.read_bytes()
        handler.send_response(200)
        handler.send_header("ETag", f'"{path.name}"')
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:at])
        handler.close_connection = True

    return answer


def cut_each(most: int, *, politely: bool = False) -> Answer:
    """Send at most so many bytes of each answer, as a proxy with a limit does.

    `politely`: without a length, so that the end looks like the end.
    """

    def answer(handler: _Handler):
        path = handler.server.root / handler.path.lstrip("/")
        data = path.read_bytes()
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        start = int(requested[1]) if requested else 0
        end = int(requested[2]) + 1 if requested and requested[2] else len(data)
        handler.send_response(206 if requested else 200)
        handler.send_header("ETag", f'"{path.name}"')
        if requested:
            named = f"bytes {start}-{end - 1}/{len(data)}"
            handler.send_header("Content-Range", named)
        if politely:
            handler.send_header("Connection", "close")
        else:
            handler.send_header("Content-Length", str(end - start))
        handler.end_headers()
        handler.wfile.write(data[start : min(end, start + most)])
        handler.close_connection = True

    return answer
