"""The server process: sockets, uvicorn, signals, and the tasks beside it."""

import asyncio
import resource
import secrets
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import cast
from urllib.parse import urlsplit

import structlog
import uvicorn
import uvloop

from updaterd.durable import publish_file
from updaterd.errors import BrokenError, UpdaterError
from updaterd.locks import hold
from updaterd.server.app import Parts, make_app
from updaterd.server.hub import Hub
from updaterd.server.log import EventLog, LogDownError, Record
from updaterd.server.log_redis import RedisLog
from updaterd.server.log_sqlite import SqliteLog
from updaterd.server.metrics import Metrics
from updaterd.server.options import Options
from updaterd.server.protocol import FeedProtocol, Guard, maker, supported
from updaterd.server.publish import MetadataWatch
from updaterd.server.sink_fast import Takeover
from updaterd.server.streams import Streams, World
from updaterd.server.tokens import Tokens, make_state

_BACKLOG = 4096
_DEAD_PEER_MS = 60_000
_TRIM_S = 300.0
_RETRY_S = 1.0
_LAST_REQUESTS_S = 5
_SPARE_FILES = 256

log = structlog.get_logger("updaterd.server")


def open_log(options: Options, *, now: Callable[[], float]) -> EventLog:
    """Return the log that the options name.

    Raises:
        BrokenError: an unknown kind of address.
    """
    url = options.log_url or f"sqlite:///{options.state / 'feed.db'}"
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and not parts.netloc and parts.path:
        return SqliteLog(Path(parts.path), retention=options.retention, now=now)
    if parts.scheme in {"redis", "rediss", "unix"}:
        return RedisLog(url, retention=options.retention, now=now)
    raise BrokenError(
        f"no event log is kept at {url!r:.200}",
        do="use sqlite:///ABSOLUTE/PATH or redis://HOST:PORT/DB",
        code="log_url",
    )


