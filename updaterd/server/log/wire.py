# SPDX-License-Identifier: Apache-2.0
"""Commands to Redis and their answers, in terms of the event log."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from updaterd.server.log.contract import (
    Event,
    LogDownError,
    Position,
    Record,
    read_topic,
)

_TIMEOUT_S = 5.0

_POSITION = re.compile(rb"([0-9]{1,20})-([0-9]{1,20})")
_EPOCH = re.compile(rb"[0-9a-f]{8}")
_REMEDIES: dict[type[ResponseError], str] = {
    OutOfMemoryError: "raise Redis' maxmemory, or lower --keep-events",
    ReadOnlyError: "point --log at the primary: this Redis is a replica",
}


def connect(url: str, timeout_s: float) -> redis.Redis:
    """Return a client of an address, in `timeout_s` seconds an answer or a failure."""
    # no retries of its own: `_send` knows what may be repeated, and for how long
    return redis.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=timeout_s,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )


async def send(client: redis.Redis, *command: Any) -> Any:
    """Send one command.

    Raises:
        LogDownError: no answer, or a refusal.
    """
    ask: Callable[..., Awaitable[Any]] = client.execute_command  # it has no types
    try:
        try:
            return await ask(*command)
        except redis.ConnectionError:
            # a pooled connection that died while it rested. All that is sent here
            # may be sent twice: the append knows its key
            return await ask(*command)
    except ResponseError as error:
        raise LogDownError(
            f"the event log in Redis refused: {error}",
            means="what was asked of it was not done",
            do=_REMEDIES.get(type(error), "check Redis"),
        ) from error
    # uvloop's RuntimeError: redis-py wrote to a transport that was closed meanwhile.
    except (RedisError, OSError, TimeoutError, RuntimeError) as error:
        raise LogDownError(
            f"the event log in Redis failed: {type(error).__name__} {error}",
            means="an announcement may or may not have been stored",
            do="check Redis; send it again with the same Idempotency-Key",
        ) from error


def write_position(position: Position) -> str:
    """Return a position as an entry's id in Redis."""
    return f"{position.ms}-{position.seq}"


def read_position(raw: bytes) -> Position:
    """Return the position that an entry's id stands for.

    Raises:
        LogDownError: it is no id.
    """
    ms, _, seq = _text_of(raw, _POSITION).partition("-")
    return Position(int(ms), int(seq))


def read_epoch(raw: bytes) -> str:
    """Return the name of a life of the log.

    Raises:
        LogDownError: it is none.
    """
    return _text_of(raw, _EPOCH)


def _text_of(raw: bytes, shape: re.Pattern[bytes]) -> str:
    """Return a value as text; it must have the shape that this log writes.

    Raises:
        LogDownError: somebody else's.
    """
    if shape.fullmatch(raw):
        return raw.decode()
    raise LogDownError(
        f"something else has written to the event log in Redis: {raw[:80]!r}",
        means="streams stay open; nothing can be announced or replayed",
        do="give updaterd a Redis database of its own, or delete its keys there "
        "({updaterd}:*): subscribers then reconcile from signed metadata",
    )


def read_record(wire_id: bytes, flat: Any) -> Record | None:
    """Return what an entry announces; None when it is no announcement."""
    try:
        fields = flat
        if not isinstance(flat, dict):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
        name, topic, data = fields[b"name"], fields[b"topic"], fields[b"data"]
        event = Event(name.decode("ascii"), read_topic(topic.decode()), data)
        data.decode()
    except (KeyError, TypeError, ValueError):
        return None
    if not event.name.isidentifier() or b"\n" in data or b"\r" in data:
        return None  # it would break the stream's lines
    return Record(read_position(wire_id), event)
