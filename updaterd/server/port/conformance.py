# SPDX-License-Identifier: Apache-2.0
"""Requests that RFC 9112 requires to be refused and the parser accepts."""

import re
from collections.abc import Sequence
from functools import lru_cache

import httptools

from updaterd.server.port.exchange import Exchange, Fault

HEAD_LIMIT = 32 << 10
"""Largest request head, in bytes (give or take one packet)."""

UNREADABLE = Fault(400, "bad_request", "this is no HTTP/1.1 request")
TOO_LARGE = Fault(431, "head_too_large", f"more than {HEAD_LIMIT} bytes")

# RFC 3986, 3.2: reg-name, IP literal, port
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*")
# RFC 9110, 5.5: a line break or NUL in a value would end it for somebody else
_NO_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NO_TARGET = re.compile(rb"[\x00-\x20\x7f-\xff]")
_FRAMING = {b"transfer-encoding", b"content-length"}
_SHORT = 200  # targets that are remembered: a fleet has few
_ABSOLUTE = re.compile(rb"https?://[^/?#]", re.IGNORECASE)


def fault_of(exchange: Exchange, *, upgrades: bool, plain: bool) -> Fault | None:
    """Return why a request must be refused; None when it need not be.

    Args:
        exchange: the request.
        upgrades: the connection is to become another protocol's.
        plain: streams of HTTP/1.0 can be had.
    """
    headers, target = exchange.headers, exchange.target
    names = [name for name, _ in headers]
    hosts = [value for name, value in headers if name == b"host"]
    old = exchange.is_old
    if exchange.version not in {"1.0", "1.1"}:
        return Fault(505, "http_version", "this is HTTP/1.1 (RFC 9112, 2.3)")
    judge = _known_target if len(target) <= _SHORT else _why_no_target
    if why := judge(exchange.method, target):
        return Fault(400, "target", f"{why} (RFC 9112, 3.2)")
    if _NO_VALUE.search(b" ".join([value for _, value in headers])):
        return Fault(400, "bad_request", "a header holds control characters")
    if len(hosts) > 1 or not (hosts or old) or not all(map(_HOST.fullmatch, hosts)):
        return Fault(400, "host", "one Host header is needed (RFC 9112, 3.2)")
    if old and exchange.asks_for_stream and not (plain and exchange.is_plain):
        return Fault(
            505,
            "http_version",
            "streams need HTTP/1.1; a proxy between may have to be told so",
        )
    framed = not _FRAMING.isdisjoint(names)
    return _framing_fault(headers, old=old, upgrades=upgrades) if framed else None


def _why_no_target(method: bytes, target: bytes) -> str:
    """Return why a target names nothing here; "" when it does."""
    if b"#" in target:
        return "a fragment is not sent"
    if _NO_TARGET.search(target):
        return "the target holds characters that must be escaped"
    if target == b"*":
        return "" if method == b"OPTIONS" else "only OPTIONS asks for *"
    if not (target.startswith(b"/") or _ABSOLUTE.match(target)):
        return "the target is no path and no address of http"
    try:
        path = httptools.parse_url(target).path
    except httptools.HttpParserInvalidURLError:
        path = None
    return "" if path else "the target cannot be read"


_known_target = lru_cache(maxsize=1024)(_why_no_target)


def _framing_fault(
    headers: Sequence[tuple[bytes, bytes]], *, old: bool, upgrades: bool
) -> Fault | None:
    """Return what is wrong with the framing of a request's body, or None."""
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    lengths = [value for name, value in headers if name == b"content-length"]
    if codings and (old or lengths):
        why = "Transfer-Encoding is not for HTTP/1.0, or beside Content-Length"
        return Fault(400, "framing", f"{why} (RFC 9112, 6.1)")
    if codings and codings != [b"chunked"]:
        return Fault(501, "transfer_encoding", "the only coding here is chunked")
    if upgrades and (codings or any(length != b"0" for length in lengths)):
        return Fault(
            400, "protocol_upgrade", "send a body without Upgrade: this is HTTP/1.1"
        )
    return None
