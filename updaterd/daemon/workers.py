# SPDX-License-Identifier: Apache-2.0
"""Worker processes: `updaterd update PRODUCT`, spawned as an administrator would.

A crash, an out-of-memory kill or a hostile bundle ends the worker, never the
subscription, and its memory goes back to the system.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from updaterd import log
from updaterd.core.dataclass import dataclass
from updaterd.daemon.troubles import trouble
from updaterd.system import oom

_NOT_STARTED = 127  # as nice(1) and every shell say it
_SAID = frozenset({0, 4, 10, 20, 30})  # codes of a worker that knows how things stand


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a worker ended: its exit code, or minus the signal that killed it.

    `starved`: by the kernel, for want of memory.
    """

    code: int
    starved: bool = False

    @property
    def crashed(self) -> bool:
        """Tell whether it ended without having said how things stand."""
        return self.code not in _SAID

    def __str__(self) -> str:
        """Return "killed by SIGKILL" or "exit code 1, see its log"."""
        if self.starved:
            return f"the kernel killed it: out of memory; {oom.CURE}"
        if self.code < 0:
            named = {number.value: number.name for number in signal.Signals}
            return f"killed by {named.get(-self.code, f'signal {-self.code}')}"
        if self.code in (126, _NOT_STARTED):
            return "it could not be started, see the daemon's log"
        return f"exit code {self.code}, see its log"


class Workers:
    """Spawns workers with the daemon's own interpreter, isolated (`-I`).

    Args:
        arguments: command-line options that every worker gets (`--config`, ...).
        niceness: added to the worker's own; applications come first.
        command: what starts updaterd; empty for the daemon's own (`-m updaterd`).
        oom_kills: counts what the kernel killed here for want of memory.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        niceness: int = 10,
        command: Sequence[str] = (),
        oom_kills: Callable[[], int] = oom.kills,
    ) -> None:
        self._command = tuple(command)
        self._oom_kills = oom_kills
        self._arguments = tuple(arguments)
        self._niceness = niceness
        self._running: asyncio.subprocess.Process | None = None
        self._spawning = asyncio.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Return the process at work, if any."""
        return self._running.pid if self._running else None

    async def update(
        self, product: str, *, trigger: str, pushed: Path | None = None
    ) -> Ended:
        """Bring one product to its target; return how the worker ended.

        Cancelling leaves the worker at work; `stop` ends it.
        """
        async with self._spawning:
            if self._closed:
                return Ended(code=-signal.SIGTERM)
            memory = oom.Watch(self._oom_kills)
            try:
                process = await self._spawn(product, trigger, pushed)
            except OSError as error:  # no memory, no processes left, no interpreter
                log.get().error(
                    "worker_not_started", **trouble("machine_refused", str(error))
                )
                return Ended(code=_NOT_STARTED)
            self._running = process
        code = await process.wait()
        self._running = None
        return Ended(code=code, starved=code == -signal.SIGKILL and memory.has_killed)

    async def _spawn(
        self, product: str, trigger: str, pushed: Path | None
    ) -> asyncio.subprocess.Process:
        pushed_option = ["--pushed", str(pushed)] if pushed else []
        # Not preexec_fn: it would run Python in the forked child of a process
        # with threads. `nice` is a few kB and exec()s.
        nice = ["/usr/bin/nice", f"-n{self._niceness}"] if self._niceness else []
        return await asyncio.create_subprocess_exec(
            *(nice if os.access("/usr/bin/nice", os.X_OK) else []),
            *(self._command or (sys.executable, "-I", "-m", "updaterd")),
            "update",
            product,
            "--trigger",
            trigger,
            *pushed_option,
            *self._arguments,
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=None,  # the daemon's own: the journal keeps the worker's fields
        )

    async def report(self, *, patience_s: float) -> None:
        """Have a short process send the reports that wait; it leaves word itself.

        Args:
            patience_s: how long it may take.
        """
        if self._closed:
            return
        try:
            process = await asyncio.create_subprocess_exec(
                *(self._command or (sys.executable, "-I", "-m", "updaterd")),
                *("reports", "--send"),
                *self._arguments,
                env=environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError:
            return  # no process can be made: the workers will say so
        try:
            async with asyncio.timeout(patience_s):
                await process.wait()
        except TimeoutError:
            return
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def stop(self, *, grace_s: float, patience_s: float) -> None:
        """Start no more; let the worker end: itself, by SIGTERM, then by SIGKILL.

        SIGTERM ends a worker at once, but in its critical section it first sees the
        trial to its end; whatever is left undone, the next start finishes from the
        journal.

        Args:
            grace_s: how long it may go on before it is asked to end.
            patience_s: how long it may take to end once it is asked.
        """
        async with self._spawning:  # one that is being started counts
            self._closed = True
            process = self._running
        for wait_s, number in (
            (grace_s, None),
            (patience_s, signal.SIGTERM),
            (None, signal.SIGKILL),
        ):
            if process is None or process.returncode is not None:
                return
            if number is not None:
                process.send_signal(number)
            try:
                await asyncio.wait_for(process.wait(), wait_s)
            except TimeoutError:
                continue


def environment() -> dict[str, str]:
    """Return the daemon's environment without what is between systemd and it."""
    own = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
    return {name: value for name, value in os.environ.items() if name not in own}


def options(named: Mapping[str, Path | None], *, demo: bool) -> list[str]:
    """Return the machine options that lead a worker to the daemon's own settings."""
    out: list[str] = []
    for name, value in named.items():
        if value is not None:
            out += [f"--{name}", str(value)]
    return [*out, "--demo"] if demo else out
