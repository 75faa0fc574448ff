# SPDX-License-Identifier: Apache-2.0
"""What is known of a log in NATS beside its events: which life of it, and since where.

It is one message of a stream of its own, written anew by whoever saw the last one.
"""

import asyncio
import json
import re
import secrets
from dataclasses import asdict, dataclass, field
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg, StreamInfo
from nats.js.errors import APIError

from updaterd.log import get
from updaterd.server.log.contract import (
    ZERO,
    LogDownError,
    Position,
    Topic,
    read_topic,
    write_topic,
)
from updaterd.server.log.nats_stream import WRONG_LAST, Streams, fetch

log = get()

_EXPECTED_LAST_OF_SUBJECT = "Nats-Expected-Last-Subject-Sequence"
_EPOCH = re.compile(r"[0-9a-f]{8}")
_LAYOUT = 1


def new_epoch() -> str:
    """Return a name for a new life of the log."""
    return secrets.token_hex(4)


@dataclass(frozen=True, slots=True)
class State:
    """What is known of this life of the log beside its events.

    Attributes:
        epoch: its name.
        log: when the stream of events was made, which tells it from another.
        floor: everything after it is there.
        since: where this epoch began, when events of the one before are still there.
        newest: of topics whose events may be gone.
        sequence: of the message that says so; 0 before there was one.
    """

    epoch: str
    log: str
    floor: Position = ZERO
    since: Position = ZERO
    newest: dict[Topic, Position] = field(default_factory=dict)
    sequence: int = 0

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        document = asdict(self)
        del document["sequence"]
        document["newest"] = {write_topic(t): p for t, p in self.newest.items()}
        return json.dumps({"layout": _LAYOUT, **document}).encode()


def read_state(message: RawStreamMsg) -> State:
    """Return what a message of the state says.

    Raises:
        LogDownError: it was written by another updaterd, or by somebody else.
    """
    try:
        document = json.loads(message.data or b"")
        layout = document["layout"]
        state = State(
            document["epoch"],
            document["log"],
            _read_position(document["floor"]),
            _read_position(document["since"]),
            {read_topic(t): _read_position(p) for t, p in document["newest"].items()},
            message.seq or 0,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        layout, state = None, State("", "")
    if layout != _LAYOUT or _EPOCH.fullmatch(str(state.epoch)) is None:
        raise LogDownError(
            f"something else has written to {message.subject} in NATS, the event log's "
            f"state: layout {layout!r:.20}, and this server knows {_LAYOUT}",
            means="streams stay open; nothing can be announced or replayed",
            do="update this server, or give updaterd streams of its own "
            "(?stream=NAME); or delete both of its streams: subscribers then "
            "reconcile from signed metadata",
        )
    return state


def _read_position(pair: Any) -> Position:
    ms, seq = pair
    return Position(int(ms), int(seq))


class States:
    """The state of a log, read and written.

    Args:
        streams: the log's.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    async def _stored(self, js: JetStreamContext) -> State | None:
        """Return the state; None before there was one."""
        message = await fetch(
            js.get_last_msg(self._streams.state, self._streams.state_subject)
        )
        return read_state(message) if message else None

    async def life(self, js: JetStreamContext) -> tuple[StreamInfo, State]:
        """Return how the stream is, and the state, which is made when there is none."""
        info, state = await asyncio.gather(self._streams.info(js), self._stored(js))
        created = str(info.created)
        if state is None or state.log != created:
            state = await self.begin(js, State(new_epoch(), created), state)
        return info, state

    async def begin(
        self, js: JetStreamContext, successor: State, former: State | None
    ) -> State:
        """Write a state, once, whoever is first; return what is there then."""
        if await self.write(js, successor, former) and former is not None:
            log.error(
                "log_rewound",
                means="NATS has lost announcements that it had acknowledged, as from "
                "an older backup; all subscribers look anew",
                do="announce again what was pushed lately "
                "(operator.md, 'Three replicas')",
            )
        state = await self._stored(js)
        return state or successor

    async def write(
        self, js: JetStreamContext, successor: State, former: State | None
    ) -> bool:
        """Write a state unless somebody wrote one meanwhile; tell whether it was.

        Raises:
            APIError: it was refused for another reason.
        """
        sequence = former.sequence if former else 0
        try:
            await js.publish(
                self._streams.state_subject,
                successor.to_json(),
                headers={_EXPECTED_LAST_OF_SUBJECT: str(sequence)},
            )
        except APIError as error:
            if error.err_code != WRONG_LAST:
                raise
            return False
        return True

    async def floor(
        self, js: JetStreamContext, info: StreamInfo, state: State
    ) -> Position:
        """Return the floor: ours, or higher when somebody else purged the stream."""
        first = info.state.first_seq if info.state.messages else info.state.last_seq + 1
        if first - 1 <= state.floor.seq:
            return state.floor
        return await self.position(js, first - 1, state.floor.ms)

    async def position(self, js: JetStreamContext, sequence: int, ms: int) -> Position:
        """Return an event's position, or one before the next when it is gone."""
        message = await self._streams.at(js, sequence, or_next=True)
        record = self._streams.record(message) if message else None
        return Position(record.position.ms if record else ms, sequence)

    async def older(self, js: JetStreamContext, first: int, last: int, ms: int) -> int:
        """Return the highest sequence number before a time, `first - 1` if none."""
        low, high = first - 1, last
        while low < high:
            middle = (low + high + 1) // 2
            position = await self.position(js, middle, 0)
            if position.ms < ms:
                low = middle
            else:
                high = middle - 1
        return low
