# SPDX-License-Identifier: Apache-2.0
"""What a stream is written as it joins, or that it is too far behind for that."""

from dataclasses import dataclass, field

from updaterd.server.log.contract import Position
from updaterd.server.streams import frames
from updaterd.server.streams.frames import Frame


@dataclass(frozen=True, slots=True)
class Opening:
    """What is written to a stream as it joins; valid in this step of the loop only.

    Attributes:
        missed: events since its cursor.
        greeting: `hello` or `resync`, written last.
        kind: hello, replay or resync; for metrics.
        upto: the newest position that `missed` covers.
        size: bytes of the missed events.
    """

    missed: tuple[Frame, ...]
    greeting: Frame
    kind: str
    upto: Position
    size: int = field(init=False)

    def __post_init__(self) -> None:
        size = sum(len(block.plain) for block in self.missed)
        object.__setattr__(self, "size", size)

    def joined(self) -> Frame:
        """Return all of it in one piece."""
        if not self.missed:
            return self.greeting
        return frames.join((*self.missed, self.greeting))


@dataclass(frozen=True, slots=True)
class Behind:
    """The answer when the ring no longer holds what is missing (see `Hub.backlog`)."""

    after: Position
