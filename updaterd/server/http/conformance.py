# SPDX-License-Identifier: Apache-2.0
"""Requests that RFC 9112 requires to be refused and the parser accepts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from updaterd.server.http.answers import problem

# RFC 3986, 3.2: reg-name, IP literal, port
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*")


@dataclass(frozen=True, slots=True)
class Fault:
    """The refusal of a request.

    Attributes:
        status: of the answer.
        code: for programs.
        detail: for people.
    """

    status: int
    code: str
    detail: str

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the refusal and close: where the next request begins is not known."""
        response = problem(self.status, self.code, self.detail, {"connection": "close"})
        await response(scope, receive, send)


def fault_of(
    headers: Sequence[tuple[bytes, bytes]],
    *,
    version: str,
    target: bytes,
    upgrades: bool,
    streams: bool,
) -> Fault | None:
    """Return why a request must be refused; None when it need not be.

    Args:
        headers: names in lower case.
        version: of HTTP.
        target: as it was sent.
        upgrades: the connection is to become another protocol's.
        streams: a stream is asked for.
    """
    hosts = [value for name, value in headers if name == b"host"]
    old = version != "1.1"
    if version not in {"1.0", "1.1"}:
        return Fault(505, "http_version", "this is HTTP/1.1 (RFC 9112, 2.3)")
    if b"#" in target:
        return Fault(400, "target", "a fragment is not sent (RFC 9112, 3.2)")
    if len(hosts) > 1 or not (hosts or old) or not all(map(_HOST.fullmatch, hosts)):
        return Fault(400, "host", "one Host header is needed (RFC 9112, 3.2)")
    if streams and old:
        return Fault(
            505,
            "http_version",
            "streams need HTTP/1.1; a proxy between may have to be told so",
        )
    return _framing_fault(headers, old=old, upgrades=upgrades)


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
