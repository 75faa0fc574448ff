# SPDX-License-Identifier: Apache-2.0
"""The process of the feed: its parts, its start, its end, and the tasks beside it."""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry

from updaterd import __version__
from updaterd.clocks import Draws
from updaterd.core import layout
from updaterd.errors import UpdaterError
from updaterd.log import get
from updaterd.server.certificate import Certificate
from updaterd.server.client_address import Proxies
from updaterd.server.ending import end
from updaterd.server.host.owned_log import AskedLog
from updaterd.server.host.seat import Seat, read_seat, share_of
from updaterd.server.host.sums import registry_of, write_metrics
from updaterd.server.host.talk import Said, Talk
from updaterd.server.host_process import HostServer
from updaterd.server.http.app import make_app
from updaterd.server.http.bearers import Bearers
from updaterd.server.http.files import public_folder
from updaterd.server.http.parts import Parts
from updaterd.server.http.publish import MetadataWatch
from updaterd.server.listener import Listener
from updaterd.server.log.contract import EventLog, LogDownError
from updaterd.server.log.registry import open_log
from updaterd.server.metrics import Metrics
from updaterd.server.observer import Observer
from updaterd.server.options import Options
from updaterd.server.port.guard import Guard
from updaterd.server.report_process import (
    ReportServer,
    give_way,
    open_console,
    open_reports,
    trim_reports,
)
from updaterd.server.reports.ingest import Ingest
from updaterd.server.resources import (
    adopted,
    file_limits,
    listen,
    lock_embedded,
    lock_reports,
    taker_for,
    url_of,
    write_address,
)
from updaterd.server.streams.hub import Hub
from updaterd.server.streams.ledger import SharedLedger
from updaterd.server.streams.sink_fast import PlainStream, Takeover
from updaterd.server.streams.streams import Streams, World
from updaterd.server.tokens import Tokens, make_state

_UPKEEP_S = 300.0
_RETRY_S = 1.0
_LATE_S, _LATE_STEPS = 0.1, 3  # for requests on the way, however late this process is

log = get()


