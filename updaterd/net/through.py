# SPDX-License-Identifier: Apache-2.0
"""Requests of a short-lived process where a proxy may be in the way: httpx's own way.

An asynchronous client on a private loop, because a synchronous one of httpx cannot
bound a server that sends its headers one byte at a time: its deadlines start anew with
every byte.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import PurePath

import httpx

from updaterd.net.connect import open_client
from updaterd.net.failures import lost, not_an_address, not_in_time


class Through:
    """Sends requests through proxies, and past them where they are not for an address.

    Not for use by two threads at once, nor inside a loop.

    Args:
        ca_file: PEM, replaces the system's CAs.
        proxy: address of the proxy; None: as the environment says.

    Raises:
        BrokenError: CA file or proxy cannot be used.
    """

    def __init__(self, *, ca_file: PurePath | None, proxy: str | None) -> None:
        self._client = open_client(ca_file=ca_file, proxy=proxy)
        self.loop = asyncio.new_event_loop()

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        patience_s: float,
    ) -> "Proxied":
        """Return the answer to one request; redirects are answers.

        Raises:
            LostError: no connection, or it broke.
            TransientError: no answer in time (`timeout`).
            BrokenError: it is not an address.
        """
        answer = self._ask(method, url, headers, body, patience_s)
        return Proxied(self.loop.run_until_complete(answer), url, self)

    async def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        patience_s: float,
    ) -> httpx.Response:
        async with _as_ours(url), asyncio.timeout(patience_s):
            request = self._client.build_request(
                method, url, content=body or None, headers=headers
            )
            return await self._client.send(request, stream=True)

    def close(self) -> None:
        """Close the connections; may be called twice."""
        if self.loop.is_closed():
            return
        self.loop.run_until_complete(self._client.aclose())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class Proxied:
    """The answer to one request, see `net.answer.Answer`."""

    def __init__(self, response: httpx.Response, url: str, way: Through) -> None:
        self._response = response
        self._url = url
        self._way = way
        self._pieces: AsyncIterator[bytes] = response.aiter_raw()
        self.status = response.status_code
        self.headers: Mapping[str, str] = dict(response.headers)

    def read(self, patience_s: float) -> bytes:
        """Return the next bytes of the body; none at its end.

        Raises:
            LostError: the connection broke.
            TransientError: nothing came in time (`timeout`).
        """
        return self._way.loop.run_until_complete(self._next(patience_s))

    async def _next(self, patience_s: float) -> bytes:
        async with _as_ours(self._url), asyncio.timeout(patience_s):
            while (piece := await anext(self._pieces, None)) is not None:
                if piece:
                    return piece
            return b""

    def close(self) -> None:
        """Be done with it."""
        if not self._way.loop.is_closed():
            self._way.loop.run_until_complete(self._response.aclose())


@asynccontextmanager
async def _as_ours(url: str) -> AsyncIterator[None]:
    """Turn whatever httpx raises into one of our errors.

    Raises:
        not_in_time: the server did not answer in time.
        not_an_address: it is not an address.
        lost: the server cannot be reached, or the connection broke.
    """
    try:
        yield
    except (TimeoutError, httpx.TimeoutException) as error:
        raise not_in_time(url) from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise not_an_address(url, error) from error
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise lost(url, error) from error  # httpx lets a few of the latter through
