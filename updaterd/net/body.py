# SPDX-License-Identifier: Apache-2.0
"""The body of an answer, continued by Range where the connection breaks.

Proxies cut long answers, servers restart, lines flap. As long as each answer brings
something, the file comes in one run, however many answers it takes; one that brings
next to nothing ends the run, and the next one goes on from there.
"""

import time
from collections.abc import Callable

from updaterd.core.text import public_url
from updaterd.errors import TransientError
from updaterd.net.answer import Answer
from updaterd.net.failures import LostError

WORTHWHILE = 16 * 1024
"""Bytes an answer must bring before another one is asked for in the same run."""

Reopen = Callable[[int, str | None, float], Answer]
"""Asks for the rest of the same file: from which byte on, `If-Range`, patience."""


class ShortAnswerError(TransientError):
    """The answer ended in good order, but before the file did."""

    code = "short_answer"


class Body:
    """The bytes of one file, from as many answers as it takes.

    Args:
        answer: the first one, its body unread.
        url: what was asked for, for a person.
        start: the byte that the body begins with.
        end: the byte after the last one; None when it is not known.
        reopen: asks for the rest.
        by_hash: the caller compares the whole with a hash, so answers that have no
            strong `ETag` may be joined.
    """

    def __init__(  # noqa: PLR0913
        self,
        answer: Answer,
        url: str,
        *,
        start: int,
        end: int | None,
        reopen: Reopen,
        by_hash: bool,
    ) -> None:
        self.answer = answer
        self._url = url
        self._at = start
        self._end = end
        self._reopen = reopen
        self._by_hash = by_hash
        self._came = 0

    def next(self, patience_s: float) -> bytes:
        """Return the next bytes; none at the end.

        Args:
            patience_s: how long they may take, asking for the rest included.

        Raises:
            ShortAnswerError: it ended before `end`.
            LostError: the connection broke, and not enough came to ask again.
            TransientError: nothing came in time; or the rest was asked for, and the
                server refused.
        """
        until = time.monotonic() + patience_s
        while True:
            try:
                piece = self.answer.read(until - time.monotonic())
            except LostError:
                if self._end is not None and self._at >= self._end:
                    return b""  # only the end of a chunked body is missing
                if not self._continue(until - time.monotonic()):
                    raise
                continue
            if piece:
                self._at += len(piece)
                self._came += len(piece)
                return piece
            if self._end is None or self._at >= self._end:
                return b""
            if not self._continue(until - time.monotonic()):
                raise ShortAnswerError(
                    f"{public_url(self._url):.200} ended after {self._at} of "
                    f"{self._end} bytes",
                    means="a proxy or the server cuts answers short; what came is kept",
                    do="updaterd goes on from there by itself; if it lasts, look at "
                    "the proxy's limits",
                )

    def _continue(self, patience_s: float) -> bool:
        """Ask for the rest; tell whether it comes."""
        tag: str | None = self.answer.headers.get("etag", "")
        if not tag or not tag.startswith('"'):
            tag = None  # only strong ones may stand in If-Range
        if self._came < WORTHWHILE or not (tag or self._by_hash):
            return False
        self.answer.close()
        answer = self._reopen(self._at, tag, patience_s)
        named = answer.headers.get("content-range", "")
        if answer.status != 206 or not named.startswith(f"bytes {self._at}-"):
            answer.close()  # another edition, or a server without ranges
            return False
        self.answer = answer
        self._came = 0
        return True

    def close(self) -> None:
        """Be done with the answer."""
        self.answer.close()
