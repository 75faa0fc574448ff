# SPDX-License-Identifier: Apache-2.0
"""Phases of a connection and their deadlines: a silent connection is closed.

A deadline counts from the phase's beginning, so that a byte now and then does not
extend it. The only phase without one is the answer's making, which has its own.
"""

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum

from updaterd.server.options import Deadlines


class Phase(StrEnum):
    """What a connection is doing."""

    HANDSHAKE = "handshake"
    """From accept to the end of the TLS handshake."""
    HEAD = "head"
    """A request's head comes, or whatever a connection says that asked nothing yet."""
    BODY = "body"
    """A request's body comes, also when it was answered already."""
    ANSWER = "answer"
    """The answer is made."""
    READING = "reading"
    """The client has an answer to read: it must take 48 KiB in this time."""
    IDLE = "idle"
    """Between two requests."""
    CLOSING = "closing"
    """The last answer is on its way."""


def table_of(deadlines: Deadlines) -> Mapping[Phase, float | None]:
    """Return each phase's deadline in seconds; None where there is none."""
    return {
        Phase.HANDSHAKE: deadlines.handshake_s,
        Phase.HEAD: deadlines.head_s,
        Phase.BODY: deadlines.body_s,
        Phase.ANSWER: None,
        Phase.READING: deadlines.reading_s,
        Phase.IDLE: deadlines.idle_s,
        Phase.CLOSING: deadlines.closing_s,
    }


class Watch:
    """The deadline of one connection.

    Args:
        table: seconds for each phase.
        late: called when a phase takes too long.
    """

    __slots__ = ("_late", "_table", "_timer", "phase")

    def __init__(
        self, table: Mapping[Phase, float | None], late: Callable[[], None]
    ) -> None:
        self._table = table
        self._late: Callable[[], None] | None = late
        self._timer: asyncio.TimerHandle | None = None
        self.phase: Phase | None = None

    def enter(self, phase: Phase, *, anew: bool = False) -> None:
        """Begin a phase; one that goes on keeps its deadline, unless it is `anew`."""
        if phase is self.phase and not anew:
            return
        self.end()
        self.phase = phase
        after = self._table[phase]
        if after is not None and self._late is not None:
            self._timer = asyncio.get_running_loop().call_later(after, self._late)

    def end(self) -> None:
        """Cancel the deadline."""
        self.phase = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget(self) -> None:
        """Let go of whom it would call."""
        self._late = None