class FeedServer:
    """One process of the feed server: its parts, its start and its end.

    Args:
        options: what `updaterd serve` was told.
        world: time and chance.
        seat: of a worker; None for a process that is alone.
    """

    def __init__(
        self, options: Options, world: World, seat: Seat | None = None
    ) -> None:
        make_state(options.state)
        self._seat = seat
        self._talk: Talk | None = None
        self._outlives = seat is not None and seat.outlives
        if seat is not None:
            options = share_of(options, seat.workers)
            ledger = SharedLedger(seat.memory, seats=seat.seats, seat=seat.seat)
            world = replace(world, ledger=ledger)
            self._talk = Talk(
                socket.socket(fileno=seat.talk),
                {"leave": self._on_leave, "samples": self._on_samples},
            )
        if options.repository is not None:
            options = replace(options, repository=public_folder(options.repository))
        self._most, downloads = file_limits()
        options = replace(options, max_downloads=min(options.max_downloads, downloads))
        self.options = options
        path = f"{layout.METADATA}/{layout.TIMESTAMP}"
        served = options.repository and options.repository / path
        watch = MetadataWatch(served, options.root)
        self.metrics = Metrics(now=world.now)
        self.log: EventLog
        if seat is not None and seat.owned and self._talk is not None:
            self.log = AskedLog(self._talk)
        else:
            self.log = open_log(
                options.log_url,
                state=options.state,
                retention=options.retention,
                now=world.now,
            )
        self._observer = Observer(self.metrics, watch)
        self.hub = Hub(
            self.log,
            observer=self._observer,
            heartbeat_s=options.heartbeat_s,
            ring_bytes=options.ring_bytes,
        )
        tokens = self._tokens = Tokens(options.state)
        self.streams = Streams(
            options,
            self.hub,
            tokens=tokens,
            metrics=self.metrics,
            world=world,
        )
        # the rest is for probes, announcements, and saying no properly
        self.streams.most = min(options.max_streams, self._most - self._most // 16)
        self._clock = world.clock
        proxies = Proxies(options.trusted_proxies)
        guard = self._guard = Guard(
            options, self._most, lambda: self.streams.detached, proxies=proxies
        )
        guard.taker = taker_for(options, self.streams)
        guard.plain = Takeover(self.streams, PlainStream)
        self._sink = "asgi" if guard.taker is None else "fast"
        self._bearers = Bearers(tokens, clock=world.clock, now=world.now)
        self._ingest: Ingest | None = None
        report_parts, self._console = None, None
        if options.reports.take != "off":
            report_parts = open_reports(
                options, tokens, self.metrics, proxies=proxies, world=world
            )
            self._ingest = report_parts.ingest
            self._console = open_console(
                report_parts, world=world, streams=lambda: self.streams.count
            )
        app = make_app(
            Parts(
                reports=report_parts,
                options=options,
                log=self.log,
                streams=self.streams,
                tokens=tokens,
                bearers=self._bearers,
                metrics=self.metrics,
                watch=watch,
                proxies=proxies,
                clock=world.clock,
                now=world.now,
                of_host=self._of_host if self._talk is not None else None,
            ),
            self._console,
        )
        self._listener = Listener(app, guard)
        self._tls = self._listener.tls
        self._certificate: Certificate | None = None
        if options.tls_cert is not None and options.tls_key is not None:
            self._certificate = Certificate(
                options.tls_cert, options.tls_key, now=world.now
            )
        self._stopping: asyncio.Task[None] | None = None
        self.url = ""
        self.started = asyncio.Event()

    def reload(self) -> None:
        """Read certificate and tokens again; other options need a restart."""
        parts = ["tokens"]
        self._tokens.forget()
        if self._certificate is not None and self._tls is not None:
            parts.append("certificate")
            self._certificate.watch(self._tls)
        log.info(
            "reloaded", parts=parts, means="options take effect with a restart only"
        )

    def stop(self) -> None:
        """Begin to drain; said twice, stop at once."""
        if self._stopping is not None:
            self._listener.hurry = True
            self._listener.leave.set()
            return
        self._stopping = asyncio.get_running_loop().create_task(self._drain())

    async def _of_host(self) -> CollectorRegistry:
        assert self._talk is not None
        try:
            workers = await self._talk.ask("metrics")
        except LogDownError:  # the owner is gone, and this process is about to be
            workers = []
        return registry_of(workers, most=self.options.max_streams)

    async def _on_samples(self, _: Said) -> list[list[Any]]:
        return write_metrics(self.metrics.registry)

    async def _on_leave(self, _: Said) -> None:
        """Make room for a successor, which has the same socket already."""
        self._outlives = True
        self.stop()

    async def _drain(self) -> None:
        if self._outlives:
            # who connects from here on is the successor's, and waits for it; who was
            # accepted already gets a stream, which then ends as the others do
            self._listener.deafen()
            for _ in range(_LATE_STEPS):
                await asyncio.sleep(_LATE_S)
        log.info("draining", streams=self.streams.count)
        if self._console is not None:
            self._console.close()
        await self.streams.drain()
        self._listener.leave.set()

    async def run(self) -> None:
        """Serve until stopped; `started` is set once it listens at `url`.

        Raises:
            BrokenError: the address or the log cannot be used.
        """
        with lock_embedded(self.log), lock_reports(self.options):
            await self._run()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        # a terminal that closes, and administrators, send it: it must end nothing
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        if self.options.address_file is not None:
            self.options.address_file.unlink(missing_ok=True)
        sock = self._socket()
        talking = None
        if self._talk is not None:
            talking = loop.create_task(self._talk.run())
            talking.add_done_callback(lambda _: self.stop())
        try:
            await self._try_start()
            if self._ingest is not None:
                await self._ingest.open()
            await self._serve(sock)
        finally:
            if talking is not None:
                talking.cancel()
            sock.close()
            if self._ingest is not None:
                await self._ingest.close()
            await self.log.close()
            await self._bearers.close()
            if self.options.address_file is not None:
                with suppress(OSError):
                    self.options.address_file.unlink(missing_ok=True)
            log.info("stopped")

    def _socket(self) -> socket.socket:
        """Return the listening socket: inherited, from systemd, or made.

        Raises:
            BrokenError: the address is taken or not ours.
        """
        if self._seat is not None:
            return socket.socket(fileno=self._seat.sock)
        if sockets := adopted():
            self._outlives = True
            return sockets[0]
        return listen(self.options)[0]

    async def _serve(self, sock: socket.socket) -> None:
        serving = asyncio.create_task(self._listener.serve(sock))
        beside = [
            asyncio.create_task(self._follow()),
            asyncio.create_task(self._upkeep()),
            asyncio.create_task(self.streams.wheel.run(self._clock)),
        ]
        try:
            self._announce(sock)
            if self._talk is not None:
                await self._talk.ask("ready")
            # a task that ends is a fault: better to stop than to serve half
            done, _ = await asyncio.wait(
                [serving, *beside], return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
        finally:
            serving.cancel()  # once: it closes its streams evenly meanwhile
            await end(beside)
            await asyncio.gather(serving, return_exceptions=True)

    def _announce(self, sock: socket.socket) -> None:
        self.url = url_of(self.options, sock)
        most = self.streams.most
        self.metrics.most_streams(most)
        log.info(
            "listening",
            url=self.url,
            version=__version__,
            sink=self._sink,
            event_log=self.options.log_url or "embedded",
            most_streams=most,
        )
        if most < self.options.max_streams:
            log.warning("few_files", most_streams=most, wanted=self.options.max_streams)
        if self.options.address_file is not None:
            write_address(self.options.address_file, self.url)
        self.started.set()

    async def _try_start(self) -> None:
        """Fill the hub; a log that is down now may come up later."""
        try:
            await self.hub.start()
            self.streams.ready = True
            self._observer.log_up()
            for warning in await self.log.warnings():
                log.warning("log_setup", warning=warning)
        except LogDownError as error:
            self._observer.log_down(error)

    async def _follow(self) -> None:
        while not self.streams.ready:
            await asyncio.sleep(_RETRY_S)
            await self._try_start()
        await self.hub.run()

    async def _upkeep(self) -> None:
        while True:
            if self._certificate is not None and self._tls is not None:
                self._certificate.watch(self._tls)
            try:
                if removed := await self.log.trim():
                    log.info("trimmed", events=removed)
            except UpdaterError as error:
                log.warning("trim_failed", error=str(error))
            if self._ingest is not None:
                await trim_reports(self._ingest)
            await asyncio.sleep(_UPKEEP_S)


def serve(
    options: Options, *, clock: Callable[[], float], now: Callable[[], float]
) -> None:
    """Serve until a signal comes.

    Args:
        options: what `updaterd serve` was told.
        clock: seconds on a steady clock.
        now: seconds since 1970.

    Raises:
        BrokenError: the address or the log cannot be used.
    """
    world = World(clock, now, Draws())
    seat = read_seat()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if seat is not None:
            runner.run(FeedServer(options, world, seat).run())
        elif options.reports.alone:
            give_way()
            runner.run(ReportServer(options, world).run())
        elif options.workers > 1:
            runner.run(HostServer(options, world).run())
        else:
            runner.run(FeedServer(options, world).run())
    # it ended in good order: an impatient second signal must not make it look killed
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
