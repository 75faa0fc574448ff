# SPDX-License-Identifier: Apache-2.0
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
from typing import Any, NamedTuple, cast

from updaterd.log import get
from updaterd.server.log.contract import (
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
from updaterd.server.log.wire import (
    connect,
    read_epoch,
    read_position,
    read_record,
    send,
    write_position,
)

log = get()

_BATCH = 50  # an event may be half a megabyte
_BLOCK_MS = 5000
_TIMEOUT_S = 5.0
_AGAIN_S = 0.25
_TRIM_STEP = 1000

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

# What a reader at ARGV[1] must know: is it still in the log that it has read so far?
_LIFE = """
local known = redis.call('HMGET', KEYS[2], 'epoch', 'floor', 'since')
if not known[1] then
    redis.call('HSET', KEYS[2], 'epoch', ARGV[2])
    known[1] = ARGV[2]
end
return {known[1], known[2] or '0-0', known[3] or '0-0',
    #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])}
"""

# Events that a reader had are gone (a fail-over to a replica that was behind), and ids
# may come again: a new life begins after what is there, once, whoever notices first.
_NEW_LIFE = """
if redis.call('HGET', KEYS[2], 'epoch') == ARGV[1] then
    local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
    redis.call('HSET', KEYS[2], 'epoch', ARGV[2],
        'since', newest[1] and newest[1][1] or '0-0')
end
"""


class _Life(NamedTuple):
    """One life of the log, as seen by a reader.

    Attributes:
        epoch: its name.
        floor: everything after it is there.
        since: where it began, when events of the life before are still there.
        is_present: whether the reader's last event is.
    """

    epoch: str
    floor: Position
    since: Position
    is_present: bool


class RedisLog:
    """See `EventLog`.

    Args:
        url: `redis://`, `rediss://` or `unix://`, as redis-py reads it.
        retention: what `trim` keeps.
        now: seconds since 1970.

    Attributes:
        file: None: replicas share this log.
    """

    file = None

    def __init__(
        self, url: str, *, retention: Retention, now: Callable[[], float]
    ) -> None:
        self._retention = retention
        self._now = now
        self._redis = connect(url, _TIMEOUT_S)
        # its answers take as long as it blocks
        self._reader = connect(url, _BLOCK_MS / 1000 + _TIMEOUT_S)
        self._foreign = ZERO  # the newest entry of somebody else that was told
        self._reported: set[str] = set()

    async def _ask(self, *command: Any) -> Any:
        return await send(self._redis, *command)

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
        return Appended(read_epoch(epoch), read_position(wire_id), fresh=not used)

    async def find(self, event: Event, key: str) -> Appended | None:
        """See `EventLog.find`."""
        used, wire_id = await self._ask("HMGET", _KEY + key, "digest", "id")
        if used is None:
            return None
        check_key(key, used.decode(), event)
        return Appended(await self._epoch(), read_position(wire_id), fresh=False)

    async def _epoch(self) -> str:
        """Return this life's name: a new one when Redis has forgotten it."""
        epoch = await self._ask("HGET", _META, "epoch")
        if epoch is None:
            await self._ask("HSETNX", _META, "epoch", secrets.token_hex(4))
            epoch = await self._ask("HGET", _META, "epoch")
        return read_epoch(cast("bytes", epoch))

    async def read(self, after: Position, limit: int) -> tuple[Record, ...]:
        """See `EventLog.read`."""
        records: list[Record] = []
        while len(records) < limit:
            rows = await self._ask(
                "XRANGE", _STREAM, f"({write_position(after)}", "+", "COUNT", limit
            )
            if not rows:
                break
            records += self._records(rows)
            after = read_position(rows[-1][0])
        return tuple(records[:limit])

    async def bounds(self) -> Bounds:
        """See `EventLog.bounds`."""
        epoch = await self._epoch()
        floor = await self._ask("HGET", _META, "floor")
        newest = await self.newest()
        last = max(newest.values(), default=ZERO)
        return Bounds(epoch, read_position(floor) if floor else ZERO, last)

    async def newest(self) -> Mapping[Topic, Position]:
        """See `EventLog.newest`."""
        pairs = await self._ask("HGETALL", _NEWEST)
        if not isinstance(pairs, dict):
            pairs = dict(zip(pairs[::2], pairs[1::2], strict=True))
        newest = {}
        for raw_topic, raw_position in pairs.items():
            try:
                topic = read_topic(raw_topic.decode())
                newest[topic] = read_position(raw_position)
            except (LogDownError, UnicodeDecodeError):
                self._tell_foreign(_NEWEST, raw_topic)
        return newest

    def _records(self, rows: list[Any]) -> list[Record]:
        """Return the events in rows of the stream; skip entries of other programs.

        The database may be shared, and one `XADD` of a stranger must end nothing.
        """
        records = []
        for wire_id, flat in rows:
            record = read_record(wire_id, flat)
            if record is not None:
                records.append(record)
            elif (position := read_position(wire_id)) > self._foreign:
                self._foreign = position
                self._tell_foreign(_STREAM, wire_id)
        return records

    def _tell_foreign(self, key: str, entry: bytes) -> None:
        """Log an entry of another program; for a hash, only once."""
        if key != _STREAM:
            if key in self._reported:
                return
            self._reported.add(key)
        log.warning(
            "foreign_entry",
            id=entry.decode(errors="replace")[:80],
            key=key,
            means="something else writes to the event log; it was passed over",
            do="give updaterd a Redis database of its own",
        )

    async def tail(
        self, epoch: str, after: Position
    ) -> AsyncIterator[Batch | LogDownError]:
        """See `EventLog.tail`."""
        failed = False
        while True:
            try:
                if failed:
                    await self._life(after)
                    failed = False
                    yield Batch(epoch, ())
                batch, after = await self._next(epoch, after)
            except LogDownError as error:
                if not failed:
                    failed = True
                    yield error
                await asyncio.sleep(_AGAIN_S)
                continue
            if batch is not None:
                epoch = batch.epoch
                yield batch

    async def _next(self, epoch: str, after: Position) -> tuple[Batch | None, Position]:
        """Wait for what comes after a position; return it, and where to go on."""
        # asked first: a Redis that lost everything answers XREAD gladly
        life = await self._life(after)
        if life.epoch != epoch:
            gap = life.since if life.since != ZERO else None
            return Batch(life.epoch, (), gap), life.since
        rows = await self._wait(after)
        # and afterwards: what was lost or trimmed meanwhile is missing from them
        life = await self._life(after)
        if life.epoch != epoch:
            return None, after
        if after > max(life.floor, life.since) and not life.is_present:
            await self._begin_anew(epoch)
            return None, after
        gap = life.floor if after < life.floor else None
        upto = max(read_position(rows[-1][0]) if rows else after, gap or after)
        records = tuple(r for r in self._records(rows) if r.position > (gap or after))
        if not records and gap is None:
            return None, upto
        return Batch(epoch, records, gap), upto

    async def _life(self, after: Position) -> _Life:
        epoch, floor, since, is_present = await self._ask(
            "EVAL",
            _LIFE,
            2,
            _STREAM,
            _META,
            write_position(after),
            secrets.token_hex(4),
        )
        return _Life(
            read_epoch(epoch),
            read_position(floor),
            read_position(since),
            is_present=bool(is_present) or after == ZERO,
        )

    async def _begin_anew(self, epoch: str) -> None:
        await self._ask(
            "EVAL", _NEW_LIFE, 2, _STREAM, _META, epoch, secrets.token_hex(4)
        )
        log.error(
            "log_rewound",
            means="Redis has lost announcements that it had acknowledged, as after a "
            "fail-over to a replica that was behind; all subscribers look anew",
            do="announce again what was pushed lately (operator.md, 'Three replicas')",
        )

    async def _wait(self, after: Position) -> list[Any]:
        answer = await send(
            self._reader,
            "XREAD",
            "COUNT",
            _BATCH,
            "BLOCK",
            _BLOCK_MS,
            "STREAMS",
            _STREAM,
            write_position(after),
        )
        if not answer:
            return []
        streams = answer.values() if isinstance(answer, dict) else [answer[0][1]]
        return [row for rows in streams for row in rows]

    async def trim(self) -> int:
        """See `EventLog.trim`: floor and trimming are one script."""
        oldest = int((self._now() - self._retention.age_s) * 1000)
        removed = 0
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
            removed += int(step)
            if step < _TRIM_STEP:
                return removed

    async def warnings(self) -> tuple[str, ...]:
        """See `EventLog.warnings`."""
        settings = (
            ("appendonly", "yes", "a restart of Redis forgets announcements"),
            ("maxmemory-policy", "noeviction", "Redis may evict announcements"),
        )
        warnings = []
        for name, value, means in settings:
            try:
                answer = await self._ask("CONFIG", "GET", name)
            except LogDownError:
                continue  # hosted ones often forbid CONFIG
            values = answer if isinstance(answer, dict) else {answer[0]: answer[1]}
            is_now = next(iter(values.values()), b"?")
            if is_now.decode() != value:
                warnings.append(f"{name} is {is_now.decode()}, not {value}: {means}")
        return tuple(warnings)

    async def close(self) -> None:
        """See `EventLog.close`."""
        await self._redis.aclose()
        await self._reader.aclose()