def listen(options: Options) -> socket.socket:
    """Return the listening socket.

    Raises:
        BrokenError: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # a peer that vanished without a word is noticed, by every accepted socket
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_PEER_MS)
        sock.bind((options.host, options.port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise BrokenError(
            f"cannot listen on {options.host} port {options.port}: {error}",
            do="choose another --port, or stop what listens there",
            code="listen",
        ) from error
    sock.setblocking(False)
    return sock


def _taker(options: Options, streams: Streams) -> Takeover | None:
    """Return the fast sink, when it is wanted and possible.

    Raises:
        BrokenError: it was asked for by name and is not possible.
    """
    why_not = supported()
    if options.sink == "asgi":
        return None
    if not why_not:
        return Takeover(streams)
    if options.sink == "fast":
        raise BrokenError(
            f"the fast sink cannot be used: {why_not}",
            do="install updaterd[server] anew, or use --sink auto or asgi",
            code="fast_sink",
        )
    log.warning("fast_sink_off", why=why_not)
    return None


def _most_connections() -> int:
    """Raise the limit on open files as far as allowed, and leave some for files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(hard - _SPARE_FILES, hard // 2)


class _Observer:
    """Passes what the hub sees to metrics and metadata watch."""

    def __init__(self, metrics: Metrics, watch: MetadataWatch) -> None:
        self.first_write = metrics.first_write
        self.delivered = metrics.delivered
        self._metrics = metrics
        self._watch = watch

    def arrived(self, record: Record) -> None:
        """See `hub.Observer`."""
        self._metrics.arrived(record)
        self._watch.saw(record)


class _Uvicorn(uvicorn.Server):
    """Uvicorn that leaves signals to us: streams are drained before it stops."""

    def __init__(self, config: uvicorn.Config, on_signal: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_signal = on_signal

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal, stop at once on the second."""
        del sig, frame
        self._on_signal()


class FeedServer:
    """Everything of one process, put together.

    Args:
        options: what `updaterd serve` was told.
        world: time and chance.
    """

    def __init__(self, options: Options, world: World) -> None:
        self.options = options
        make_state(options.state)
        served = options.repository and options.repository / "metadata/timestamp.json"
        watch = MetadataWatch(served)
        self.metrics = Metrics(now=world.now)
        self.log = open_log(options, now=world.now)
        self.hub = Hub(
            self.log,
            observer=_Observer(self.metrics, watch),
            heartbeat_s=options.heartbeat_s,
            ring_bytes=options.ring_bytes,
        )
        tokens = Tokens(options.state)
        self.streams = Streams(
            options,
            self.hub,
            tokens=tokens,
            metrics=self.metrics,
            world=world,
        )
        self._clock = world.clock
        app = make_app(
            Parts(
                options=options,
                log=self.log,
                streams=self.streams,
                tokens=tokens,
                metrics=self.metrics,
                watch=watch,
                clock=world.clock,
            )
        )
        guard = Guard(options, _most_connections(), _taker(options, self.streams))
        guard.trusted = frozenset(options.trusted_proxies)
        config = uvicorn.Config(
            app,
            http=cast("type[FeedProtocol]", maker(guard)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=20,
            timeout_graceful_shutdown=_LAST_REQUESTS_S,
            ssl_certfile=options.tls_cert,
            ssl_keyfile=options.tls_key,
        )
        self._uvicorn = _Uvicorn(config, self._signalled)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Task[None] | None = None
        self.url = ""
        self.started = asyncio.Event()

    def _signalled(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Begin to drain; said twice, stop at once."""
        if self._stopping is not None:
            self._uvicorn.should_exit = self._uvicorn.force_exit = True
            return
        self._stopping = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        log.info("draining", streams=self.streams.count)
        await self.streams.drain()
        self._uvicorn.should_exit = True

    async def run(self) -> None:
        """Serve until stopped; `started` is set once it listens at `url`.

        Raises:
            BrokenError: the address or the log cannot be used.
        """
        with ExitStack() as held:
            if isinstance(self.log, SqliteLog):
                # its tail is told in memory: a second writer would go unheard
                lock = self.options.state / "serve.lock"
                held.enter_context(hold(lock, what=f"the feed of {lock.parent}"))
            await self._run()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self.options.address_file is not None:
            self.options.address_file.unlink(missing_ok=True)
        sock = listen(self.options)
        try:
            await self._try_start()
            await self._serve(sock)
        finally:
            sock.close()
            await self.log.close()
            if self.options.address_file is not None:
                with suppress(OSError):
                    self.options.address_file.unlink(missing_ok=True)
            log.info("stopped")

    async def _serve(self, sock: socket.socket) -> None:
        serving = asyncio.create_task(self._uvicorn.serve(sockets=[sock]))
        beside = [
            asyncio.create_task(self._follow()),
            asyncio.create_task(self._trim()),
            asyncio.create_task(self.streams.wheel.run(self._clock)),
        ]
        try:
            self._announce(sock)
            # a task that ends is a fault: better to stop than to serve half
            done, _ = await asyncio.wait(
                [serving, *beside], return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
        finally:
            for task in (serving, *beside):
                task.cancel()
            await asyncio.gather(serving, *beside, return_exceptions=True)

    def _announce(self, sock: socket.socket) -> None:
        port = sock.getsockname()[1]
        scheme = "https" if self.options.tls_cert else "http"
        host = self.options.host
        host = f"[{host}]" if ":" in host else host
        self.url = f"{scheme}://{host}:{port}"
        if self.options.address_file is not None:
            publish_file(self.options.address_file, f"{self.url}\n".encode())
        log.info("listening", url=self.url)
        self.started.set()

    async def _try_start(self) -> None:
        """Fill the hub; a log that is down now may come up later."""
        try:
            await self.hub.start()
            self.streams.ready = True
            for warning in await self.log.warnings():
                log.warning("log_setup", warning=warning)
        except LogDownError as error:
            log.warning("log_down", error=str(error))

    async def _follow(self) -> None:
        while not self.streams.ready:
            await asyncio.sleep(_RETRY_S)
            await self._try_start()
        await self.hub.run()

    async def _trim(self) -> None:
        while True:
            try:
                if gone := await self.log.trim():
                    log.info("trimmed", events=gone)
            except UpdaterError as error:
                log.warning("trim_failed", error=str(error))
            await asyncio.sleep(_TRIM_S)


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
    world = World(clock, now, secrets.SystemRandom().random)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(FeedServer(options, world).run())
