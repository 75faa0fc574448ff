# SPDX-License-Identifier: Apache-2.0
"""The embedded log for several processes: its owner answers, workers ask."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from updaterd.server.host.talk import Answer, Answers, Said, Talk, down_of, error_of
from updaterd.server.log.contract import (
    Appended,
    Batch,
    Bounds,
    Event,
    EventLog,
    KeyReusedError,
    LogDownError,
    Position,
    Record,
    Topic,
)

_AGAIN_S = 0.2


def _write_event(event: Event) -> list[Any]:
    return [event.name, *event.topic, event.data.decode()]


def _read_event(message: list[Any]) -> Event:
    name, product, channel, data = message
    return Event(name, Topic(product, channel), data.encode())


def _write_records(records: tuple[Record, ...]) -> list[Any]:
    return [[*record.position, *_write_event(record.event)] for record in records]


def _read_records(message: list[Any]) -> tuple[Record, ...]:
    return tuple(
        Record(Position(ms, seq), _read_event(event)) for ms, seq, *event in message
    )


def _write_appended(appended: Appended | None) -> list[Any] | None:
    if appended is None:
        return None
    return [appended.epoch, *appended.position, appended.fresh]


def _read_appended(message: list[Any]) -> Appended:
    epoch, ms, seq, fresh = message
    return Appended(epoch, Position(ms, seq), fresh)


class LogOwner:
    """Answers the workers' questions about a log.

    Args:
        log: what it owns.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.answers: Mapping[str, Answer] = {
            "append": self._append,
            "find": self._find,
            "read": self._read,
            "bounds": self._bounds,
            "newest": self._newest,
            "warnings": self._warnings,
        }
        self.tells: Mapping[str, Answers] = {"tail": self._tail}

    async def _append(self, message: Said) -> Any:
        try:
            appended = await self._log.append(
                _read_event(message["event"]), message["key"]
            )
        except KeyReusedError:
            return "reused"
        return _write_appended(appended)

    async def _find(self, message: Said) -> Any:
        try:
            appended = await self._log.find(
                _read_event(message["event"]), message["key"]
            )
        except KeyReusedError:
            return "reused"
        return _write_appended(appended)

    async def _read(self, message: Said) -> Any:
        after = Position(*message["after"])
        return _write_records(await self._log.read(after, message["limit"]))

    async def _bounds(self, _: Said) -> Any:
        bounds = await self._log.bounds()
        return [bounds.epoch, bounds.floor, bounds.last]

    async def _newest(self, _: Said) -> Any:
        newest = await self._log.newest()
        return [[*topic, *position] for topic, position in newest.items()]

    async def _warnings(self, _: Said) -> Any:
        return await self._log.warnings()

    async def _tail(self, message: Said) -> AsyncIterator[Any]:
        after = Position(*message["after"])
        async for batch in self._log.tail(message["epoch"], after):
            if isinstance(batch, LogDownError):
                yield {"down": down_of(batch)}
            else:
                records = _write_records(batch.records)
                yield {"epoch": batch.epoch, "records": records, "gap": batch.gap}


class AskedLog:
    """See `EventLog`: the log of the process at the other end of a conversation.

    Args:
        talk: with its owner.
    """

    file = None

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    async def append(self, event: Event, key: str) -> Appended:
        """See `EventLog.append`."""
        message = await self._talk.ask("append", event=_write_event(event), key=key)
        return _read_appended(_unless_reused(message, key))

    async def find(self, event: Event, key: str) -> Appended | None:
        """See `EventLog.find`."""
        message = await self._talk.ask("find", event=_write_event(event), key=key)
        return None if message is None else _read_appended(_unless_reused(message, key))

    async def read(self, after: Position, limit: int) -> tuple[Record, ...]:
        """See `EventLog.read`."""
        return _read_records(await self._talk.ask("read", after=after, limit=limit))

    async def bounds(self) -> Bounds:
        """See `EventLog.bounds`."""
        epoch, floor, last = await self._talk.ask("bounds")
        return Bounds(epoch, Position(*floor), Position(*last))

    async def newest(self) -> Mapping[Topic, Position]:
        """See `EventLog.newest`."""
        message = await self._talk.ask("newest")
        return {
            Topic(product, channel): Position(ms, seq)
            for product, channel, ms, seq in message
        }

    async def tail(
        self, epoch: str, after: Position
    ) -> AsyncIterator[Batch | LogDownError]:
        """See `EventLog.tail`: what its owner's tail yields."""
        while True:
            try:
                follow = self._talk.follow("tail", epoch=epoch, after=after)
                async for message in follow:
                    if "down" in message:
                        yield error_of(message["down"])
                        continue
                    gap = message["gap"] and Position(*message["gap"])
                    records = _read_records(message["records"])
                    epoch = message["epoch"]
                    after = records[-1].position if records else gap or after
                    yield Batch(epoch, records, gap)
            except LogDownError as error:
                yield error
            await asyncio.sleep(_AGAIN_S)

    async def trim(self) -> int:
        """See `EventLog.trim`: its owner does that."""
        return 0

    async def warnings(self) -> tuple[str, ...]:
        """See `EventLog.warnings`."""
        return tuple(await self._talk.ask("warnings"))

    async def close(self) -> None:
        """See `EventLog.close`: the conversation is its owner's to end."""


def _unless_reused(message: Any, key: str) -> list[Any]:
    """Return an answer, unless it is that the key belongs to another event.

    Raises:
        KeyReusedError: it is.
    """
    if message == "reused":
        raise KeyReusedError(
            f"the idempotency key {key[-60:]!r} belongs to another event",
            do="use a new key for a new event",
        )
    answer: list[Any] = message
    return answer
