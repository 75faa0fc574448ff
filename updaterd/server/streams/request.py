# SPDX-License-Identifier: Apache-2.0
"""Reads a request for a stream: filter, cursor, token, client address."""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from updaterd.core.accept import quality
from updaterd.core.enrolment import digest_of
from updaterd.core.names import check_name
from updaterd.errors import MalformedError
from updaterd.server.client_address import Proxies
from updaterd.server.streams.ring import Filter

EVENTS_PATH = "/v1/events"
STREAM_TYPE = "text/event-stream"
MAX_FIELDS = 64
_SHORT = 200

Headers = Iterable[tuple[bytes, bytes]]


class StreamRequest(NamedTuple):
    """A GET of the feed.

    Attributes:
        topics: the filters.
        cursor: `Last-Event-ID`, else the query's `lastEventId`, which polyfills of
            EventSource send that can set no header; empty when there is neither.
        address: the client, as limits count it.
        digest: of the token's secret, empty when there is none; the secret itself
            goes no further.
        origin: of the page that asks, empty when none does.
        browser: an EventSource in a web page asks.
        acceptable: a stream is among what the client says it accepts.
    """

    topics: Filter
    cursor: str
    address: str
    digest: str
    origin: str
    browser: bool
    acceptable: bool = True


def read_request(
    query: bytes, headers: Headers, peer: str, proxies: Proxies
) -> StreamRequest:
    """Read a request's query and headers.

    Args:
        query: after the question mark, still encoded.
        headers: names in lower case.
        peer: address of the other end of the connection.
        proxies: whose X-Forwarded-For is believed.

    Raises:
        MalformedError: a filter is not a name, or there are too many.
    """
    cursor: str | None = None
    digest = origin = accept = ""
    browser = False
    for name, value in headers:
        if name == b"last-event-id":
            cursor = value.decode("latin-1")
        elif name == b"authorization":
            bearer = read_bearer(value)
            digest = digest_of(bearer) if bearer else ""
        elif name == b"origin":
            origin = value.decode("latin-1")
        elif name == b"accept":
            accept = (
                f"{accept},{value.decode('latin-1')}"
                if accept
                else value.decode("latin-1")
            )
        elif name == b"sec-fetch-mode":
            browser = True
    return StreamRequest(
        _known_filter(query) if len(query) <= _SHORT else read_filter(query),
        read_cursor(query) if cursor is None else cursor,
        proxies.client_of(peer, headers),
        digest,
        origin,
        browser,
        accept in {"", STREAM_TYPE} or quality(accept, STREAM_TYPE) > 0,
    )


def read_target(url: bytes) -> tuple[str, bytes]:
    """Return path and query of a request's target, as routing sees them.

    A path may be escaped, and the target absolute (RFC 9112, 3.2.2): another way to
    write it must be no way past what holds for the path.
    """
    return _known_target(url) if len(url) <= _SHORT else _split_target(url)


def _split_target(url: bytes) -> tuple[str, bytes]:
    path, _, query = url.partition(b"?")
    if not path.startswith(b"/"):
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    text = path.decode("latin-1")
    return unquote(text) if "%" in text else text, query


_known_target = lru_cache(maxsize=1024)(_split_target)


def read_bearer(value: bytes) -> str:
    """Return the secret of an Authorization header, or an empty string."""
    scheme, _, secret = value.decode("latin-1").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def read_filter(query: bytes) -> Filter:
    """Return the filters of a query; unknown fields are ignored.

    Raises:
        MalformedError: a filter is not a name, or there are too many.
    """
    names: dict[str, set[str]] = {"product": set(), "channel": set()}
    for name, value in _fields(query):
        if name in names:
            names[name].add(check_name(name, value))
    return Filter(frozenset(names["product"]), frozenset(names["channel"]))


_known_filter = lru_cache(maxsize=1024)(read_filter)  # a fleet has few


def read_cursor(query: bytes) -> str:
    """Return the `lastEventId` of a query, of several the last; "" for none."""
    if b"lastEventId" not in query:
        return ""
    return dict(_fields(query)).get("lastEventId", "")


def _fields(query: bytes) -> list[tuple[str, str]]:
    """Return the fields of a query.

    Raises:
        MalformedError: it is no query, or has too many.
    """
    try:
        return parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(query),
            max_num_fields=MAX_FIELDS,
        )
    except ValueError as error:
        raise MalformedError(
            f"the query cannot be read: {error}", code="bad_query"
        ) from error
