# SPDX-License-Identifier: Apache-2.0
"""When reports that wait are sent again: a short process, with backoff.

The worker sends what its own run made, and most often nothing is left. What stays (no
network, a server that is busy) is sent by `updaterd reports --send`, which leaves word
in the outbox when to try next. The daemon itself only looks at the time.
"""

import asyncio
import contextlib
import sqlite3

from updaterd.clocks import Clocks
from updaterd.daemon.workers import Workers
from updaterd.store.outbox import Outbox

_LONGEST_SLEEP_S = 3600.0
_AFTER_WORKER_S = 30.0  # it may have died before it could send
_APART_S = 30.0
_PATIENCE_S = 120.0


class Mail:
    """Starts the process that sends reports, when one is due.

    Args:
        connection: `state.db`; it is only read.
        workers: how processes are made.
        clocks: time and chance.
    """

    def __init__(
        self, connection: sqlite3.Connection, *, workers: Workers, clocks: Clocks
    ) -> None:
        self._outbox = Outbox(connection)
        self._workers = workers
        self._clocks = clocks
        self._wake = asyncio.Event()
        self._not_before = 0.0

    def look(self) -> None:
        """Look again: a worker may have left something."""
        self._wake.set()

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        while True:
            self._wake.clear()
            pause_s = self._pause_s()
            if pause_s <= 0:
                await self._workers.report(patience_s=_PATIENCE_S)
                # whatever became of it: a process that dies must not be a loop
                self._not_before = self._clocks.steady() + _APART_S * (
                    1 + self._clocks.draw()
                )
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause_s)

    def _pause_s(self) -> float:
        """Return how long nothing is due."""
        try:
            due_at = self._outbox.due_at(self._clocks.now())
        except sqlite3.Error:
            due_at = None  # the schedule meets it too, and says so
        if due_at is None:
            return _LONGEST_SLEEP_S
        pause_s = due_at + _AFTER_WORKER_S - self._clocks.now()
        # a clock that was ahead must not put it off for years
        apart_s = self._not_before - self._clocks.steady()
        return min(max(pause_s, apart_s), _LONGEST_SLEEP_S)
