# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a request of the fetcher, as errors of ours."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from updaterd.errors import BrokenError, TransientError


class HttpError(TransientError):
    """The server answered, but not with what was asked for.

    Args:
        status: the HTTP status code.
        url: what was asked for.
    """

    def __init__(self, status: int, url: str) -> None:
        super().__init__(
            f"the server answered {status} for {url:.200}",
            do="look at the server's log; updaterd tries again by itself",
            code=f"http_{status}",
        )
        self.status = status


class NotFoundError(HttpError):
    """There is no such file (404), or none that this machine may see (403)."""


class MisbehavedError(TransientError):
    """The server breaks the rules of the road: too much, too slow, elsewhere."""


def too_much(url: str, limit: int) -> MisbehavedError:
    """Return the error for an answer that is larger than allowed."""
    return MisbehavedError(
        f"{url:.200} sends more than the allowed {limit} bytes", code="endless_data"
    )


def too_slow(url: str) -> MisbehavedError:
    """Return the error for an answer that does not come on."""
    return MisbehavedError(
        f"{url:.200} answers too slowly",
        means="what came is kept; the next attempt goes on from there",
        code="too_slow",
    )


@asynccontextmanager
async def as_ours(url: str) -> AsyncIterator[None]:
    """Turn whatever httpx raises into one of our errors.

    Raises:
        BrokenError: it is not an address.
        TransientError: the server cannot be reached, or not in time.
    """  # noqa: DOC501 - `_unreachable` makes it
    try:
        yield
    except TimeoutError as error:
        raise _unreachable(url, "no complete answer in time", "timeout") from error
    except httpx.TimeoutException as error:
        raise _unreachable(url, "no answer in time", "timeout") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise BrokenError(
            f"{url!r:.200} is not an address: {error}", code="bad_url"
        ) from error
    except httpx.HTTPError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        code = "tls" if cause is not None else "unreachable"
        text = str(cause or error) or type(error).__name__
        raise _unreachable(url, text, code) from error
    except (OSError, ValueError) as error:  # httpx lets a few of these through
        raise _unreachable(url, str(error), "unreachable") from error


def _unreachable(url: str, text: str, code: str) -> TransientError:
    return TransientError(
        f"cannot reach {url:.200}: {text}",
        means="what is installed keeps running; updates wait",
        do="updaterd tries again by itself; check network, proxy and certificates "
        "if it lasts",
        code=code,
    )
