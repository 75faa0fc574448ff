# SPDX-License-Identifier: Apache-2.0
"""The event log: what was announced, in order, and how ids are written.

Several implementations stand behind one contract test: `sqlite` (embedded), and
`redis`, `postgres` and `nats` (shared by replicas). An event's id on the wire is
`EPOCH.MS-SEQ`: the epoch names one life of the log, so that the cursor of a log that
was lost, or of another server, is recognised instead of compared.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from updaterd.errors import RejectedError, TransientError

_ID = re.compile(r"([0-9a-f]{8})\.(\d{1,15})-(\d{1,15})", re.ASCII)


class Position(NamedTuple):
    """Where an event stands in its log: milliseconds since 1970, then a count."""

    ms: int
    seq: int


ZERO = Position(0, 0)
"""Before the first event."""


def write_id(epoch: str, position: Position) -> str:
    """Return the id as it stands on the wire."""
    return f"{epoch}.{position.ms}-{position.seq}"


def read_id(text: str) -> tuple[str, Position] | None:
    """Return epoch and position of an id, or None when no server of ours wrote it."""
    match = _ID.fullmatch(text)
    if match is None:
        return None
    return match[1], Position(int(match[2]), int(match[3]))


class Topic(NamedTuple):
    """The product and channel that an event is for; None is all of them."""

    product: str | None
    channel: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """One announcement as it is stored: checked, and encoded once.

    Attributes:
        name: what stands after `event:` on the wire.
        topic: product and channel; both None for `metadata`.
        data: one JSON object in UTF-8 without line breaks.
    """

    name: str
    topic: Topic
    data: bytes


def digest_of(event: Event) -> str:
    """Return what two uses of an idempotency key are compared by."""
    return hashlib.sha256(event.name.encode() + b"\0" + event.data).hexdigest()


def write_topic(topic: Topic) -> str:
    """Return a topic as one string; names hold no slash (`core/names`)."""
    return f"{topic.product or ''}/{topic.channel or ''}"


def read_topic(text: str) -> Topic:
    """Return the topic that `write_topic` wrote."""
    product, _, channel = text.partition("/")
    return Topic(product or None, channel or None)


@dataclass(frozen=True, slots=True)
class Record:
    """An event and its place in the log."""

    position: Position
    event: Event


@dataclass(frozen=True, slots=True)
class Bounds:
    """The part of the log that can be replayed.

    Attributes:
        epoch: this life of the log.
        floor: everything after it is still there; below it, some was trimmed.
        last: newest event, `ZERO` when there never was one.
    """

    epoch: str
    floor: Position
    last: Position


@dataclass(frozen=True, slots=True)
class Appended:
    """The place an event got; `fresh` is false when the key had been used before."""

    epoch: str
    position: Position
    fresh: bool

    @property
    def id(self) -> str:
        """The id on the wire."""
        return write_id(self.epoch, self.position)


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that came after the last batch; a new epoch means the log was lost.

    Attributes:
        epoch: this life of the log.
        records: the events, oldest first; all of them after `gap`.
        gap: where to go on from, when events up to there may never have been handed
            on: trimmed before they were read, or lost by a fail-over of the log.
    """

    epoch: str
    records: tuple[Record, ...]
    gap: Position | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of the log is kept.

    Attributes:
        count: most events.
        age_s: oldest event, in seconds.
        key_s: how long an idempotency key is remembered, in seconds.
    """

    count: int = 10_000
    age_s: float = 30 * 86400.0
    key_s: float = 2 * 86400.0


class LogDownError(TransientError):
    """The log cannot be reached; nothing is known about what was asked of it."""

    code = "log_unreachable"


class KeyReusedError(RejectedError):
    """An idempotency key came back with another event."""

    code = "idempotency_key_reused"


def check_key(key: str, digest: str, event: Event) -> None:
    """Let a key be used again for the same event only.

    Raises:
        KeyReusedError: `digest` is of another event.
    """
    if digest != digest_of(event):
        raise KeyReusedError(
            f"the idempotency key {key[-60:]!r} belongs to another event",
            do="use a new key for a new event",
        )


class EventLog(Protocol):
    """The interface of an event log. Every method may raise `LogDownError`.

    Attributes:
        file: what only one server may use; None where several share the log.
    """

    @property
    def file(self) -> Path | None:
        """See above."""
        ...

    async def append(self, event: Event, key: str) -> Appended:
        """Add an event unless `key` added it before; durable on return.

        Raises:
            KeyReusedError: the key belongs to another event.
        """
        ...

    async def find(self, event: Event, key: str) -> Appended | None:
        """Return what `append` answered for this key, None when it never did.

        Raises:
            KeyReusedError: the key belongs to another event.
        """
        ...

    async def read(self, after: Position, limit: int) -> tuple[Record, ...]:
        """Return up to `limit` events after a position, oldest first."""
        ...

    async def bounds(self) -> Bounds:
        """Return epoch, floor and newest position."""
        ...

    async def newest(self) -> Mapping[Topic, Position]:
        """Return the newest position of every topic, trimmed or not."""
        ...

    def tail(self, epoch: str, after: Position) -> AsyncIterator[Batch | LogDownError]:
        """Yield what comes after a position, for ever, in order, once.

        It outlives failures of the log: it reconnects by itself. It yields the first
        error of each failure, and a batch, maybe an empty one, when that is over.
        """
        ...

    async def trim(self) -> int:
        """Forget what is too old or too much; return how many events went."""
        ...

    async def warnings(self) -> tuple[str, ...]:
        """Return what about the log's set-up could lose announcements."""
        ...

    async def close(self) -> None:
        """Release connections and files."""
        ...
