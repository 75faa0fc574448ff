# SPDX-License-Identifier: Apache-2.0
"""The body of an answer, continued by Range where the connection breaks.

Proxies cut long answers, servers restart, lines flap. As long as each answer brings
something, the file comes in one run, however many answers it takes; one that brings
next to nothing ends the run, and the next one goes on from there.
"""

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx

from updaterd.errors import TransientError

WORTHWHILE = 16 * 1024
"""Bytes an answer must bring before another one is asked for in the same run."""

Reopen = Callable[[int, str | None], Awaitable[httpx.Response]]
"""Asks for the rest of the same file: from which byte on, and `If-Range`."""


class ShortAnswerError(TransientError):
    """The answer ended in good order, but before the file did."""

    code = "short_answer"


class Body:
    """The bytes of one file, from as many answers as it takes.

    Args:
        response: the first answer, its body unread.
        start: the byte that the body begins with.
        end: the byte after the last one; None when it is not known.
        reopen: asks for the rest.
        by_hash: the caller compares the whole with a hash, so answers that have no
            strong `ETag` may be joined.
    """

    def __init__(
        self,
        response: httpx.Response,
        *,
        start: int,
        end: int | None,
        reopen: Reopen,
        by_hash: bool,
    ) -> None:
        self.response = response
        self._at = start
        self._end = end
        self._reopen = reopen
        self._by_hash = by_hash
        self._came = 0
        self._pieces: AsyncIterator[bytes] = response.aiter_raw()

    async def next(self) -> bytes:
        """Return the next bytes; none at the end.

        Raises:
            ShortAnswerError: it ended before `end`.
            httpx.HTTPError: the connection broke, and not enough came to ask again.
            TransientError: the rest was asked for, and the server refused.
        """
        while True:
            try:
                piece = await anext(self._pieces, None)
            except httpx.HTTPError:
                if not await self._continue():
                    raise
                continue
            if piece:
                self._at += len(piece)
                self._came += len(piece)
                return piece
            if piece is not None:
                continue
            if self._end is None or self._at >= self._end:
                return b""
            if not await self._continue():
                raise ShortAnswerError(
                    f"{self.response.url!s:.200} ended after {self._at} of "
                    f"{self._end} bytes",
                    means="a proxy or the server cuts answers short; what came is kept",
                    do="updaterd goes on from there by itself; if it lasts, look at "
                    "the proxy's limits",
                )

    async def _continue(self) -> bool:
        """Ask for the rest; tell whether it comes."""
        tag: str | None = self.response.headers.get("etag", "")
        if not tag or not tag.startswith('"'):
            tag = None  # only strong ones may stand in If-Range
        if self._came < WORTHWHILE or not (tag or self._by_hash):
            return False
        await self.response.aclose()
        answer = await self._reopen(self._at, tag)
        named = answer.headers.get("content-range", "")
        if answer.status_code != 206 or not named.startswith(f"bytes {self._at}-"):
            await answer.aclose()  # another edition, or a server without ranges
            return False
        self.response = answer
        self._came = 0
        self._pieces = answer.aiter_raw()
        return True

    async def close(self) -> None:
        """Close the connection."""
        await self.response.aclose()
