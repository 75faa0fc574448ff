# SPDX-License-Identifier: Apache-2.0
"""Answers that the port gives by itself, as bytes."""

from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

from updaterd.server.http.access import STREAM_HEADERS
from updaterd.server.http.answers import MEDIA_TYPE, problem_body

_MOST_KEPT = 64


class Heads:
    """Writes heads; the date in them is written once a second.

    Args:
        now: seconds since 1970.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._second = -1
        self._date = ""
        self._streams: dict[tuple[bool, tuple[tuple[str, str], ...]], bytes] = {}

    def date(self) -> str:
        """Return the date as HTTP writes it (RFC 9110, 6.6.1)."""
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._date = formatdate(second, usegmt=True)
            self._streams.clear()
        return self._date

    def stream(self, allow: dict[str, str], *, old: bool) -> bytes:
        """Return the head of a stream: of HTTP/1.0, which knows no chunks, when old."""
        self.date()
        key = (old, tuple(allow.items()))
        head = self._streams.get(key)
        if head is None:
            framing = (
                {"connection": "close"} if old else {"transfer-encoding": "chunked"}
            )
            head = self._write(200, {**STREAM_HEADERS, **framing, **allow})
            if len(self._streams) < _MOST_KEPT:
                self._streams[key] = head
        return head

    def retry(self, body: bytes, allow: dict[str, str]) -> bytes:
        """Return a whole stream that only says when to come back."""
        last = {"connection": "close"}
        return self._write(200, {**STREAM_HEADERS, **last, **allow}) + body

    def problem(
        self,
        status: int,
        code: str,
        headers: dict[str, str],
        detail: str = "",
        remedy: str = "",
    ) -> bytes:
        """Return a whole answer that is an error, after which nothing comes."""
        body = problem_body(status, code, detail, remedy)
        fixed = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(body)),
            "cache-control": "no-store",
            "connection": "close",
        }
        return self._write(status, fixed | headers) + body

    def _write(self, status: int, headers: dict[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines.append(f"date: {self.date()}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")
