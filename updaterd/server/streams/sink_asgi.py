# SPDX-License-Identifier: Apache-2.0
"""Streams through plain ASGI: the sink that works on any server and proxy."""

import asyncio
from contextlib import suppress

from starlette.types import Receive, Send

from updaterd.server.streams.frames import Frame
from updaterd.server.streams.peer import Peer
from updaterd.server.streams.request import StreamRequest
from updaterd.server.streams.stream import Owner, Stream

_DRAIN_DEADLINE_S = 60.0


class AsgiStream(Stream):
    """A queue that a task empties into `send`."""

    __slots__ = ("_ended", "_peer", "_queue", "_room", "_size", "_wake")

    def __init__(
        self,
        owner: Owner,
        request: StreamRequest,
        token: str,
        peer: Peer,
    ) -> None:
        super().__init__(owner, request, token)
        self._peer = peer
        self._queue: list[bytes] = []
        self._size = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False

    def write(self, block: Frame) -> None:
        """See `stream.Stream`."""
        if self.closed:
            return
        if self._full_since and self._owner.too_slow(self._full_since, self._size):
            self._owner.drop_slow(self)
            return
        self._queue.append(block.plain)
        self._size += len(block.plain)
        if not self._full_since and self._size > self._owner.queue_bytes:
            self._full_since = self._owner.clock()
        self._wake.set()

    def finish(self) -> None:
        """See `stream.Stream`."""
        self.closed = True
        self._wake.set()

    def drop(self) -> None:
        """See `stream.Stream`."""
        self.closed = self._ended = True
        self._queue.clear()
        self._peer.reset()
        self._wake.set()
        self._room.set()

    async def drained(self) -> None:
        """See `stream.Stream`.

        Raises:
            ConnectionError: the stream is gone.
        """
        try:
            async with asyncio.timeout(_DRAIN_DEADLINE_S):
                while self._size > self._owner.queue_bytes // 2:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            self._owner.drop_slow(self)
        if self._ended:
            raise ConnectionError

    async def run(self, cursor: str, receive: Receive, send: Send) -> None:
        """Carry the stream until either side ends it."""
        self._peer.bound()
        watcher = asyncio.create_task(self._watch(receive))
        self._owner.begin(self, cursor)
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
                    if self._size <= self._owner.queue_bytes:
                        self._full_since = 0.0
                    self._room.set()
                elif self.closed:
                    break
            with suppress(OSError):
                await send({"type": "http.response.body", "body": b""})
        finally:
            self.closed = self._ended = True
            self._room.set()
            self._owner.end(self)
            watcher.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.drop()
