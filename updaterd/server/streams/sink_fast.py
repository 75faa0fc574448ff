# SPDX-License-Identifier: Apache-2.0
"""Streams that write to the socket themselves: no task, no queue, no dictionary.

The transport's own buffer is the queue. While it holds more than the limit, the
transport says so (`pause_writing`). A reader that stays so for some seconds, or lets
far more pile up, is dropped by the next block; one large event alone drops nobody.
"""

import asyncio

from updaterd.server.streams.frames import LAST_CHUNK, Frame
from updaterd.server.streams.peer import Peer
from updaterd.server.streams.request import StreamRequest
from updaterd.server.streams.stream import Owner, Refusal, Stream

_DRAIN_DEADLINE_S = 60.0
_FINISH_DEADLINE_S = 10.0
_MOST_CHATTER = 4096


class FastStream(Stream, asyncio.Protocol):
    """A stream that owns its connection.

    Attributes:
        chunked: whether its reader knows chunks; who has HTTP/1.0 does not.
    """

    detached = True
    chunked = True
    __slots__ = ("_room", "_transport")

    def __init__(
        self,
        owner: Owner,
        request: StreamRequest,
        token: str,
        transport: asyncio.Transport,
    ) -> None:
        super().__init__(owner, request, token)
        # most of what a delivery costs here is Python: the hub writes past `write`
        # for as long as that would only pass the bytes on
        self._transport = transport
        self.port = transport if self.chunked else None
        self._room: asyncio.Future[None] | None = None

    def write(self, block: Frame) -> None:
        """See `stream.Stream`."""
        if self.closed:
            return
        if self._full_since and self._owner.too_slow(
            self._full_since, self._transport.get_write_buffer_size()
        ):
            self._owner.drop_slow(self)
            return
        self._transport.write(block.chunk if self.chunked else block.plain)

    def finish(self) -> None:
        """See `stream.Stream`."""
        if self.closed:
            return
        self._close()
        if self.chunked:
            self._transport.write(LAST_CHUNK)
        self._transport.close()
        if self._transport.get_write_buffer_size():
            # someone who does not read must not hold the connection open
            asyncio.get_running_loop().call_later(
                _FINISH_DEADLINE_S, self._transport.abort
            )

    def drop(self) -> None:
        """See `stream.Stream`."""
        self._close()
        Peer(self._transport).reset()

    async def drained(self) -> None:
        """See `stream.Stream`.

        Raises:
            ConnectionError: the stream is gone.
        """
        if self._full_since and not self.closed:
            self._room = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(_DRAIN_DEADLINE_S):
                    await self._room
            except TimeoutError:
                self._owner.drop_slow(self)
            finally:
                self._room = None
        if self.closed:
            raise ConnectionError

    def pause_writing(self) -> None:
        """Note that the reader does not keep up."""
        self._full_since = self._owner.clock()
        self.port = None

    def resume_writing(self) -> None:
        """Note that it does again."""
        self._full_since = 0.0
        if not self.closed and self.chunked:
            self.port = self._transport
        self._wake()

    def _close(self) -> None:
        self.closed = True
        self.port = None

    def _wake(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Ignore what comes after the request; drop who keeps talking."""
        if len(data) > _MOST_CHATTER:
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the stream."""
        del exc
        self._close()
        self._wake()
        self._owner.end(self)


class PlainStream(FastStream):
    """A stream whose end is the connection's: for HTTP/1.0."""

    chunked = False
    __slots__ = ()


class Takeover:
    """Makes connections into fast streams; see `guard.Taker`.

    Args:
        owner: of the streams.
        kind: of the streams.
    """

    def __init__(self, owner: Owner, kind: type[FastStream] = FastStream) -> None:
        self._owner = owner
        self._kind = kind

    def ask(self, request: StreamRequest) -> Refusal | str:
        """See `guard.Taker`."""
        return self._owner.knock(request)

    def take(
        self,
        request: StreamRequest,
        token: str,
        transport: asyncio.Transport,
        head: bytes,
    ) -> None:
        """See `guard.Taker`."""
        stream = self._kind(self._owner, request, token, transport)
        transport.set_protocol(stream)
        high = self._owner.queue_bytes
        transport.set_write_buffer_limits(high=high, low=high // 4)
        Peer(transport).bound()
        self._owner.begin(stream, request.cursor, head)
