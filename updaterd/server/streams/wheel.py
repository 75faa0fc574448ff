# SPDX-License-Identifier: Apache-2.0
"""One timer for all streams: heartbeats and rotation.

Streams sit in slots; each tick serves one slot, so that heartbeats of a fleet are
spread over the period instead of coming as a wave, and no stream has a timer of its
own. A stream is rotated (closed, to be opened again elsewhere) after a number of
turns that it was given when it came; draining gives everyone few turns.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol


class Rider(Protocol):
    """A stream, as the wheel sees it."""

    turns: int
    slot: int

    def beat(self) -> None:
        """One turn of the wheel has passed."""
        ...

    def rotate(self) -> None:
        """The turns are used up."""
        ...


class Wheel:
    """Serve every rider once per `period_s`.

    Args:
        period_s: a full turn, in seconds.
        slots: into how many parts it is cut.
        slice_size: riders served before others get the loop.
    """

    def __init__(
        self, *, period_s: float, slots: int = 15, slice_size: int = 500
    ) -> None:
        self.period_s = period_s
        self._slots: list[set[Rider]] = [set() for _ in range(slots)]
        self._slice_size = slice_size
        self._at = 0
        self._next = 0

    def __len__(self) -> int:
        return sum(map(len, self._slots))

    def add(self, rider: Rider, *, turns: int) -> None:
        """Seat a rider; consecutive ones sit in consecutive slots."""
        self._next = (self._next + 1) % len(self._slots)
        rider.slot = self._next
        rider.turns = turns
        self._slots[self._next].add(rider)

    def remove(self, rider: Rider) -> None:
        """Unseat a rider; harmless when it sits nowhere."""
        self._slots[rider.slot].discard(rider)

    def riders(self) -> list[Rider]:
        """Return everyone, in the order in which their turns come."""
        count = len(self._slots)
        return [r for i in range(count) for r in self._slots[(self._at + i) % count]]

    async def turn(self) -> None:
        """Serve the next slot."""
        riders = list(self._slots[self._at])
        self._at = (self._at + 1) % len(self._slots)
        for start in range(0, len(riders), self._slice_size):
            for rider in riders[start : start + self._slice_size]:
                rider.turns -= 1
                if rider.turns <= 0:
                    rider.rotate()
                else:
                    rider.beat()
            await asyncio.sleep(0)

    async def run(self, clock: Callable[[], float]) -> None:
        """Turn for ever; what was missed for longer than a turn is let go.

        A process that was stopped for an hour owes nobody an hour's heartbeats,
        nor may it rotate everyone at once.
        """
        due = clock()
        while True:
            due = max(due, clock() - self.period_s) + self.period_s / len(self._slots)
            await asyncio.sleep(max(0.0, due - clock()))
            await self.turn()
