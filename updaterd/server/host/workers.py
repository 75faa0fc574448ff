# SPDX-License-Identifier: Apache-2.0
"""The workers of a host: begun, begun again, replaced and ended."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from updaterd.log import get
from updaterd.server.host.owned_log import LogOwner
from updaterd.server.host.seat import VARIABLE, Seat
from updaterd.server.host.talk import Said, Talk
from updaterd.server.log.contract import LogDownError
from updaterd.server.streams.ledger import SharedLedger, make_memory

_SPARE = 3  # seats for each worker: its successor comes before it has gone
_AGAIN_S = 0.2  # doubled with each failure in a row
_LONGEST_S = 30.0
_STEADY_S = 60.0
_READY_S = 60.0
_ANSWER_S = 2.0

log = get()


@dataclass(slots=True, eq=False)
class _Worker:
    """One process.

    Attributes:
        line: which of the host's workers it is: its socket stays when it goes.
        seat: its part of the shared memory.
        begun: when, on a steady clock.
        ready: it serves, or has ended.
    """

    line: int
    seat: int
    process: Process
    talk: Talk
    begun: float
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    is_leaving: bool = False


class Workers:
    """All workers of a host.

    Args:
        sockets: to listen on; a worker has one of them.
        count: of workers.
        outlives: the sockets outlive the service.
        owner: answers about the log; None where each worker has its own.
        clock: seconds on a steady clock.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        count: int,
        *,
        outlives: bool,
        owner: LogOwner | None,
        clock: Callable[[], float],
    ) -> None:
        self._sockets = sockets
        self._count = count
        self._outlives = outlives
        self._owner = owner
        self._clock = clock
        self._seats = _SPARE * count
        self._memory = make_memory(self._seats)
        self._ledger = SharedLedger(self._memory, seats=self._seats, seat=0)
        self._all: dict[int, _Worker] = {}  # by seat
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = [0] * count
        self._ending = asyncio.Event()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Begin all of them; return once they serve."""
        begun = [await self._begin(line) for line in range(self._count)]
        for worker in begun:
            await worker.ready.wait()

    async def _begin(self, line: int) -> _Worker:
        seat = next(s for s in range(self._seats) if s not in self._all)
        own_end, worker_end = socket.socketpair()
        sock = self._sockets[line % len(self._sockets)]
        inherited = Seat(
            seat=seat,
            seats=self._seats,
            workers=self._count,
            memory=self._memory,
            talk=worker_end.fileno(),
            sock=sock.fileno(),
            outlives=self._outlives,
            owned=self._owner is not None,
        )
        try:
            process = await asyncio.create_subprocess_exec(
                # -I: nothing of the folder in which it was started
                *(sys.executable, "-I", "-m", "updaterd", *sys.argv[1:]),
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, VARIABLE: inherited.write()},
                pass_fds=(self._memory, worker_end.fileno(), sock.fileno()),
            )
        except OSError:
            own_end.close()
            raise
        finally:
            worker_end.close()
        worker = _Worker(line, seat, process, None, self._clock())  # type: ignore[arg-type]  # its answers need it
        answers: dict[str, Callable[[Said], Awaitable[Any]]] = {
            "ready": partial(self._on_ready, worker),
            "metrics": self._on_metrics,
            **(self._owner.answers if self._owner else {}),
        }
        worker.talk = Talk(own_end, answers, self._owner.tells if self._owner else {})
        self._all[seat] = worker
        self._spawn(worker.talk.run())
        self._spawn(self._watch(worker))
        return worker

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _on_ready(self, worker: _Worker, _: Said) -> None:
        worker.ready.set()
        self._failures[worker.line] = 0

    async def _on_metrics(self, _: Said) -> list[Any]:
        """Return what each worker counts; one that does not answer is left out."""

        async def of(worker: _Worker) -> Any:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    return await worker.talk.ask("samples")
            except (TimeoutError, LogDownError):
                return None

        ready = [worker for worker in self._all.values() if worker.ready.is_set()]
        answers = await asyncio.gather(*map(of, ready))
        return [answer for answer in answers if answer is not None]

    async def _watch(self, worker: _Worker) -> None:
        """Wait for a worker's end, and begin another unless it was told to leave."""
        code = await worker.process.wait()
        worker.talk.close()
        worker.ready.set()
        del self._all[worker.seat]
        self._ledger.clear(worker.seat)
        self._changed.set()
        while not (worker.is_leaving or self._ending.is_set()):
            line = worker.line
            if self._clock() - worker.begun > _STEADY_S:
                self._failures[line] = 0
            self._failures[line] += 1
            pause = min(_LONGEST_S, _AGAIN_S * 2 ** min(20, self._failures[line] - 1))
            log.error(
                "worker_died",
                worker=line,
                code=code,
                again_s=round(pause, 1),
                means="its streams come back to the others, or to its successor",
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)
                return
            try:
                await self._begin(line)
            except OSError as error:
                log.warning("worker_unbegun", worker=line, error=str(error))
                continue
            return

    async def replace(self) -> None:
        """Begin successors on the same sockets; then let the others leave."""
        if len(self._all) + self._count > self._seats:
            log.warning("reload_busy", means="those replaced before are still leaving")
            return
        old = list(self._all.values())
        new = [await self._begin(line) for line in range(self._count)]
        try:
            async with asyncio.timeout(_READY_S):
                for worker in new:
                    await worker.ready.wait()
        except TimeoutError:
            pass
        if not all(w.ready.is_set() and w.process.returncode is None for w in new):
            log.error("reload_failed", means="the workers that were there serve on")
            for worker in new:
                worker.is_leaving = True
                if worker.process.returncode is None:
                    worker.process.terminate()
            return
        for worker in old:
            worker.is_leaving = True
            self._spawn(self._tell(worker))
        log.info("reloaded", parts=["workers"], means="everything was read again")

    async def _tell(self, worker: _Worker) -> None:
        """Tell a worker to accept no more, to close its streams evenly, and to end."""
        try:
            await worker.talk.ask("leave")
        except LogDownError:
            if worker.process.returncode is None:
                worker.process.terminate()

    async def end(self, grace_s: float) -> None:
        """End all of them, within their grace period."""
        self._ending.set()
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                while self._all:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            while self._all:
                self._changed.clear()
                await self._changed.wait()
        for task in self._tasks:
            task.cancel()

    def signal(self, number: int) -> None:
        """Send a signal to all of them."""
        for worker in self._all.values():
            if worker.process.returncode is None:
                worker.process.send_signal(number)
