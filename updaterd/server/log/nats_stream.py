# SPDX-License-Identifier: Apache-2.0
"""The two streams of a log in NATS: how they must be, and what their messages say.

`NAME` has the events, one message each, at `NAME.event.PRODUCT.CHANNEL.KEY`: the key
as a hash, so that an event and its idempotency key are stored at once. `NAME-state` has
one message: epoch, floor, and what was the newest of topics whose events are gone.
"""

import asyncio
import hashlib
from collections.abc import Awaitable
from contextlib import suppress

from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg, RePublish, StreamConfig, StreamInfo
from nats.js.errors import APIError, NotFoundError

from updaterd.server.log.contract import (
    Event,
    LogDownError,
    Position,
    Record,
    Topic,
)
from updaterd.server.log.nats_line import STREAM_UNKNOWN, StreamGoneError

_EXPECTED_LAST = "Nats-Expected-Last-Sequence"
WRONG_LAST = 10071
_TAKEN = (10058, 10065)  # the name of a stream, or its subjects
_LOOK_AGAIN_S = (0.0, 0.1, 0.3)
_NAME = "Updaterd-Name"
_MS = "Updaterd-Ms"
_ALL = "-"  # no product or channel is called so
_MOST_MS = 10**15
MOST_SUBJECTS = 100_000
"""So many, one for each event, are listed at once."""


class Streams:
    """The names of a log's streams and subjects, and what is in them.

    Args:
        name: of the stream of events.
        replicas: of streams that we make.
    """

    def __init__(self, name: str, replicas: int) -> None:
        self.events = name
        self.state = f"{name}-state"
        self.state_subject = f"{name}.state"
        self.any_event = f"{name}.event.>"
        self.stored = f"{name}.stored.>"
        self._replicas = replicas

    def subject(self, topic: Topic, key: str) -> str:
        """Return where an event is stored."""
        words = (topic.product or _ALL, topic.channel or _ALL, _hash(key))
        return ".".join((self.events, "event", *words))

    def of_key(self, key: str) -> str:
        """Return where the event of a key is, whatever its topic."""
        return f"{self.events}.event.*.*.{_hash(key)}"

    def of_topic(self, topic: Topic) -> str:
        """Return where the events of a topic are."""
        words = (topic.product or _ALL, topic.channel or _ALL)
        return ".".join((self.events, "event", *words, "*"))

    def topic(self, subject: str) -> Topic | None:
        """Return the topic of a subject; None when it is no event's."""
        words = subject.removeprefix(f"{self.events}.event.").split(".")
        if len(words) != 3:
            return None
        product, channel = (None if word == _ALL else word for word in words[:2])
        return Topic(product, channel)

    def record(self, message: RawStreamMsg) -> Record | None:
        """Return what a message announces; None when it is no announcement."""
        headers, data = message.headers or {}, message.data or b""
        topic = self.topic(message.subject or "")
        name, ms = headers.get(_NAME, ""), headers.get(_MS, "")
        if topic is None or not (name.isascii() and name.isidentifier()):
            return None  # or it would break the stream's lines
        if not (ms.isdecimal() and int(ms) < _MOST_MS) or not message.seq:
            return None
        try:
            data.decode()
        except ValueError:
            return None
        if b"\n" in data or b"\r" in data:
            return None
        return Record(Position(int(ms), message.seq), Event(name, topic, data))

    def headers(self, event: Event, ms: int, last: int) -> dict[str, str]:
        """Return what is stored with an event, if `last` is the stream's last."""
        return {_NAME: event.name, _MS: str(ms), _EXPECTED_LAST: str(last)}

    async def prepare(self, js: JetStreamContext) -> None:
        """See that both streams are there and can keep what they are given.

        Raises:
            LogDownError: somebody made them so that they cannot.
        """
        await asyncio.gather(
            self._prepare(
                js,
                StreamConfig(
                    name=self.events,
                    description="what updaterd's feed announced",
                    subjects=[self.any_event],
                    republish=RePublish(self.any_event, self.stored, True),
                ),
            ),
            self._prepare(
                js,
                StreamConfig(
                    name=self.state,
                    description="where updaterd's feed is",
                    subjects=[self.state_subject],
                    max_msgs_per_subject=1,
                ),
            ),
        )

    async def _prepare(self, js: JetStreamContext, model: StreamConfig) -> None:
        name = model.name or ""
        try:
            info = await js.stream_info(name)
        except NotFoundError:
            info = await self._add(js, model)
        if fault := _fault(info.config, model):
            raise LogDownError(
                f"the stream {name} in NATS cannot be the event log: {fault}",
                means="nothing can be announced or replayed",
                do=f"delete it (nats stream rm {name}), and updaterd makes it as it "
                "must be; or give updaterd another name (?stream=NAME)",
            )

    async def _add(self, js: JetStreamContext, model: StreamConfig) -> StreamInfo:
        """Make a stream; return how it is, or how another replica just made it.

        Raises:
            APIError: it cannot be made, for its subjects are somebody else's maybe.
        """
        try:
            return await js.add_stream(
                model, storage="file", retention="limits", num_replicas=self._replicas
            )
        except APIError as error:
            if error.err_code not in _TAKEN:
                raise
            for pause_s in _LOOK_AGAIN_S:
                await asyncio.sleep(pause_s)
                with suppress(NotFoundError):  # it is not whole yet, or not ours
                    return await js.stream_info(model.name or "")
            raise

    async def info(self, js: JetStreamContext) -> StreamInfo:
        """Return how the stream of events is.

        Raises:
            StreamGoneError: it is not there.
        """
        try:
            return await js.stream_info(self.events)
        except NotFoundError as error:
            raise StreamGoneError from error

    async def at(
        self, js: JetStreamContext, sequence: int, *, or_next: bool = False
    ) -> RawStreamMsg | None:
        """Return the message with a sequence number, or also the next; None if none."""
        subject = self.any_event if or_next else None
        return await fetch(
            js.get_msg(self.events, seq=sequence, subject=subject, next=or_next)
        )

    async def last(self, js: JetStreamContext, subject: str) -> RawStreamMsg | None:
        """Return the last message at a subject; None if there is none."""
        return await fetch(js.get_last_msg(self.events, subject))

    async def topics(self, js: JetStreamContext) -> set[Topic]:
        """Return the topics of the events that are there.

        Raises:
            StreamGoneError: the stream is not there.
        """
        try:
            info = await js.stream_info(self.events, subjects_filter=self.any_event)
        except NotFoundError as error:
            raise StreamGoneError from error
        topics = map(self.topic, info.state.subjects or ())
        return {topic for topic in topics if topic is not None}


