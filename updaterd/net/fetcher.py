# SPDX-License-Identifier: Apache-2.0
"""HTTP for code that waits: whole-request deadlines, byte limits, no surprises."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePath
from typing import Self
from urllib.parse import urljoin

import httpx

from updaterd.core.rate import Rate
from updaterd.errors import TransientError
from updaterd.net.body import Body, ShortAnswerError
from updaterd.net.connect import (
    open_client,
    origin_of,
    read_headers,
    require_secure,
)
from updaterd.net.failures import (
    HttpError,
    MisbehavedError,
    NotFoundError,
    as_ours,
    too_much,
    too_slow,
)

DEADLINE_S = 30.0
"""Seconds a small request may take, from connecting to its last byte."""
WINDOW_S = 30.0
MIN_RATE = 1024
"""Bytes per second; a blob that comes slower is given up and resumed later."""
MAX_REDIRECTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """An answer whose body is still on its way.

    Args:
        status: 200, or 206 when the range was honoured.
        headers: the answer's, names in lower case.
        chunks: the body; raises as `Fetcher.get` does.
    """

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


class Fetcher:
    """HTTP for code that waits: one client, whole-request deadlines, byte limits.

    An asynchronous client on a private loop, because a synchronous one cannot
    bound a server that sends its headers one byte at a time: its deadlines start
    anew with every byte. Not for use by two threads at once, nor inside a loop.

    Args:
        headers: sent only to `origin`, when that is given: a mirror must not see
            the repository's credentials.
        headers_file: more of them, see `read_headers`.
        ca_file: PEM, replaces the system's CAs.
        proxy: address of the proxy.
        origin: address whose scheme, host and port the headers are for.
        deadline_s: seconds for a small request, where a call does not say.
        window_s: seconds of waiting over which a minimum rate is judged.
        max_rate: bytes of bodies a second, over everything that is fetched; None:
            as fast as it comes. No deadline counts the waits that this makes.
        clock: seconds, never going back.
        pause: waits so many of them.

    Raises:
        BrokenError: headers file, CA file or proxy cannot be used.
    """

    def __init__(  # noqa: PLR0913
        self,
        *,
        headers: Mapping[str, str] | None = None,
        headers_file: PurePath | None = None,
        ca_file: PurePath | None = None,
        proxy: str | None = None,
        origin: str | None = None,
        deadline_s: float = DEADLINE_S,
        window_s: float = WINDOW_S,
        max_rate: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = Rate(max_rate, clock())
        self._clock = clock
        self._pause = pause
        self.deadline_s = deadline_s
        self._window_s = window_s
        self._headers = dict(headers or {})
        if headers_file is not None:
            self._headers.update(read_headers(headers_file))
        self._origin = origin_of(origin) if origin else None
        self._client = open_client(ca_file=ca_file, proxy=proxy)
        self._loop = asyncio.new_event_loop()
        self.requests = 0
        self.received = 0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the connections; may be called twice."""
        if self._loop.is_closed():
            return
        self._loop.run_until_complete(self._client.aclose())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def get(
        self,
        url: str,
        *,
        limit: int,
        deadline_s: float | None = None,
        length: int | None = None,
    ) -> bytes:
        """Return the body at `url`; an answer that breaks is continued by Range.

        Args:
            url: https, or http to a loopback address.
            limit: largest accepted body in bytes.
            deadline_s: seconds for everything, redirects and body included; None:
                the fetcher's.
            length: bytes of the file, where a hash was signed with it, which the
                caller compares.

        Raises:
            NotFoundError: 404 or 403.
            HttpError: any other status than 200.
            MisbehavedError: more than `limit`, an encoded body, a redirect to
                another origin.
            TransientError: no connection, or the deadline passed.
            BrokenError: the address is neither https nor loopback.
        """
        deadline_s = self.deadline_s if deadline_s is None else deadline_s
        return self._loop.run_until_complete(self._get(url, limit, deadline_s, length))

    async def _get(
        self, url: str, limit: int, deadline_s: float, length: int | None
    ) -> bytes:
        async with as_ours(url), asyncio.timeout(deadline_s) as scope:
            response = await self._open(url, {})
            body = Body(
                response,
                start=0,
                end=length,
                reopen=self._reopen(url, None),
                by_hash=length is not None,
            )
            try:
                data = bytearray()
                # One that ends in good order is another file as likely as a cut one:
                # the caller's hash tells, and calls it what it is.
                with suppress(ShortAnswerError):
                    while chunk := await body.next():
                        data += chunk
                        if len(data) > limit:
                            raise too_much(url, limit)
                        waited = self._pay(len(chunk))
                        scope.reschedule((scope.when() or 0.0) + waited)
                return bytes(data)
            finally:
                await body.close()

    def _reopen(
        self, url: str, end: int | None
    ) -> Callable[[int, str | None], Awaitable[httpx.Response]]:
        last = "" if end is None else str(end - 1)

        def reopen(at: int, tag: str | None) -> Awaitable[httpx.Response]:
            headers = {"Range": f"bytes={at}-{last}"}
            return self._open(url, headers | ({"If-Range": tag} if tag else {}))

        return reopen

    def _pay(self, came: int) -> float:
        """Wait until what came is within the rate; return how long it was."""
        self.received += came
        seconds = self._rate.take(came, self._clock())
        if seconds > 0:
            self._pause(seconds)
        return seconds

    def post(
        self,
        url: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
    ) -> tuple[int, bytes]:
        """Return status and body (64 KiB at most) of the answer to a POST of JSON.

        Raises:
            MisbehavedError: more than the limit, or an encoded body.
            TransientError: no connection, or the deadline passed.
            BrokenError: the address is neither https nor loopback.
        """
        status, _, answer = self.exchange(url, body, headers=headers)
        return status, answer

    def exchange(
        self, url: str, body: bytes, *, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers (names in lower case) and body; else as `post`."""
        return self._loop.run_until_complete(self._post(url, body, headers))

    async def _post(
        self, url: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        async with as_ours(url), asyncio.timeout(self.deadline_s):
            sent = {"Content-Type": "application/json", **headers}
            response = await self._send("POST", url, sent, body)
            try:
                answer = bytearray()
                async for chunk in response.aiter_raw():
                    answer += chunk
                    if len(answer) > 65536:
                        raise too_much(url, 65536)
                return response.status_code, dict(response.headers), bytes(answer)
            finally:
                await response.aclose()

    @contextmanager
    def stream(  # noqa: PLR0913 - what to ask for, and when to give up
        self,
        url: str,
        *,
        start: int = 0,
        end: int | None = None,
        length: int | None = None,
        if_range: str | None = None,
        min_rate: int = MIN_RATE,
    ) -> Iterator[Stream]:
        """Yield the answer for `url` from byte `start` on.

        A body that breaks off is continued, as long as each answer brings something
        (`net/body.py`): the caller compares the whole with a hash.

        Args:
            url: https, or http to a loopback address.
            start: first byte wanted; the answer may be 200 with all of them.
            end: the byte after the last one wanted; None: to the end.
            length: bytes of the whole file, where it is known.
            if_range: strong `ETag` of what is already here (RFC 9110 13.1.5).
            min_rate: bytes per second below which a window of `window_s` seconds
                of waiting gives up; the caller's own pauses do not count. Until
                the headers are complete, `deadline_s` counts.

        Raises:
            HttpError: neither 200 nor 206; 416 when `start` is past the end.
            ShortAnswerError: it ended before the file did.
            MisbehavedError: an encoded body, a redirect to another origin, or
                slower than `min_rate`.
            TransientError: no connection, or the deadline passed.
            BrokenError: the address is neither https nor loopback.
        """
        headers = {}
        if start or end is not None:
            last = "" if end is None else str(end - 1)
            headers["Range"] = f"bytes={start}-{last}"
            if if_range:
                headers["If-Range"] = if_range
        response = self._loop.run_until_complete(self._head(url, headers))
        body = Body(
            response,
            start=start if response.status_code == 206 else 0,
            end=end if response.status_code == 206 and end is not None else length,
            reopen=self._reopen(url, end),
            by_hash=True,
        )
        try:
            yield Stream(
                status=response.status_code,
                headers=dict(response.headers),
                chunks=self._chunks(body, url, min_rate),
            )
        finally:
            self._loop.run_until_complete(body.close())

    async def _head(self, url: str, headers: dict[str, str]) -> httpx.Response:
        async with as_ours(url), asyncio.timeout(self.deadline_s):
            return await self._open(url, headers)

    def _chunks(self, body: Body, url: str, min_rate: int) -> Iterator[bytes]:
        waited, came = 0.0, 0
        while True:
            before = self._loop.time()
            chunk = self._loop.run_until_complete(
                _next(body, url, self._window_s - waited)
            )
            if not chunk:
                return
            waited += self._loop.time() - before
            came += len(chunk)
            self._pay(len(chunk))
            yield chunk
            if waited >= self._window_s / 2:
                if came < waited * min_rate:
                    raise too_slow(url)
                waited, came = 0.0, 0

    async def _open(self, url: str, headers: dict[str, str]) -> httpx.Response:
        # only redirects that stay on the same origin are followed
        at = url
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._send("GET", at, headers)
            if response.status_code not in {301, 302, 303, 307, 308}:
                return await _checked(response, at)
            await response.aclose()
            to = urljoin(at, response.headers.get("location", ""))
            if origin_of(to) != origin_of(at):
                raise MisbehavedError(
                    f"{at:.200} redirects to another origin, {to:.200}",
                    means="the redirect was not followed: updaterd fetches from the "
                    "configured server only",
                    do="configure the final address",
                    code="cross_origin_redirect",
                )
            at = to
        raise MisbehavedError(f"{url:.200} redirects in circles", code="redirects")

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> httpx.Response:
        require_secure(url)
        is_own = self._origin is None or origin_of(url) == self._origin
        request = self._client.build_request(
            method,
            url,
            content=body or None,
            headers={
                **(self._headers if is_own else {}),
                "Accept-Encoding": "identity",
                **headers,
            },
        )
        self.requests += 1
        return await self._client.send(request, stream=True)


async def _checked(response: httpx.Response, url: str) -> httpx.Response:
    status = response.status_code
    if status in {200, 206} and "content-encoding" not in response.headers:
        return response
    await response.aclose()
    if status in {403, 404}:
        raise NotFoundError(status, url)
    if status not in {200, 206}:
        raise HttpError(status, url)
    raise MisbehavedError(
        f"{url:.200} is compressed, although the request forbade that",
        do="let the server or proxy send metadata and blobs without compression",
        code="content_encoding",
    )


async def _next(body: Body, url: str, patience_s: float) -> bytes:
    # the next chunk, empty at the end
    try:
        async with as_ours(url), asyncio.timeout(patience_s):
            return await body.next()
    except TransientError as error:
        if error.code == "timeout":
            raise too_slow(url) from error
        raise
