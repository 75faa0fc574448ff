# SPDX-License-Identifier: Apache-2.0
"""A stream and its owner, whichever sink carries it, and the refusal of one."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from updaterd.server.streams import frames
from updaterd.server.streams.frames import Frame
from updaterd.server.streams.hub import Port
from updaterd.server.streams.request import StreamRequest


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer instead of a stream.

    Attributes:
        status: HTTP status.
        code: stable name, for the body and for metrics.
        retry_after_s: 0 when there is no point in coming back.
        browser: whom it goes to gives up for ever on anything but 200.
    """

    status: int
    code: str
    retry_after_s: int = 0
    browser: bool = False

    @property
    def as_stream(self) -> bytes | None:
        """A stream that only says when to come back; None where 503 is understood.

        EventSource never reconnects after a status other than 200 (WHATWG HTML
        9.2.2), so a browser that is to wait is told so in a stream that ends.
        """
        if self.browser and self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return frames.retry(self.retry_after_s * 1000).plain
        return None


class Owner(Protocol):
    """All streams of a process, as one of them sees it (`streams.Streams`).

    Attributes:
        queue_bytes: that may wait for one reader.
        clock: seconds on a steady clock.
    """

    queue_bytes: int
    clock: Callable[[], float]

    def knock(self, request: StreamRequest) -> Refusal | str:
        """Return why there is no stream for a request, or the id of its token."""
        ...

    def begin(self, stream: "Stream", cursor: str, head: bytes = b"") -> None:
        """Greet a stream that was let in, after its head, and let it join."""
        ...

    def beat(self, stream: "Stream") -> None:
        """Let a stream say that it is alive."""
        ...

    def rotate(self, stream: "Stream") -> None:
        """End a stream whose time is up."""
        ...

    def end(self, stream: "Stream") -> None:
        """Forget a stream whose connection is gone."""
        ...

    def too_slow(self, full_since: float, queued: int) -> bool:
        """Tell whether a reader is to be dropped."""
        ...

    def drop_slow(self, stream: "Stream") -> None:
        """Drop a stream that does not read what it is sent."""
        ...


class Stream(ABC):
    """The base of both sinks: filter, client, token, and place on the wheel.

    Args:
        owner: where it belongs.
        request: what it was asked for with.
        token: id of its token, empty when it needs none.

    Attributes:
        topics: its filter.
        address: whom it counts for.
        token: id of its token, empty when it needs none.
        window: the `retry:` window it was told last, in whole seconds.
        closed: nothing is written any more.
        port: see `hub.Sink`.
        detached: its connection is no longer uvicorn's.
    """

    detached = False
    __slots__ = (
        "_full_since",
        "_owner",
        "address",
        "closed",
        "port",
        "slot",
        "token",
        "topics",
        "turns",
        "window",
    )

    def __init__(self, owner: Owner, request: StreamRequest, token: str) -> None:
        self._owner = owner
        self._full_since = 0.0
        self.topics = request.topics
        self.address = request.address
        self.token = token
        self.closed = False
        self.port: Port | None = None
        self.window = 0
        self.turns = 0
        self.slot = 0

    @abstractmethod
    def write(self, block: Frame) -> None:
        """Queue a block; drop the stream when too much waits already."""

    @abstractmethod
    def finish(self) -> None:
        """End the response properly once everything queued is written."""

    @abstractmethod
    def drop(self) -> None:
        """Cut the connection now and free what is queued."""

    @abstractmethod
    async def drained(self) -> None:
        """Return once little is queued.

        Raises:
            ConnectionError: the stream is gone.
        """

    def beat(self) -> None:
        """See `wheel.Rider`."""
        self._owner.beat(self)

    def rotate(self) -> None:
        """See `wheel.Rider`."""
        self._owner.rotate(self)
