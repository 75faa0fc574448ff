# SPDX-License-Identifier: Apache-2.0
"""One connection to NATS: made when needed, made anew when it broke, bounded.

The library's own reconnection is not used: what was sent while it waits would be sent
later, when its publisher has long been told that it failed.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from nats import errors as refusals
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import (
    APIError,
    NoStreamResponseError,
    ServiceUnavailableError,
)

from updaterd.server.log.contract import LogDownError
from updaterd.server.log.nats_address import Address, Privacy

_TIMEOUT_S = 5.0
_CONNECT_S = 2  # each server
_AGAIN_S = 0.25
_CLOSE_S = 1.0
_MEANS = "nothing can be announced; open streams stay"
_DO = "look at NATS and its log; then send it again with the same key"
STREAM_UNKNOWN = 10059
_REMEDIES = {
    10023: "give JetStream more room (max_file_store), or lower --keep-events",
    10039: "let JetStream serve the account of updaterd's user",
    10047: "free disk space on NATS' machine, or raise max_file_store",
    10076: "switch JetStream on in NATS' configuration: jetstream { ... }",
}

T = TypeVar("T")


class StreamGoneError(Exception):
    """A stream of ours is not there: NATS is new, or somebody deleted it."""


class Line:
    """A connection.

    Args:
        address: where to.
        prepare: what to do first on each connection, and again when a stream is gone.
        subject: what wakes `woken`.
    """

    def __init__(
        self,
        address: Address,
        prepare: Callable[[JetStreamContext], Awaitable[None]],
        subject: str,
    ) -> None:
        self._address = address
        self._prepare = prepare
        self._subject = subject
        self._servers = deque(address.servers)
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None
        self._gate = asyncio.Lock()
        self._limits: set[asyncio.Timeout] = set()
        self._sleepers: set[asyncio.Event] = set()
        self._complaint = ""
        self._is_closed = False

    async def ask(self, work: Callable[[JetStreamContext], Awaitable[T]]) -> T:
        """Return what `work` returns, which must be harmless when done twice.

        Raises:
            LogDownError: no answer, or a refusal.
        """
        try:
            return await self._ask(work)
        except (
            TimeoutError,
            refusals.Error,
            StreamGoneError,
            OSError,
            RuntimeError,  # uvloop's: written to a transport that was closed meanwhile
            ValueError,  # the library's: an answer that it cannot read
        ) as error:
            failure = self._failure(error)
            if not isinstance(error, (APIError, StreamGoneError)):
                await self._forget()
            raise failure from error

    async def _ask(self, work: Callable[[JetStreamContext], Awaitable[T]]) -> T:
        """Do it, again when the connection had died while it rested, or a stream had.

        Raises:
            TimeoutError: no answer, or the connection ended.
            ConnectionClosedError: the same, or this server stops.
            StreamGoneError: nobody answers for a stream.
        """
        rested = self._client
        try:
            return await self._try(work)
        except (TimeoutError, refusals.ConnectionClosedError):
            if rested is None or rested is not self._client or not rested.is_closed:
                raise
        except StreamGoneError:
            pass
        self._jetstream = None
        return await self._try(work)

    def _failure(self, error: Exception) -> LogDownError:
        why, remedy = str(error) or type(error).__name__, _DO
        if isinstance(error, APIError):
            why = error.description or why
            remedy = _REMEDIES.get(error.err_code or 0, _DO)
        elif isinstance(error, StreamGoneError):
            why = "no stream answers"
            remedy = "see that JetStream is on, and that a leader is elected"
        elif isinstance(error, refusals.MaxPayloadError):
            why, remedy = "it takes no message so large", "raise max_payload to 1MB"
        elif self._complaint and type(error) is not OSError:  # of `_connect`
            why = self._complaint
        elif isinstance(error, TimeoutError):
            ended = self._client is not None and self._client.is_closed
            why = "the connection ended" if ended else f"no answer in {_TIMEOUT_S} s"
        return LogDownError(
            f"the event log in NATS failed: {why:.300}", means=_MEANS, do=remedy
        )

    async def _try(self, work: Callable[[JetStreamContext], Awaitable[T]]) -> T:
        """Do it, limited by time and by the end of the connection.

        Raises:
            StreamGoneError: nobody answers for a stream.
            ServiceUnavailableError: JetStream says why it serves nobody.
        """
        async with asyncio.timeout(_TIMEOUT_S) as limit:
            self._limits.add(limit)
            try:
                return await work(await self._ready())
            except (NoStreamResponseError, refusals.NoRespondersError) as error:
                raise StreamGoneError from error
            except ServiceUnavailableError as error:
                if error.err_code is None:
                    raise StreamGoneError from error
                raise
            finally:
                self._limits.discard(limit)

    async def _ready(self) -> JetStreamContext:
        async with self._gate:
            if self._is_closed:
                raise refusals.ConnectionClosedError
            client = self._client
            if client is None or client.is_closed:
                await self._forget()
                client = self._client = await self._connect()
            if self._jetstream is None:
                jetstream = client.jetstream(timeout=_TIMEOUT_S)
                await self._prepare(jetstream)
                self._jetstream = jetstream
            return self._jetstream

    async def _connect(self) -> Client:
        """Connect to one of the servers.

        Raises:
            OSError: to none of them.
        """
        failure: Exception = OSError("no server")
        for _ in self._address.servers:
            server = self._servers[0]
            self._servers.rotate(-1)  # the next time, another
            self._complaint = ""
            client = Client()
            try:
                await self._open(client, server)
            except (ConnectionResetError, BrokenPipeError):
                # its reason and its end race with what we say
                failure = OSError(
                    "it ended the connection at once: authorization, or a limit of its"
                )
            except (refusals.Error, OSError) as error:
                failure = error
            else:
                return client
            finally:
                if not client.is_connected:
                    await _close(client)
        raise OSError(str(failure) or type(failure).__name__)

    async def _open(self, client: Client, server: str) -> None:
        address = self._address
        privacy = Privacy.of(address) if address.is_private else None

        def say(secret: str) -> Callable[[], str]:
            def speak() -> str:
                if privacy is not None and not privacy.has_begun:
                    raise refusals.SecureConnRequiredError
                return secret

            return speak

        await client.connect(
            [server],
            name="updaterd feed",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=_CONNECT_S,
            error_cb=self._on_error,
            closed_cb=self._on_end,
            tls=privacy,
            user=say(address.user) if address.user else None,
            password=say(address.password) if address.user else None,
            token=say(address.token) if address.token else None,
            user_credentials=address.files.get("creds"),
            nkeys_seed=address.files.get("nkey"),
        )
        if privacy is not None and not privacy.has_begun:
            await _close(client)
            raise refusals.SecureConnRequiredError
        await client.subscribe(self._subject, cb=self._on_message)

    async def _on_error(self, error: Exception) -> None:
        """Take a complaint of the server that belongs to no request."""
        self._complaint = str(error) or type(error).__name__
        if "permissions violation" in self._complaint.lower():
            self._end_waits()  # no answer will come

    async def _on_end(self) -> None:
        """Take the end of a connection: the current one's, or of a vain attempt."""
        if self._client is not None and self._client.is_closed:
            self._end_waits()
            self._wake()

    def _end_waits(self) -> None:
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            limit.reschedule(now)

    async def _on_message(self, _: object) -> None:
        self._wake()

    def _wake(self) -> None:
        for sleeper in self._sleepers:
            sleeper.set()

    @asynccontextmanager
    async def awake(self) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        """Give what waits, for so many seconds at most, until something moved.

        What moved since the last wait counts, too.
        """
        sleeper = asyncio.Event()

        async def wait(at_most_s: float) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(at_most_s):
                    await sleeper.wait()
            sleeper.clear()

        self._sleepers.add(sleeper)
        try:
            yield wait
        finally:
            self._sleepers.discard(sleeper)

    async def rest(self) -> None:
        """Wait before the next attempt."""
        await asyncio.sleep(_AGAIN_S)

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor version of the server; zeros when there is none."""
        if self._client is None:
            return 0, 0
        version = self._client.connected_server_version
        return version.major, version.minor

    async def _forget(self) -> None:
        client, self._client, self._jetstream = self._client, None, None
        if client is not None:
            await _close(client)

    async def close(self) -> None:
        """Close the connection, also under somebody who waits."""
        self._is_closed = True
        self._end_waits()
        await self._forget()


async def _close(client: Client) -> None:
    # of a connection that is broken in its own way nothing more is wanted
    with suppress(refusals.Error, OSError, RuntimeError, TimeoutError):
        async with asyncio.timeout(_CLOSE_S):
            await client.close()
