"""Streams through plain ASGI: the sink that works on any server and proxy."""

import asyncio
from contextlib import suppress

from starlette.types import Receive, Send

from updaterd.server.frames import Frame
from updaterd.server.hub import Filter
from updaterd.server.peer import Peer
from updaterd.server.request import StreamRequest
from updaterd.server.streams import Streams

_DRAIN_DEADLINE_S = 60.0


class AsgiStream:
    """A queue that a task empties into `send`; see `streams.Stream`."""

    taken = False
    __slots__ = (
        "_ended",
        "_full_since",
        "_peer",
        "_queue",
        "_room",
        "_size",
        "_streams",
        "_wake",
        "address",
        "closed",
        "slot",
        "token",
        "turns",
        "wanted",
        "window",
    )

    def __init__(
        self,
        streams: Streams,
        request: StreamRequest,
        token: str,
        peer: Peer,
    ) -> None:
        self._streams = streams
        self._peer = peer
        self._queue: list[bytes] = []
        self._size = 0
        self._full_since = 0.0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self.closed = False
        self._ended = False
        self.wanted: Filter = request.wanted
        self.address = request.address
        self.token = token
        self.window = 0
        self.turns = 0
        self.slot = 0

    def write(self, block: Frame) -> None:
        """See `streams.Stream`."""
        if self.closed:
            return
        if self._full_since and self._streams.too_slow(self._full_since, self._size):
            self._streams.slow(self)
            return
        self._queue.append(block.plain)
        self._size += len(block.plain)
        if not self._full_since and self._size > self._streams.options.queue_bytes:
            self._full_since = self._streams.clock()
        self._wake.set()

    def finish(self) -> None:
        """See `streams.Stream`."""
        self.closed = True
        self._wake.set()

    def drop(self) -> None:
        """See `streams.Stream`."""
        self.closed = self._ended = True
        self._queue.clear()
        self._peer.reset()
        self._wake.set()
        self._room.set()

    async def drained(self) -> None:
        """See `streams.Stream`.

        Raises:
            ConnectionError: the stream is gone.
        """
        try:
            async with asyncio.timeout(_DRAIN_DEADLINE_S):
                while self._size > self._streams.options.queue_bytes // 2:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            self._streams.slow(self)
        if self._ended:
            raise ConnectionError

    def beat(self) -> None:
        """See `wheel.Rider`."""
        self._streams.beat(self)

    def rotate(self) -> None:
        """See `wheel.Rider`."""
        self._streams.rotate(self)

    async def run(self, cursor: str, receive: Receive, send: Send) -> None:
        """Carry the stream until either side ends it."""
        self._peer.bound()
        gone = asyncio.create_task(self._watch(receive))
        self._streams.begin(self, cursor)
        try:
            while not self._ended:
                await self._wake.wait()
                self._wake.clear()
                if data := b"".join(self._queue):
                    self._queue.clear()
                    await send({
                        "type": "http.response.body",
                        "body": data,
                        "more_body": True,
                    })
                    self._size = sum(map(len, self._queue))
                    if self._size <= self._streams.options.queue_bytes:
                        self._full_since = 0.0
                    self._room.set()
                elif self.closed:
                    break
            with suppress(OSError):
                await send({"type": "http.response.body", "body": b""})
        finally:
            self.closed = self._ended = True
            self._room.set()
            self._streams.end(self)
            gone.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.drop()
