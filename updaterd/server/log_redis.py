"""The shared log: a Redis or Valkey stream that all replicas follow.

Redis must keep what it acknowledged: `appendonly yes`, and `maxmemory-policy
noeviction`; `warnings` says when it is not set up so. One connection a process
waits in XREAD BLOCK, always from the last id it got, never from `$`: what came
while it was away is there when it is back.

All keys share the hash tag `{updaterd}`, so that a cluster keeps them together.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from updaterd.server.log import (
    ZERO,
    Appended,
    Batch,
    Bounds,
    Event,
    LogDownError,
    Position,
    Record,
    Retention,
    Topic,
    check_key,
    digest_of,
    read_topic,
    write_topic,
)

_BATCH = 50  # an event may be half a megabyte
_BLOCK_MS = 5000
_TIMEOUT_S = 5.0
_AGAIN_S = 0.25
_TRIM_STEP = 1000

_REMEDIES: dict[type[ResponseError], str] = {
    OutOfMemoryError: "raise Redis' maxmemory, or lower --keep-events",
    ReadOnlyError: "point --log at the primary: this Redis is a replica",
}

_STREAM = "{updaterd}:events"
_NEWEST = "{updaterd}:newest"
_META = "{updaterd}:meta"
_KEY = "{updaterd}:key:"

# One script, so that event, key and newest position are written together or not at
# all, and a second attempt finds the first.
_APPEND = """
redis.call('HSETNX', KEYS[4], 'epoch', ARGV[6])
local epoch = redis.call('HGET', KEYS[4], 'epoch')
local used = redis.call('HMGET', KEYS[2], 'digest', 'id')
if used[1] then return {used[2], used[1], epoch} end
local id = redis.call('XADD', KEYS[1], '*',
    'name', ARGV[1], 'topic', ARGV[2], 'data', ARGV[3])
redis.call('HSET', KEYS[2], 'digest', ARGV[4], 'id', id)
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call('HSET', KEYS[3], ARGV[2], id)
return {id, '', epoch}
"""

# Redis does not tell what the newest trimmed id was, so it is noted first.
_TRIM = """
local gone = 0
local old = redis.call('XREVRANGE', KEYS[1], '(' .. ARGV[2], '-', 'COUNT', 1)
if old[1] then
    redis.call('HSET', KEYS[2], 'floor', old[1][1])
    gone = redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[2])
