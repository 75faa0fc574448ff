# SPDX-License-Identifier: Apache-2.0
"""The newest events in memory, so that a catch-up needs no read of the log.

A page from the ring takes microseconds, one from Redis a hundred times as long, and
after a restart the whole fleet asks at once.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from updaterd.server.log.contract import ZERO, Position, Topic
from updaterd.server.streams.frames import Frame


class Filter(NamedTuple):
    """Which topics a stream wants; an empty set means all."""

    products: frozenset[str]
    channels: frozenset[str]

    def matches(self, topic: Topic) -> bool:
        """Tell whether an event of this topic belongs on the stream."""
        if topic.product is None:
            return True
        return (not self.products or topic.product in self.products) and (
            not self.channels or topic.channel in self.channels
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    position: Position
    topic: Topic
    frame: Frame


class Ring:
    """Events by position, newest last, and where each topic ended.

    Args:
        most_bytes: how much is kept; the last event always is.

    Attributes:
        floor: the ring holds everything after it.
        newest: the newest position of each topic, also when it is not held.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._entries: deque[_Entry] = deque()
        self._bytes = 0
        self.floor = ZERO
        self.newest: dict[Topic, Position] = {}

    def clear(self, floor: Position) -> None:
        """Empty the ring; everything up to `floor` counts as dropped."""
        self._entries.clear()
        self._bytes = 0
        self.floor = floor
        self.newest = {}

    def keep(self, position: Position, topic: Topic, frame: Frame) -> None:
        """Add the newest event; let the oldest go when there is too much."""
        self._entries.append(_Entry(position, topic, frame))
        self._bytes += _size(frame)
        while self._bytes > self._most and len(self._entries) > 1:
            oldest = self._entries.popleft()
            self._bytes -= _size(oldest.frame)
            self.floor = oldest.position
        self.newest[topic] = position

    def since(self, topics: Filter, after: Position) -> tuple[Frame, ...]:
        """Return what a filter wants after a position that is not below the floor."""
        frames = []
        for entry in reversed(self._entries):
            if entry.position <= after:
                break
            if topics.matches(entry.topic):
                frames.append(entry.frame)
        return tuple(reversed(frames))

    def missed_nothing(self, topics: Filter, after: Position) -> bool:
        """Tell whether no event of these topics came after a position.

        A quiet channel's cursor stays good however much busy ones were trimmed.
        """
        return not any(
            position > after and topics.matches(topic)
            for topic, position in self.newest.items()
        )


class Shelf:
    """A cache of frames that were read from the log, shared by all streams.

    Without it, each of a thousand streams with an old cursor holds its own copy of
    the same page for as long as its reader likes.

    Args:
        most_bytes: how much is kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._frames: dict[Position, Frame] = {}
        self._bytes = 0

    def clear(self) -> None:
        """Empty the cache: positions mean other events now."""
        self._frames.clear()
        self._bytes = 0

    def frame(self, position: Position, make: Callable[[], Frame]) -> Frame:
        """Return the frame at a position, made when it is not there."""
        cached = self._frames.pop(position, None)
        if cached is None:
            cached = make()
            self._bytes += _size(cached)
        self._frames[position] = cached  # newest last
        while self._bytes > self._most and len(self._frames) > 1:
            self._bytes -= _size(self._frames.pop(next(iter(self._frames))))
        return cached


def _size(frame: Frame) -> int:
    return len(frame.plain) + len(frame.chunk)
