# SPDX-License-Identifier: Apache-2.0
"""From requests to the store: off the event loop, many requests a commit.

The loop only holds bodies. One thread reads them, and whatever came while it was busy
becomes the next transaction: the busier it is, the less a report costs. What cannot
wait any more is sent away with a time (503), and comes again. An answer of 202 follows
the commit, never precedes it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from updaterd.core.report import Report, parse_all
from updaterd.errors import MalformedError, TransientError, UpdaterError
from updaterd.log import get
from updaterd.log.repeats import Repeats
from updaterd.server.reports.contract import Received, ReportStore, StoreDownError

_MOST_AT_ONCE = 2000
_LONGEST_AGE_S = 400 * 86400.0

T = TypeVar("T")
log = get()


class FullError(TransientError):
    """More waits already than is held."""

    code = "reports_full"


@dataclass(slots=True)
class _Request:
    body: bytes
    ages: str
    may: Callable[[Report], bool]
    answer: "asyncio.Future[None]"
    at_ms: int


class NotAllowedError(MalformedError):
    """The token does not cover what is reported."""

    code = "scope_missing"


class Ingest:
    """Keeps reports, and reads their counts.

    Args:
        opener: opens the store; called in the threads that use it.
        now: seconds since 1970.
        waiting_bytes: how many may wait.
        on_commit: called with how many were new, and how many had come before.

    Attributes:
        waiting_bytes: of bodies that wait, or are on their way.
        commits: how many were made by this process.
    """

    def __init__(
        self,
        opener: Callable[[], ReportStore],
        *,
        now: Callable[[], float],
        waiting_bytes: int,
        on_commit: Callable[[int, int], None],
    ) -> None:
        self._opener = opener
        self._now = now
        self._most = waiting_bytes
        self._on_commit = on_commit
        self._waiting: deque[_Request] = deque()
        self.waiting_bytes = 0
        self.commits = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="reports")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reports-read")
        self._stores: dict[str, ReportStore] = {}
        self._repeats = Repeats()

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Hold so many bytes, for a body that is on its way.

        Raises:
            FullError: too many wait, or are on their way.
        """
        if self.waiting_bytes + size > self._most:
            raise FullError("more reports wait than are held")
        self.waiting_bytes += size
        try:
            yield
        finally:
            self.waiting_bytes -= size

    async def take(self, body: bytes, ages: str, may: Callable[[Report], bool]) -> None:
        """Keep the reports of a request; when it returns, they are durable.

        Args:
            body: the request's.
            ages: the header `Reports-Age`.
            may: whether the sender may report this.

        Raises:
            MalformedError: not reports, or not the sender's.
            FullError: too many wait.
            StoreDownError: the store cannot be used; nothing was kept.
            UpdaterError: one of these.
        """
        if self.waiting_bytes + len(body) > self._most:
            raise FullError("more reports wait than are held")
        loop = asyncio.get_running_loop()
        request = _Request(
            body, ages, may, loop.create_future(), int(self._now() * 1000)
        )
        self._waiting.append(request)
        self.waiting_bytes += len(body)
        if self._idle.is_set():
            self._next(loop)
        await request.answer

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the thread what waits."""
        batch: list[_Request] = []
        while self._waiting and len(batch) < _MOST_AT_ONCE:
            request = self._waiting.popleft()
            self.waiting_bytes -= len(request.body)
            batch.append(request)
        if not batch:
            self._idle.set()
        else:
            self._idle.clear()
            done = loop.run_in_executor(self._writer, self._work, batch)
            done.add_done_callback(partial(self._answer, loop, batch))

    def _answer(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Request],
        done: "asyncio.Future[list[UpdaterError | None]]",
    ) -> None:
        try:
            answers = done.result()
        except Exception as error:  # noqa: BLE001  a defect: each asker hears of it
            self._repeats.error("reports_failed", alike="defect", error=repr(error))
            answers = [StoreDownError("the store of reports failed")] * len(batch)
        for request, answer in zip(batch, answers, strict=True):
            if request.answer.done():
                continue  # who asked has gone
            if answer is None:
                request.answer.set_result(None)
            else:
                request.answer.set_exception(answer)
        self._next(loop)

    def _work(self, batch: list[_Request]) -> list[UpdaterError | None]:
        """Read and keep a batch, in the thread; return each request's error."""
        answers: list[UpdaterError | None] = []
        received: list[Received] = []
        for request in batch:
            try:
                received += self._read(request)
            except UpdaterError as error:
                answers.append(error)
            else:
                answers.append(None)
        if not received:
            return answers
        try:
            fresh = self._store("write").add(received)
        except UpdaterError as error:
            self._repeats.error("reports_failed", alike=error.code, error=error.cause)
            return [answer or error for answer in answers]
        self._on_commit(fresh, len(received) - fresh)
        self.commits += 1
        return answers

    @staticmethod
    def _read(request: _Request) -> list[Received]:
        reports = parse_all(request.body)
        for report in reports:
            if not request.may(report):
                raise NotAllowedError(
                    f"the token may not report about {report.product}",
                    do=f"make one with the scope report:{report.product}",
                )
        ages = _ages(request.ages, len(reports))
        return [
            Received(report, request.at_ms, age)
            for report, age in zip(reports, ages, strict=True)
        ]

    def _store(self, use: str) -> ReportStore:
        store = self._stores.get(use)
        if store is None:
            store = self._stores[use] = self._opener()
        return store

    async def read(self, work: Callable[[ReportStore], T]) -> T:
        """Return what `work` reads from the store, beside the loop.

        Raises:
            StoreDownError: it does not answer.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._reader, lambda: work(self._store("read"))
        )

    async def open(self) -> None:
        """Open the store: what is wrong with it is told at the start.

        Raises:
            BrokenError: it cannot be used.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._writer, self._store, "write")

    async def trim(self) -> int:
        """Delete what is older than is kept; return how many reports went.

        Raises:
            StoreDownError: it does not answer.

        Power cut: as the store's.
        """
        loop = asyncio.get_running_loop()
        now_ms = int(self._now() * 1000)
        return await loop.run_in_executor(
            self._writer, lambda: self._store("write").trim(now_ms)
        )

    async def close(self) -> None:
        """Keep what waits, and close the store."""
        await self._idle.wait()
        for thread in (self._writer, self._reader):
            await asyncio.get_running_loop().run_in_executor(thread, lambda: None)
            thread.shutdown()
        for store in self._stores.values():
            store.close()


def _ages(header: str, count: int) -> list[float | None]:
    """Return how old each report is, as its sender measured; None where unknown."""
    words = header.split(",")
    if len(words) != count:
        return [None] * count
    return [_age(word) for word in words]


def _age(word: str) -> float | None:
    try:
        seconds = float(word)
    except ValueError:
        return None
    return seconds if 0.0 <= seconds <= _LONGEST_AGE_S else None
