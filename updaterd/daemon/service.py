# SPDX-License-Identifier: Apache-2.0
"""Run the supervisor as a process: signals, reload, restarts after a defect."""

import asyncio
import signal
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

from updaterd import log, status
from updaterd.clocks import Clocks
from updaterd.core.settings import Settings
from updaterd.daemon import findings, network
from updaterd.daemon.supervisor import Supervisor
from updaterd.daemon.troubles import trouble
from updaterd.daemon.workers import Workers, options
from updaterd.errors import UpdaterError
from updaterd.store.rebuild import note_loss, open_or_rebuild
from updaterd.system import wake
from updaterd.system.notify import Notifier


def serve(
    load: Callable[[], Settings],
    *,
    now: Callable[[], float],
    draw: Callable[[], float],
) -> int:
    """Run the daemon until SIGTERM or SIGINT; SIGHUP loads the settings anew.

    Args:
        load: reads the configuration.
        now: Unix seconds.
        draw: uniform in [0, 1).

    Raises:
        BrokenError: the configuration or the state database cannot be used.
    """
    asyncio.run(_Service(load, Clocks(now=now, draw=draw)).run())
    return 0


class _Service:
    """One supervisor after the other, until told to end.

    Signals are heard from the first to the last moment: between two supervisors an
    unheard one would end the process, and an end must not be lost in a reload.
    """

    def __init__(self, load: Callable[[], Settings], clocks: Clocks) -> None:
        self._load = load
        self._clocks = clocks
        self._notifier = Notifier.from_environ()
        self._supervisor: Supervisor | None = None
        self._next: Settings | None = None
        self._ending = False
        self._state_lost = False
        self._ear: socket.socket | None = None

    async def run(self) -> None:
        """Serve until told to end."""
        loop = asyncio.get_running_loop()
        for number, act in (
            (signal.SIGTERM, self._end),
            (signal.SIGINT, self._end),
            (signal.SIGUSR1, self._look_again),
            (signal.SIGHUP, self._reload),
        ):
            loop.add_signal_handler(number, act)
        try:
            self._next = self._load()
            self._listen(Path(self._next.directories.runtime))
            while self._next is not None and not self._ending:
                settings, self._next = self._next, None
                if await self._supervise(settings) and self._next is None:
                    self._next = settings
        finally:
            if self._ear is not None:
                loop.remove_reader(self._ear)
                self._ear.close()
            self._notifier.close()

    async def _supervise(self, settings: Settings) -> bool:
        """Run one supervisor until the end or a reload.

        Returns:
            Whether the state database was taken away from under it.
        """
        directories = settings.directories
        self._notifier.watchdog()  # a damaged database takes its time below
        connection, loss = open_or_rebuild(
            Path(directories.state) / "state.db", now=self._clocks.now()
        )
        if self._state_lost:
            loss = note_loss(connection, now=self._clocks.now())
        if loss:
            log.get().error("state_set_aside", **trouble("state_unusable", loss))
        arguments = options(
            {
                "config": Path(directories.config),
                "state-dir": Path(directories.state),
                "cache-dir": Path(directories.cache),
                "runtime-dir": Path(directories.runtime),
            },
            demo=settings.demo,
        )
        self._supervisor = Supervisor(
            settings,
            connection=connection,
            workers=Workers(arguments),
            clocks=self._clocks,
            notifier=self._notifier,
        )
        supervisor = self._supervisor
        routes = self._watch_routes(settings, connection)
        look = asyncio.create_task(findings.tell(arguments, supervisor.know_cage))
        try:
            await supervisor.run()
        finally:
            self._supervisor = None
            if routes is not None:
                asyncio.get_running_loop().remove_reader(routes)
                routes.close()
            look.cancel()
            await asyncio.wait({look})
            connection.close()
        self._state_lost = supervisor.state_lost
        return supervisor.state_lost

    def _end(self) -> None:
        self._ending = True
        self._notifier.stopping()  # not for a reload: systemd would wait for the end
        if self._supervisor is not None:
            self._supervisor.stop()

    def _listen(self, runtime: Path) -> None:
        """Hear who wants the daemon to look again; without, it does so by the clock."""
        try:
            self._ear = wake.listen(runtime)
        except OSError as error:
            log.get().warning(
                "wake_unusable",
                path=str(runtime),
                **trouble("not_writable", str(error)),
            )
            return
        asyncio.get_running_loop().add_reader(self._ear, self._woken, self._ear)

    def _watch_routes(
        self, settings: Settings, connection: sqlite3.Connection
    ) -> socket.socket | None:
        """Look again when a way out appears; without that, by the clock."""
        try:
            ear = network.listen()
        except OSError as error:
            log.get().info("network_unwatched", reason=str(error))
            return None

        def changed() -> None:
            try:
                has_way_out = network.has_way_out(ear)
            except OSError as error:
                asyncio.get_running_loop().remove_reader(ear)
                log.get().info("network_unwatched", reason=str(error))
                return
            if has_way_out:
                log.get().info("network_up")
                now = self._clocks.now()
                network.look_at_metered(connection, settings.products, now)
                self._look_again()

        asyncio.get_running_loop().add_reader(ear, changed)
        return ear

    def _woken(self, ear: socket.socket) -> None:
        wake.hear(ear)
        self._look_again()

    def _look_again(self) -> None:
        if self._supervisor is not None:
            self._supervisor.look_again()

    def _reload(self) -> None:
        self._notifier.reloading()
        try:
            self._next = self._load()
        except (UpdaterError, OSError, ValueError) as error:
            # What works goes on: a typo must not stop the updates of a machine.
            code = error.code if isinstance(error, UpdaterError) else "config"
            log.get().error("reload_refused", **trouble(code, str(error)))
            self._notifier.ready()
            if self._supervisor is not None:
                self._supervisor.refuse(
                    status.refusal(code, str(error), at=self._clocks.now())
                )
            return
        if self._supervisor is not None:
            self._supervisor.stop(patient=True)