end
local extra = redis.call('XLEN', KEYS[1]) - ARGV[1]
if extra > 0 then
    extra = math.min(extra, tonumber(ARGV[3]))
    local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', extra)
    redis.call('HSET', KEYS[2], 'floor', first[#first][1])
    gone = gone + redis.call('XTRIM', KEYS[1], 'MAXLEN', '=',
        redis.call('XLEN', KEYS[1]) - extra)
end
return gone
"""


class RedisLog:
    """See `EventLog`.

    Args:
        url: `redis://`, `rediss://` or `unix://`, as redis-py reads it.
        retention: what `trim` keeps.
        now: seconds since 1970.
    """

    def __init__(
        self, url: str, *, retention: Retention, now: Callable[[], float]
    ) -> None:
        self._retention = retention
        self._now = now
        self._redis = _connect(url, _TIMEOUT_S)
        # its answers take as long as it blocks
        self._reader = _connect(url, _BLOCK_MS / 1000 + _TIMEOUT_S)

    async def _ask(self, *command: Any) -> Any:
        return await _send(self._redis, *command)

    async def append(self, event: Event, key: str) -> Appended:
        """See `EventLog.append`.

        Raises:
            KeyReusedError: the key belongs to another event.

        Power cut: as much as Redis' `appendfsync` promises.
        """
        wire_id, used, epoch = await self._ask(
            "EVAL",
            _APPEND,
            4,
            _STREAM,
            _KEY + key,
            _NEWEST,
            _META,
            event.name,
            write_topic(event.topic),
            event.data,
            digest_of(event),
            int(self._retention.key_s * 1000),
            secrets.token_hex(4),
        )
        if used:
            check_key(key, used.decode(), event)
        return Appended(epoch.decode(), _position(wire_id), fresh=not used)

    async def find(self, event: Event, key: str) -> Appended | None:
        """See `EventLog.find`."""
        used, wire_id = await self._ask("HMGET", _KEY + key, "digest", "id")
        if used is None:
            return None
        check_key(key, used.decode(), event)
        return Appended(await self._epoch(), _position(wire_id), fresh=False)

    async def _epoch(self) -> str:
        """Return this life's name: a new one when Redis has forgotten it."""
        epoch = await self._ask("HGET", _META, "epoch")
        if epoch is None:
            await self._ask("HSETNX", _META, "epoch", secrets.token_hex(4))
            epoch = await self._ask("HGET", _META, "epoch")
        return cast("bytes", epoch).decode()

    async def read(self, after: Position, limit: int) -> tuple[Record, ...]:
        """See `EventLog.read`."""
        rows = await self._ask(
            "XRANGE", _STREAM, f"({_write(after)}", "+", "COUNT", limit
        )
        return _records(rows)

    async def bounds(self) -> Bounds:
        """See `EventLog.bounds`."""
        epoch = await self._epoch()
        floor = await self._ask("HGET", _META, "floor")
        newest = await self.newest()
        last = max(newest.values(), default=ZERO)
        return Bounds(epoch, _position(floor) if floor else ZERO, last)

    async def newest(self) -> Mapping[Topic, Position]:
        """See `EventLog.newest`."""
        pairs = await self._ask("HGETALL", _NEWEST)
        if not isinstance(pairs, dict):
            pairs = dict(zip(pairs[::2], pairs[1::2], strict=True))
        return {read_topic(k.decode()): _position(v) for k, v in pairs.items()}

    async def tail(
        self, epoch: str, after: Position
    ) -> AsyncIterator[Batch | LogDownError]:
        """See `EventLog.tail`."""
        failed = False
        while True:
            try:
                # asked each time: a Redis that lost everything answers XREAD gladly
                current = await self._epoch()
                if current != epoch or failed:
                    if current != epoch:
                        epoch, after = current, ZERO
                    failed = False
                    yield Batch(epoch, ())
                records = await self._wait(after)
                if not records or await self._epoch() != epoch:
                    continue  # nothing new, or lost while we waited
            except LogDownError as error:
                if not failed:
                    failed = True
                    yield error
                await asyncio.sleep(_AGAIN_S)
                continue
            after = records[-1].position
            yield Batch(epoch, records)

    async def _wait(self, after: Position) -> tuple[Record, ...]:
        answer = await _send(
            self._reader,
            "XREAD",
            "COUNT",
            _BATCH,
            "BLOCK",
            _BLOCK_MS,
            "STREAMS",
            _STREAM,
            _write(after),
        )
        if not answer:
            return ()
        streams = answer.values() if isinstance(answer, dict) else [answer[0][1]]
        return _records([row for rows in streams for row in rows])

    async def trim(self) -> int:
        """See `EventLog.trim`: floor and trimming are one script."""
        oldest = int((self._now() - self._retention.age_s) * 1000)
        gone = 0
        while True:
            step = await self._ask(
                "EVAL",
                _TRIM,
                2,
                _STREAM,
                _META,
                self._retention.count,
                max(0, oldest),
                _TRIM_STEP,
            )
            gone += int(step)
            if step < _TRIM_STEP:
                return gone

    async def warnings(self) -> tuple[str, ...]:
        """See `EventLog.warnings`."""
        wanted = (
            ("appendonly", "yes", "a restart of Redis forgets announcements"),
            ("maxmemory-policy", "noeviction", "Redis may evict announcements"),
        )
        found = []
        for name, value, means in wanted:
            try:
                answer = await self._ask("CONFIG", "GET", name)
            except LogDownError:
                continue  # hosted ones often forbid CONFIG
            values = answer if isinstance(answer, dict) else {answer[0]: answer[1]}
            is_now = next(iter(values.values()), b"?")
            if is_now.decode() != value:
                found.append(f"{name} is {is_now.decode()}, not {value}: {means}")
        return tuple(found)

    async def close(self) -> None:
        """See `EventLog.close`."""
        await self._redis.aclose()
        await self._reader.aclose()


def _connect(url: str, timeout_s: float) -> redis.Redis:
    # no retries of its own: `_send` knows what may be repeated, and for how long
    return redis.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=timeout_s,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )


async def _send(client: redis.Redis, *command: Any) -> Any:
    """Send one command.

    Raises:
        LogDownError: no answer, or a refusal.
    """
    try:
        try:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]
        except redis.ConnectionError:
            # a pooled connection that died while it rested. All that is sent here
            # may be sent twice: the append knows its key
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]
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


def _write(position: Position) -> str:
    return f"{position.ms}-{position.seq}"


def _position(raw: bytes) -> Position:
    ms, _, seq = raw.decode().partition("-")
    return Position(int(ms), int(seq))


def _records(rows: list[Any]) -> tuple[Record, ...]:
    found = []
    for wire_id, flat in rows:
        fields = flat
        if not isinstance(flat, dict):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
        event = Event(
            fields[b"name"].decode(),
            read_topic(fields[b"topic"].decode()),
            fields[b"data"],
        )
        found.append(Record(_position(wire_id), event))
    return tuple(found)
