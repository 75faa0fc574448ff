# SPDX-License-Identifier: Apache-2.0
"""All cores and one budget of memory, for all deltas being made or proven."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager

from updaterd.release.bundles import matching, tasks
from updaterd.release.bundles.packing import exchange

BUDGET = 768 << 20
"""Bytes of memory that making deltas may take by default, about."""

LEAST = 256 << 20
"""Fewer bytes than these are less than packing alone takes, with what asks for it."""


class Pool:
    """Lets tasks run while there is a core and memory for them, first come first.

    What comes out does not depend on how many run at a time, or on which ends first.
    """

    def __init__(
        self,
        cores: int | None = None,
        budget: int = BUDGET,
        rate: int = exchange.BALANCED,
    ) -> None:
        """Start with nothing running.

        Args:
            cores: tasks that may run at a time; None for as many as there are.
            budget: bytes of memory that they may take together, about. A task that
                takes more runs alone.
            rate: bytes that a millisecond of a machine's CPU is worth.
        """
        self.rate = rate
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

    def perform_all(
        self,
        threads: ThreadPoolExecutor,
        jobs: Sequence[tasks.Match] | Sequence[tasks.Pack],
        shares: Sequence[int],
        more: Callable[[int], None],
    ) -> list[list[int]]:
        """Return what tasks return, in order; long ones start first.

        Args:
            threads: that wait for them.
            jobs: the tasks.
            shares: of the work that each is.
            more: told how much more is done.

        Raises:
            BrokenError: one failed.
            OSError: the disk refused.
        """
        order = sorted(range(len(jobs)), key=lambda i: -jobs[i].size)
        running = {threads.submit(self.perform, jobs[index]): index for index in order}
        results: list[list[int]] = [[] for _ in jobs]
        for future in as_completed(running):
            results[running[future]] = future.result()
            more(shares[running[future]])
        return results

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
        return (
            self._running < self.cores
            and self._memory + memory <= self.budget - matching.OWN
        )
