# SPDX-License-Identifier: Apache-2.0
"""The process that owns a host's feed: sockets, the embedded log, and workers."""

import asyncio
import signal
from contextlib import suppress

from updaterd import __version__
from updaterd.errors import BrokenError, UpdaterError
from updaterd.log import get
from updaterd.server.ending import end
from updaterd.server.host.owned_log import LogOwner
from updaterd.server.host.workers import Workers
from updaterd.server.log.registry import open_log
from updaterd.server.options import Options
from updaterd.server.reports.registry import embedded
from updaterd.server.resources import (
    adopted,
    listen,
    lock_embedded,
    url_of,
    write_address,
)
from updaterd.server.streams.streams import World
from updaterd.server.tokens import make_state
from updaterd.system.notify import Notifier

_UPKEEP_S = 300.0
_LAST_S = 10.0  # beyond the grace period, before workers are killed

log = get()


class HostServer:
    """One process that serves nobody itself: its workers do.

    Args:
        options: what `updaterd serve` was told.
        world: time and chance.

    Raises:
        BrokenError: what it was told asks for one process.
    """

    def __init__(self, options: Options, world: World) -> None:
        if options.reports.take != "off" and embedded(
            options.reports.url, options.state
        ):
            raise BrokenError(
                "several workers cannot share the embedded store of reports",
                do="keep reports in PostgreSQL (--reports-store), or take them in a "
                "process of their own (--only reports)",
                code="workers_reports",
            )
        if options.console.on:
            raise BrokenError(
                "several workers cannot share the console",
                do="serve it in a process of its own (--only reports)",
                code="workers_reports",
            )
        make_state(options.state)
        self.options = options
        self._world = world
        self._log = open_log(
            options.log_url,
            state=options.state,
            retention=options.retention,
            now=world.now,
        )
        self._leave = asyncio.Event()
        self._reload = asyncio.Event()
        self._notifier = Notifier.from_environ()
        self.started = asyncio.Event()
        self.url = ""

    async def run(self) -> None:
        """Serve until a signal comes.

        Raises:
            BrokenError: the address or the log cannot be used.
        """
        with lock_embedded(self._log):
            await self._run()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        options = self.options
        address = options.address_file
        if address is not None:
            address.unlink(missing_ok=True)
        own = self._log.file is not None
        if own:
            await self._log.bounds()  # a log that cannot be used is told by one process
        sockets = adopted()
        outlives = bool(sockets)
        sockets = sockets or listen(options, options.workers)
        workers = Workers(
            sockets,
            options.workers,
            outlives=outlives,
            owner=LogOwner(self._log) if own else None,
            clock=self._world.clock,
        )
        upkeep = loop.create_task(self._upkeep(trims=own))
        reloading = loop.create_task(self._replace(workers))
        try:
            await workers.start()
            self.url = url_of(options, sockets[0])
            log.info(
                "listening",
                url=self.url,
                version=__version__,
                workers=options.workers,
                event_log=options.log_url or "embedded",
            )
            if address is not None:
                write_address(address, self.url)
            self._notifier.ready()
            self.started.set()
            await self._leave.wait()
            self._notifier.stopping()
        finally:
            await end((upkeep, reloading))
            await workers.end(options.grace_s + _LAST_S)
            for sock in sockets:
                sock.close()
            await self._log.close()
            if address is not None:
                with suppress(OSError):
                    address.unlink(missing_ok=True)
            log.info("stopped")

    async def _replace(self, workers: Workers) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            await workers.replace()

    async def _upkeep(self, *, trims: bool) -> None:
        while trims:
            try:
                if removed := await self._log.trim():
                    log.info("trimmed", events=removed)
            except UpdaterError as error:
                log.warning("trim_failed", error=str(error))
            await asyncio.sleep(_UPKEEP_S)
