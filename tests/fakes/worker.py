# SPDX-License-Identifier: Apache-2.0
"""The worker in this process: the real pipeline, given a clock, a boot, a journal."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fakes.machine import Machine

from updaterd import config
from updaterd.install.restart_systemd import RefusedError
from updaterd.net import Fetcher
from updaterd.pipeline import update as pipeline
from updaterd.pipeline.machine import Services, open_services
from updaterd.pipeline.run import Request
from updaterd.store.journal import Journal
from updaterd.store.schema import open_state


class Units:
    """A service manager that remembers what it was asked for.

    With `linked`, its units are links into `app/current`, known once that is there.
    """

    def __init__(
        self,
        *,
        faults: dict[str, str] | None = None,
        app: Path | None = None,
        linked: tuple[str, ...] = (),
    ):
        self._linked = linked
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self._faults = faults or {}
        self._app = app

    def check(self, units) -> None:
        self.calls.append(("check", tuple(units)))
        self._refuse_unknown(units)

    def restart(self, units) -> None:
        self.calls.append(("restart", tuple(units)))
        self._refuse_unknown(units)

    def _refuse_unknown(self, units) -> None:
        for unit in units:
            if unit in self._linked and not (self._app / "current" / unit).exists():
                raise RefusedError(f"Unit {unit} not found.")

    def stop(self, units) -> None:
        self.calls.append(("stop", tuple(units)))

    def fault(self, units, *, active_s: float) -> str:
        self.calls.append((f"watch {active_s:g} s", tuple(units)))
        running = (self._app / "current").readlink().name if self._app else ""
        return self._faults.get(running, "")

    def states(self, units) -> dict[str, tuple[str, str]]:
        return dict.fromkeys(units, ("active", "0"))

    def properties(self, unit, names) -> dict[str, str]:
        return {}

    def is_stopping(self) -> bool | None:
        return False


class DyingJournal(Journal):
    """Kills its process at a state: once journalled, or when it is about to be left."""

    def __init__(self, connection, *, state: str, leaving: bool):
        super().__init__(connection)
        self._state = state
        self._leaving = leaving
        self._before = ""

    def _step(self, ident, state, note) -> None:
        if self._leaving and self._before == self._state:
            os.kill(os.getpid(), signal.SIGKILL)  # inside the transaction
        super()._step(ident, state, note)
        self._before = str(state)

    def begin(self, *arguments):
        ident = super().begin(*arguments)
        self._die()
        return ident

    def move(self, *arguments, **values):
        super().move(*arguments, **values)
        self._die()

    def stage(self, *arguments):
        super().stage(*arguments)
        self._die()

    def order_back(self, *arguments):
        super().order_back(*arguments)
        self._die()

    def install(self, *arguments):
        super().install(*arguments)
        self._die()

    def condemn(self, *arguments):
        failures = super().condemn(*arguments)
        self._die()
        return failures

    def _die(self) -> None:
        if not self._leaving and self._before == self._state:
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def worker(
    machine: Machine, *, journal=Journal, boot="boot-1", clock=time.time, **changes
) -> Iterator[Services]:
    """Open the machine's own services in this process."""
    settings = config.load(
        machine.config,
        state=machine.root / "state",
        cache=machine.root / "cache",
        runtime=machine.root / "run",
        demo=True,
    )
    connection = open_state(machine.root / "state" / "state.db")
    with Fetcher() as fetcher:
        services = open_services(
            settings,
            journal(connection),
            fetcher,
            clock=clock,
            draw=lambda: 0.5,
            teller=changes.pop("teller", None) or _Lines(),
            environment={},
        )
        changed = {"manager": Units(), **changes}
        yield replace(services, boot=boot, **changed)
    connection.close()


class _Lines:
    """A teller whose lines pytest shows when a test fails."""

    def say(self, line: str) -> None:
        print(line)

    def progress(self, what: str, done: int, total: int) -> None:
        pass


def product_of(machine: Machine, **changes):
    """Return the machine's product, with some of its settings changed."""
    settings = config.load(
        machine.config, state=machine.root / "state", cache=machine.root / "cache",
        runtime=machine.root / "run", demo=True,
    )  # fmt: skip
    return replace(settings.products[machine.product], **changes)


def update(machine: Machine, services: Services, **request):
    """Run one update."""
    return pipeline.update(product_of(machine), services, Request(**request))


def killed(
    machine: Machine, state: str, *, leaving: bool, act=update, **changes
) -> bool:
    """Run an update in a fork that is killed at `state`; tell whether it was.

    `act` is what is run instead, given the machine and its services.
    """
    pid = os.fork()
    if pid == 0:
        code = 70
        try:

            def journal(connection):
                return DyingJournal(connection, state=state, leaving=leaving)

            with worker(machine, journal=journal, **changes) as services:
                act(machine, services)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL
