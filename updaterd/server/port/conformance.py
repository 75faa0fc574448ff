# SPDX-License-Identifier: Apache-2.0
"""Requests that RFC 9112 requires to be refused and the parser accepts."""

import re
from collections.abc import Sequence

import httptools

from updaterd.server.port.exchange import Exchange, Fault

# RFC 3986, 3.2: reg-name, IP literal, port
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*")
# RFC 9110, 5.5: a line break or NUL in a value would end it for somebody else
_NO_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NO_TARGET = re.compile(rb"[\x00-\x20\x7f-\xff]")
_ABSOLUTE = re.compile(rb"https?://[^/?#]", re.IGNORECASE)


def fault_of(exchange: Exchange, *, upgrades: bool, streams: bool) -> Fault | None:
    """Return why a request must be refused; None when it need not be.

    Args:
        exchange: the request.
        upgrades: the connection is to become another protocol's.
        streams: a stream is asked for that needs HTTP/1.1.
    """
    headers, target = exchange.headers, exchange.target
    hosts = [value for name, value in headers if name == b"host"]
    old = exchange.is_old
    if exchange.version not in {"1.0", "1.1"}:
        return Fault(505, "http_version", "this is HTTP/1.1 (RFC 9112, 2.3)")
    if why := _why_no_target(exchange.method, target):
        return Fault(400, "target", f"{why} (RFC 9112, 3.2)")
    if any(map(_NO_VALUE.search, [value for _, value in headers])):
        return Fault(400, "bad_request", "a header holds control characters")
    if len(hosts) > 1 or not (hosts or old) or not all(map(_HOST.fullmatch, hosts)):
        return Fault(400, "host", "one Host header is needed (RFC 9112, 3.2)")
    if streams and old:
        return Fault(
            505,
            "http_version",
            "streams need HTTP/1.1; a proxy between may have to be told so",
        )
    return _framing_fault(headers, old=old, upgrades=upgrades)


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
