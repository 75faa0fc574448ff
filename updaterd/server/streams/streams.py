# SPDX-License-Identifier: Apache-2.0
"""All streams of a process: admits, greets, rotates and ends them.

Streams that were taken over are invisible to uvicorn's limits and shutdown, so they
are counted here, all of them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from updaterd.errors import UpdaterError
from updaterd.server.metrics import Metrics
from updaterd.server.options import Options
from updaterd.server.streams import frames
from updaterd.server.streams.admission import Admission
from updaterd.server.streams.frames import Frame
from updaterd.server.streams.hub import Hub
from updaterd.server.streams.ledger import Ledger, OwnLedger
from updaterd.server.streams.opening import Opening
from updaterd.server.streams.request import StreamRequest
from updaterd.server.streams.stream import Refusal, Stream
from updaterd.server.streams.wheel import Wheel
from updaterd.server.tokens import Tokens

_DRAIN_STEP_S = 0.05
_LATER_S = 60
_PATIENCE_S = 5.0
_PATIENCE_FACTOR = 4
_HOLDER = "token "  # no address begins so


@dataclass(frozen=True, slots=True)
class World:
    """Time and chance, handed in.

    Attributes:
        clock: seconds on a steady clock.
        now: seconds since 1970.
        draw: uniform in [0, 1).
        ledger: where all streams of the host are counted; None for a process alone.
    """

    clock: Callable[[], float]
    now: Callable[[], float]
    draw: Callable[[], float]
    ledger: Ledger | None = None


class Streams:
    """All streams of this process.

    Args:
        options: limits and times.
        hub: where events come from.
        tokens: who may read, when the feed is private.
        metrics: told of what happens.
        world: time and chance, and who counts.
    """

    def __init__(
        self,
        options: Options,
        hub: Hub,
        *,
        tokens: Tokens,
        metrics: Metrics,
        world: World,
    ) -> None:
        self.options = options
        self.hub = hub
        self.wheel = Wheel(period_s=options.heartbeat_s)
        self._tokens = tokens
        self._metrics = metrics
        self.clock = world.clock
        self._draw = world.draw
        self._admission = Admission(
            rate=options.rate,
            burst=options.burst,
            expected=options.expected_streams,
            now=world.clock(),
        )
        self._ledger = world.ledger or OwnLedger()
        self._behind: set[asyncio.Task[None]] = set()
        self.queue_bytes = options.queue_bytes
        self._at_once = options.queue_bytes // 2
        self._window = 0
        self.most = options.max_streams
        self.count = 0
        self.detached = 0
        self.ready = False
        self.draining = False

    def knock(self, request: StreamRequest) -> Refusal | str:
        """Return why there is no stream for this request, or the id of its token."""
        refusal = self._judge(request)
        if isinstance(refusal, Refusal):
            self._metrics.refused(refusal.code)
            return replace(refusal, browser=request.browser)
        return refusal

    def check(self, request: StreamRequest) -> Refusal | str:
        """Return why this request gets no stream at any time, or its token's id."""
        if not request.acceptable:
            return Refusal(406, "not_acceptable")
        return self._reader(request) if self.options.private else ""

    def _judge(self, request: StreamRequest) -> Refusal | str:
        token = self.check(request)
        if isinstance(token, Refusal):
            return token
        of = self._ledger.of
        limit = self.options.max_per_token
        if limit and token and of(_HOLDER + token) >= limit:
            return Refusal(429, "too_many_of_token", _LATER_S)
        limit = self.options.max_per_address
        if limit and of(request.address) >= limit:
            return Refusal(429, "too_many_of_address", _LATER_S)
        if self.draining or not self.ready:
            return Refusal(503, "not_ready", self._later())
        if self.count >= self.most or self._ledger.total() >= self.options.max_streams:
            return Refusal(503, "full", self._later())
        wait = self._admission.admit(
            self.clock(), draw=self._draw(), client=token or request.address
        )
        return Refusal(503, "too_many_at_once", wait) if wait else token

    def _reader(self, request: StreamRequest) -> Refusal | str:
        try:
            token = self._tokens.with_digest(request.digest) if request.digest else None
        except UpdaterError as error:
            return Refusal(503, error.code, _LATER_S)
        if token is None:
            return Refusal(401, "token_required")
        return token.id if token.may("read") else Refusal(403, "scope_missing")

    def _later(self) -> int:
        return 1 + int(self._draw() * self._admission.window_s(self.count))

    def begin(self, stream: Stream, cursor: str, head: bytes = b"") -> None:
        """Greet a stream that was let in, and let it join.

        Head, `retry:`, what was missed and the greeting are one write.

        Args:
            stream: its `topics`, `address` and `token` are set.
            cursor: its `Last-Event-ID`.
            head: of the response, where the sink has not written it.
        """
        self.count += 1
        self.detached += stream.detached
        self._metrics.streams(self.count)
        ms = self._admission.retry_ms(self.count, draw=self._draw())
        stream.window = self._window = int(self._admission.window)
        self._ledger.add(_keys_of(stream), 1)
        self.wheel.add(stream, turns=self._lifetime_turns())
        retry = frames.retry(ms)
        opening, greeting = self.hub.greeting(stream.topics, cursor)
        if isinstance(opening, Opening) and opening.size <= self._at_once:
            self._join(
                stream,
                opening,
                Frame(
                    head + retry.plain + greeting.plain,
                    head + retry.chunk + greeting.chunk,
                ),
            )
            return
        stream.write(Frame(head + retry.plain, head + retry.chunk))
        task = asyncio.get_running_loop().create_task(self._catch_up(stream, cursor))
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    def _join(self, stream: Stream, opening: Opening, whole: Frame) -> None:
        stream.write(whole)
        stream.topics = self.hub.join(stream, stream.topics)
        self._metrics.opened(opening.kind)

    async def _catch_up(self, stream: Stream, cursor: str) -> None:
        try:
            opening = await self.hub.backlog(
                stream.topics,
                cursor,
                stream.write,
                stream.drained,
                most=self._at_once,
            )
        except ConnectionError:
            return  # the client left; `end` was called
        except UpdaterError:
            stream.finish()  # the log is down: the client comes back to its cursor
            return
        if not stream.closed:
            self._join(stream, opening, opening.joined())

    def _lifetime_turns(self) -> int:
        turns = self.options.lifetime_s / self.options.heartbeat_s
        return max(2, int(turns * (0.8 + 0.4 * self._draw())))

    def _write_retry(self, stream: Stream) -> None:
        ms = self._admission.retry_ms(self.count, draw=self._draw())
        stream.window = self._window
        stream.write(frames.retry(ms))

    def beat(self, stream: Stream) -> None:
        """Write a heartbeat; a new `retry:` when the fleet has outgrown the old.

        A stream whose token was revoked ends here, a heartbeat later at most.
        """
        if stream.token and self._revoked(stream.token):
            self._metrics.dropped("revoked")
            stream.finish()
        elif self._window > 2 * stream.window + 2:
            self._write_retry(stream)
        else:
            stream.write(frames.HEARTBEAT)

    def _revoked(self, token_id: str) -> bool:
        try:
            token = self._tokens.get(token_id)
        except UpdaterError:
            return False  # the file is damaged: nobody new comes in, nobody is cut
        return token is None or not token.may("read")

    def rotate(self, stream: Stream) -> None:
        """End a stream whose time is up; it comes back, here or elsewhere."""
        if not stream.closed:
            self._metrics.dropped("rotated")
            stream.finish()

    def end(self, stream: Stream) -> None:
        """Forget a stream whose connection is gone."""
        self.hub.leave(stream, stream.topics)
        self.wheel.remove(stream)
        self.count -= 1
        self.detached -= stream.detached
        self._metrics.streams(self.count)
        self._ledger.add(_keys_of(stream), -1)

    def too_slow(self, full_since: float, queued: int) -> bool:
        """Tell whether a reader is to be dropped.

        Args:
            full_since: when its queue became full, on `clock`.
            queued: bytes in the queue.
        """
        return (
            queued > _PATIENCE_FACTOR * self.options.queue_bytes
            or self.clock() - full_since > _PATIENCE_S
        )

    def drop_slow(self, stream: Stream) -> None:
        """Drop a stream that does not read what it is sent."""
        self._metrics.dropped("slow")
        stream.drop()

    async def drain(self) -> None:
        """Close all streams, evenly, within the grace period.

        Each is told when to come back; none before, so no storm follows.
        """
        self.draining = True
        riders = self.wheel.riders()
        duration = min(self.options.grace_s, len(riders) / self.options.rate)
        steps = max(1, int(duration / _DRAIN_STEP_S))
        for step in range(steps):
            for rider in riders[step::steps]:
                rider.rotate()
            if step + 1 < steps:
                await asyncio.sleep(_DRAIN_STEP_S)
        for task in self._behind:
            task.cancel()


def _keys_of(stream: Stream) -> tuple[str, ...]:
    if stream.token:
        return stream.address, _HOLDER + stream.token
    return (stream.address,)