async def fetch(request: Awaitable[RawStreamMsg]) -> RawStreamMsg | None:
    """Return the message that is asked for; None if there is none.

    Raises:
        StreamGoneError: its stream is not there.
    """
    try:
        message: RawStreamMsg = await request
    except NotFoundError as error:
        if error.err_code == STREAM_UNKNOWN:
            raise StreamGoneError from error
        return None
    return message


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _fault(is_now: StreamConfig, model: StreamConfig) -> str:
    """Return what about a stream would lose or disorder events; "" when nothing."""
    of_subject = model.max_msgs_per_subject or -1
    dest = model.republish.dest if model.republish else None
    faults: list[tuple[object, str]] = [
        (is_now.no_ack, "it has no_ack"),
        (is_now.sealed, "it is sealed"),
        (is_now.deny_purge, "it has deny_purge"),
        (is_now.mirror or is_now.sources, "it has a mirror or sources"),
        (is_now.subjects != model.subjects, f"its subjects are not {model.subjects}"),
        (is_now.storage != "file", "its storage is not file"),
        (is_now.retention != "limits", "its retention is not limits"),
        # it would forget by itself, and nobody would know up to where
        ((is_now.max_msgs or 0) > 0, "it has max_msgs: --keep-events is for that"),
        ((is_now.max_age or 0) > 0, "it has max_age: --keep-days is for that"),
        # also with discard = new: 2.9 refuses only what is larger without its frame
        ((is_now.max_bytes or 0) > 0, "it has max_bytes: max_file_store is for that"),
        (
            (is_now.max_msgs_per_subject or -1) != of_subject,
            f"its max_msgs_per_subject is not {of_subject}",
        ),
        (
            (is_now.republish.dest if is_now.republish else None) != dest,
            f"it republishes not to {dest}",
        ),
    ]
    return next((fault for is_so, fault in faults if is_so), "")
