# SPDX-License-Identifier: Apache-2.0
"""Why a subscription broke, told apart, each with a stable name."""

import errno
import socket
import ssl
from collections.abc import Iterator

import httpx

from updaterd.core.dataclass import dataclass
from updaterd.errors import TransientError, UpdaterError

_UNREACHABLE = {
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.EHOSTDOWN,
    errno.EADDRNOTAVAIL,
}
# In this order: one address may be unreachable while another refuses.
_BY_KIND: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
    ("tls", (ssl.SSLError,)),
    ("dns", (socket.gaierror, UnicodeError)),
    ("refused", (ConnectionRefusedError,)),
    ("reset", (ConnectionError,)),
)
# How ssl says "wait for the socket": the context of timeouts, not their cause.
_NO_FAILURES = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_BY_HTTPX: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
    ("proxy", (httpx.ProxyError,)),
    ("connect_timeout", (httpx.ConnectTimeout, httpx.PoolTimeout)),
    ("idle_timeout", (httpx.ReadTimeout, httpx.WriteTimeout)),
    ("reset", (httpx.ReadError, httpx.WriteError)),
)
_TRY_AGAIN_SOON = {408, 425, 429}
_LONGEST_SAID = 300  # of what a server said: it may have said a whole head


class FeedError(TransientError):
    """The feed cannot be reached, or what answers is no feed.

    `code` is one of: dns, refused, unreachable, connect_timeout, tls, proxy, reset,
    half_open, header_timeout, idle_timeout, closed, cut, protocol, network,
    http_NNN, content_type, content_encoding, redirect.
    """

    code = "feed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What broke, and what it says about the next attempt.

    Attributes:
        code: see `FeedError`; also "stream_limit".
        text: for people.
        after: what the server's Retry-After asks for, seconds.
        slow: a person must act before it can work: ask rarely.
        cause: the error that says it already.
    """

    code: str
    text: str
    after: float = 0.0
    slow: bool = False
    cause: UpdaterError | None = None

    def error(self) -> UpdaterError:
        """Return it as the error for a caller who reconnects by itself."""
        return self.cause or FeedError(self.text, code=self.code)


def of_status(status: int, reason: str, after: float) -> Failure:
    """Return what an answer other than 200 means (9.2.2; RFC 9110 section 15)."""
    soon = status >= 500 or status in _TRY_AGAIN_SOON
    return Failure(
        code=f"http_{status}",
        text=f"the feed answered {status} {reason:.{_LONGEST_SAID}}".rstrip(),
        after=after,
        slow=not soon,
    )


def of_exception(error: BaseException, *, opened: bool) -> Failure:
    """Return what an exception of httpx, or of what lies below it, means.

    Any exception: sockets and codecs below httpx raise what they like (a hostile
    redirect's host name is a UnicodeError, a broken TLS record a bare SSLError),
    and whatever it is, it is one failed attempt, not the end of the subscription.

    Args:
        error: what was raised.
        opened: the stream had been open.
    """
    chain = list(_chain(error))
    code = _code(error, chain, opened=opened)
    # The innermost message is the one that names the cause.
    texts = [str(link) for link in chain if str(link)]
    text = texts[-1] if texts else type(error).__name__
    if code == "network":
        text = f"{type(error).__name__}: {text}"
    return Failure(
        code=code,
        text=f"{_SAID.get(code, 'the connection failed')}: {text:.{_LONGEST_SAID}}",
        slow=code == "redirect",
    )


_SAID = {
    "dns": "the feed's name cannot be resolved",
    "refused": "the feed refused the connection",
    "unreachable": "the feed's network cannot be reached",
    "connect_timeout": "the feed did not take the connection in time",
    "tls": "the feed's TLS cannot be trusted or does not work",
    "proxy": "the proxy does not let us through",
    "reset": "the connection was reset",
    "half_open": "the other end vanished without a word",
    "idle_timeout": "no byte came, not even a heartbeat",
    "cut": "the stream was cut off",
    "closed": "the feed closed the connection without an answer",
    "redirect": "the feed's redirect makes no sense",
    "protocol": "what answers does not speak HTTP",
}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its members and its causes, outermost first."""
    visited: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop(0)
        if link is None or id(link) in visited:
            continue
        visited.add(id(link))
        if not isinstance(link, _NO_FAILURES):
            yield link
        if isinstance(link, BaseExceptionGroup):
            waiting.extend(link.exceptions)
        waiting.append(link.__cause__ or link.__context__)


def _code(error: BaseException, chain: list[BaseException], *, opened: bool) -> str:
    for code, kinds in _BY_KIND:
        if any(isinstance(link, kinds) for link in chain):
            return code
    numbers = {link.errno for link in chain if isinstance(link, OSError)}
    if errno.ETIMEDOUT in numbers:
        return "half_open" if opened else "connect_timeout"
    if numbers & _UNREACHABLE:
        return "unreachable"
    if isinstance(error, httpx.RemoteProtocolError):
        return _code_of_protocol(str(error), opened=opened)
    return next(
        (code for code, kinds in _BY_HTTPX if isinstance(error, kinds)), "network"
    )


def _code_of_protocol(text: str, *, opened: bool) -> str:
    if "disconnected" in text:
        return "closed"
    if "location header" in text:
        return "redirect"
    return "cut" if opened else "protocol"
