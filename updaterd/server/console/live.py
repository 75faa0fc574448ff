# SPDX-License-Identifier: Apache-2.0
"""The console's own stream: it says that something changed, never what.

A page that hears it asks for itself again, with its own cookie and its own limits.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.responses import Response, StreamingResponse

from updaterd.server.console.rendering import HEADERS, page

MOST_STREAMS = 100
_LOOK_S = 1.0
_SHARE_S = 0.25  # a page costs CPU: all streams together cause so many of them
_QUIET_S = 15.0


class Live:
    """Streams of open pages, so many at most.

    Args:
        mark: something that differs once there is news.
    """

    def __init__(self, mark: Callable[[], object]) -> None:
        self._mark = mark
        self._closing = asyncio.Event()
        self.count = 0

    def close(self) -> None:
        """End all streams: the server stops."""
        self._closing.set()

    def pause_s(self) -> float:
        """Return how long a stream says nothing after it said something."""
        return max(_LOOK_S, self.count * _SHARE_S)

    def answer(self, is_allowed: Callable[[], bool]) -> Response:
        """Return a stream that lasts as long as its reader may look.

        Args:
            is_allowed: asked again and again; a token may be revoked.
        """
        if self.count >= MOST_STREAMS or self._closing.is_set():
            headers = {"retry-after": "60"}
            return page(
                "problem.html", status=503, headers=headers, is_in=False,
                title="Too many pages are open", text="Reload it from time to time.",
            )  # fmt: skip
        headers = HEADERS | {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(
            self._events(is_allowed), headers=headers, media_type="text/event-stream"
        )

    async def _events(self, is_allowed: Callable[[], bool]) -> AsyncIterator[bytes]:
        self.count += 1
        try:
            last, quiet = self._mark(), 0.0
            yield b"retry: 5000\n\nevent: open\ndata:\n\n"
            while is_allowed():
                try:
                    await asyncio.wait_for(self._closing.wait(), self.pause_s())
                except TimeoutError:
                    pass
                else:
                    return
                mark, quiet = self._mark(), quiet + self.pause_s()
                if mark != last or quiet >= _QUIET_S:
                    # also where nothing was heard of: another process may count, too
                    last, quiet = mark, 0.0
                    yield b"event: changed\ndata:\n\n"
        finally:
            self.count -= 1
