# SPDX-License-Identifier: Apache-2.0
"""All cores and one budget of memory, for all deltas being made or proven."""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from updaterd.release.bundles import tasks

BUDGET = 768 << 20
"""Bytes of memory that making deltas may take by default, about."""


class Pool:
    """Lets tasks run while there is a core and memory for them, first come first.

    What comes out does not depend on how many run at a time, or on which ends first.
    """

    def __init__(self, cores: int | None = None, budget: int = BUDGET) -> None:
        """Start with nothing running.

        Args:
            cores: tasks that may run at a time; None for as many as there are.
            budget: bytes of memory that they may take together, about. A task that
                takes more runs alone.
        """
        self.cores = cores or len(os.sched_getaffinity(0))
        self.budget = budget
        self._running = 0
        self._memory = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def perform(self, task: tasks.Match | tasks.Pack) -> list[int]:
        """Perform a task: a small one here, others in a process when there is room.

        Raises:
            BrokenError: it failed.
            OSError: the disk refused.
        """
        if task.size < tasks.SMALL:
            return task.perform()
        with self.room(task.memory):
            return tasks.run(task)

    @contextmanager
    def room(self, memory: int) -> Iterator[None]:
        """Hold a core and so much memory, once both are free."""
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(
                    lambda: self._waiting[0] is turn and self._fits(memory)
                )
            finally:
                self._waiting.remove(turn)
            self._running += 1
            self._memory += memory
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._memory -= memory
                self._changed.notify_all()

    def _fits(self, memory: int) -> bool:
        if not self._running:
            return True
        return self._running < self.cores and self._memory + memory <= self.budget
