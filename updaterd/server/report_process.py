# SPDX-License-Identifier: Apache-2.0
"""Taking reports: its parts, which the feed has too, and a process of nothing else."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from updaterd import __version__
from updaterd.errors import UpdaterError
from updaterd.log import get
from updaterd.server.client_address import Proxies
from updaterd.server.http.app import make_reports_app
from updaterd.server.http.reports import ReportParts
from updaterd.server.listener import Listener
from updaterd.server.metrics import Metrics
from updaterd.server.options import Options
from updaterd.server.port.guard import Guard
from updaterd.server.reports.contract import Keeping
from updaterd.server.reports.ingest import Ingest
from updaterd.server.reports.registry import open_store
from updaterd.server.resources import (
    adopted,
    file_limits,
    listen,
    lock_reports,
    url_of,
    write_address,
)
from updaterd.server.streams.streams import World
from updaterd.server.tokens import Tokens, make_state

if TYPE_CHECKING:
    from updaterd.server.console.pages import Console

_UPKEEP_S = 300.0
_BEHIND = 5

log = get()


def open_reports(
    options: Options,
    tokens: Tokens,
    metrics: Metrics,
    *,
    proxies: Proxies,
    world: World,
) -> ReportParts:
    """Return the parts that take reports; the store is opened in its thread."""
    reports = options.reports
    ingest = Ingest(
        partial(
            open_store,
            reports.url,
            state=options.state,
            keeping=Keeping(reports_s=reports.keep_s),
        ),
        now=world.now,
        waiting_bytes=reports.waiting_bytes,
        on_commit=metrics.count_reports,
    )
    return ReportParts(
        ingest=ingest,
        options=options,
        tokens=tokens,
        metrics=metrics,
        proxies=proxies,
        clock=world.clock,
        now=world.now,
    )


def open_console(
    parts: ReportParts, *, world: World, streams: Callable[[], int] | None
) -> "Console | None":
    """Return the console, where it is wanted.

    Args:
        parts: of reports.
        world: time and chance.
        streams: tells how many streams are open; None: there is no feed here.
    """
    if not parts.options.console.on:
        return None
    from updaterd.server.console.pages import (  # noqa: PLC0415 - most do without it
        Console,
        ConsoleParts,
    )

    return Console(
        ConsoleParts(
            ingest=parts.ingest,
            tokens=parts.tokens,
            proxies=parts.proxies,
            now=world.now,
            clock=world.clock,
            is_tls=parts.options.tls_cert is not None,
            repository=parts.options.repository,
            audit=parts.options.console.audit,
            streams=streams,
        )
    )


def give_way() -> None:
    """Let this process, and what it starts, run behind the feed on the same cores.

    A report waits for its turn, a stream should not: SCHED_BATCH, so that a body that
    comes interrupts nobody at work, and a lower priority, a third of the feed's share
    where both want a core. Alone on its cores it is as fast as ever.
    """
    with suppress(OSError):  # some sandboxes refuse it, and it is only a courtesy
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        os.nice(_BEHIND)


async def trim_reports(ingest: Ingest) -> None:
    """Delete reports that are older than is kept; what goes wrong is logged.

    Power cut: as the store's.
    """
    try:
        if removed := await ingest.trim():
            log.info("reports_trimmed", reports=removed)
    except UpdaterError as error:
        log.warning("trim_failed", error=str(error))


class ReportServer:
    """A process that takes reports and nothing else, behind the feed's own proxy.

    Args:
        options: what `updaterd serve` was told.
        world: time and chance.
    """

    def __init__(self, options: Options, world: World) -> None:
        make_state(options.state)
        self.options = options
        most, _ = file_limits()
        tokens = Tokens(options.state)
        proxies = Proxies(options.trusted_proxies)
        self.metrics = Metrics(now=world.now)
        parts = open_reports(
            options, tokens, self.metrics, proxies=proxies, world=world
        )
        self._ingest = parts.ingest
        guard = Guard(options, most, lambda: 0, proxies=proxies)
        self._guard = guard
        self._console = open_console(parts, world=world, streams=None)
        self._listener = Listener(make_reports_app(parts, self._console), guard)
        self.started = asyncio.Event()
        self.url = ""

    def stop(self) -> None:
        """Keep what waits, and end."""
        if self._console is not None:
            self._console.close()
        self._listener.leave.set()

    async def run(self) -> None:
        """Serve until stopped; `started` is set once it listens at `url`.

        Raises:
            BrokenError: the address or the store cannot be used.
        """
        with lock_reports(self.options):
            await self._run()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        address = self.options.address_file
        sock = (adopted() or listen(self.options))[0]
        try:
            await self._ingest.open()
            serving = asyncio.create_task(self._listener.serve(sock))
            beside = asyncio.create_task(self._upkeep())
            self.url = url_of(self.options, sock)
            log.info("listening_for_reports", url=self.url, version=__version__)
            if address is not None:
                write_address(address, self.url)
            self.started.set()
            await serving
            beside.cancel()
        finally:
            sock.close()
            await self._ingest.close()
            if address is not None:
                with suppress(OSError):
                    address.unlink(missing_ok=True)
            log.info("stopped")

    async def _upkeep(self) -> None:
        while True:
            await trim_reports(self._ingest)
            await asyncio.sleep(_UPKEEP_S)
