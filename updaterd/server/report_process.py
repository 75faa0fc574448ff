# SPDX-License-Identifier: Apache-2.0
"""Taking reports: its parts, which the feed has too, and a process of nothing else."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from updaterd import __version__
from updaterd.errors import UpdaterError
from updaterd.log import get
from updaterd.server.client_address import Proxies
from updaterd.server.http.acceptor import Acceptor
from updaterd.server.http.app import make_reports_app
from updaterd.server.http.guard import Guard
from updaterd.server.http.reports import ReportParts
from updaterd.server.listener import Listener, configure
from updaterd.server.metrics import Metrics
from updaterd.server.options import Options
from updaterd.server.reports.contract import Keeping
from updaterd.server.reports.ingest import Ingest
from updaterd.server.reports.registry import open_store
from updaterd.server.resources import (
    file_limits,
    listen,
    lock_reports,
    write_address,
)
from updaterd.server.streams.streams import World
from updaterd.server.tokens import Tokens, make_state

if TYPE_CHECKING:
    from updaterd.server.console.pages import Console

_UPKEEP_S = 300.0

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
    # an extra that most servers do without
    from updaterd.server.console.pages import Console, ConsoleParts  # noqa: PLC0415

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
        config = configure(make_reports_app(parts, self._console), guard)
        self._tls = config.ssl
        self._listener = Listener(config, self._stop)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.started = asyncio.Event()
        self.url = ""

    def _stop(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Keep what waits, and end."""
        if self._console is not None:
            self._console.close()
        self._listener.should_exit = True
        self._listener.leave.set()

    async def run(self) -> None:
        """Serve until stopped; `started` is set once it listens at `url`.

        Raises:
            BrokenError: the address or the store cannot be used.
        """
        with lock_reports(self.options):
            await self._run()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGHUP, lambda: None)
        address = self.options.address_file
        sock = listen(self.options)
        try:
            await self._ingest.open()
            sockets = [sock]
            if self._tls is not None:
                sockets = []
                self._listener.acceptor = Acceptor(
                    sock,
                    self._guard,
                    self._tls,
                    self._listener.protocol,
                    deadline_s=self.options.deadlines.handshake_s,
                )
            serving = asyncio.create_task(self._listener.serve(sockets=sockets))
            beside = asyncio.create_task(self._upkeep())
            scheme = "https" if self.options.tls_cert else "http"
            host = self.options.host
            host = f"[{host}]" if ":" in host else host
            self.url = f"{scheme}://{host}:{sock.getsockname()[1]}"
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
