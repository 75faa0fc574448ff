# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a request of the fetcher, as errors of ours."""

import ssl
from typing import TypeVar

from updaterd.core.text import public_url
from updaterd.errors import BrokenError, TransientError

_Kind = TypeVar("_Kind", bound=TransientError)


class HttpError(TransientError):
    """The server answered, but not with what was asked for.

    Args:
        status: the HTTP status code.
        url: what was asked for.
    """

    def __init__(self, status: int, url: str) -> None:
        super().__init__(
            f"the server answered {status} for {public_url(url):.200}",
            do="`updaterd enroll CODE`, with a code of the server's operator, or "
            "correct `headers_file`"
            if status == 401
            else "look at the server's log; updaterd tries again by itself",
            code=f"http_{status}",
        )
        self.status = status


class NotFoundError(HttpError):
    """There is no such file (404), or none that this machine may see (403)."""


class MisbehavedError(TransientError):
    """The server breaks the rules of the road: too much, too slow, elsewhere."""


class LostError(TransientError):
    """There is no connection, or it broke: what did not come may be asked for again."""


def too_much(url: str, limit: int) -> MisbehavedError:
    """Return the error for an answer that is larger than allowed."""
    return MisbehavedError(
        f"{public_url(url):.200} sends more than the allowed {limit} bytes",
        code="endless_data",
    )


def too_slow(url: str) -> MisbehavedError:
    """Return the error for an answer that does not come on."""
    return MisbehavedError(
        f"{public_url(url):.200} answers too slowly",
        means="what came is kept; the next attempt goes on from there",
        code="too_slow",
    )


def not_in_time(url: str) -> TransientError:
    """Return the error for an answer that does not come, or not all of it."""
    return _unreachable(url, "no complete answer in time", "timeout", TransientError)


def not_an_address(url: str, why: object) -> BrokenError:
    """Return the error for what no request can be sent to."""
    shown = public_url(url)
    return BrokenError(f"{shown!r:.200} is not an address: {why}", code="bad_url")


def not_a_header(url: str) -> BrokenError:
    """Return the error for headers that cannot be sent; a value may be a secret."""
    return BrokenError(
        f"a header for {public_url(url):.200} cannot be sent: a value has a line "
        "break, a blank at its end, or another character that none may have",
        do="correct the configured headers",
        code="headers_file",
    )


def lost(url: str, error: BaseException) -> LostError:
    """Return what it means that a connection cannot be made, or broke.

    Args:
        url: what was asked for.
        error: the socket's or a library's; a fault of TLS that caused it is told.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    code = "tls" if cause is not None else "unreachable"
    text = str(cause or error) or type(error).__name__
    return _unreachable(url, text, code, LostError)


def _unreachable(url: str, text: str, code: str, kind: type[_Kind]) -> _Kind:
    return kind(
        f"cannot reach {public_url(url):.200}: {text}",
        means="what is installed keeps running; updates wait",
        do="updaterd tries again by itself; check network, proxy and certificates "
        "if it lasts",
        code=code,
    )
