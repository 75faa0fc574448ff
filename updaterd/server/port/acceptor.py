# SPDX-License-Identifier: Apache-2.0
"""Accepts TLS connections and counts them from accept on, not from the handshake.

asyncio hands a connection over when its handshake is done: until then nobody counts
it, and what OpenSSL holds for it (some 58 KiB) is there already. Here an address has
its limit from the first packet on, TLS begins with the client's first byte, and an
address may have so many handshakes under way; its others wait.
"""

import asyncio
import errno
import socket
import ssl
from collections import Counter, deque
from collections.abc import Callable

from updaterd.log.repeats import Repeats
from updaterd.server.client_address import limit_key
from updaterd.server.port.guard import Guard, Place

_ACCEPTS_AT_ONCE = 100  # accepts before others get the loop
_MOST_HANDSHAKES = 32  # of one address under way
_PAUSE_S = 0.2

Factory = Callable[[Place], asyncio.Protocol]


class Acceptor:
    """Accepts connections, counts them, and hands them over after the handshake.

    Args:
        sock: listening, not blocking.
        guard: shared limits.
        context: of the server's certificate.
        factory: makes the protocol of a counted connection, whose place it gives back
            when the connection is lost.
        deadline_s: from accept to the end of the handshake.
    """

    def __init__(
        self,
        sock: socket.socket,
        guard: Guard,
        context: ssl.SSLContext,
        factory: Factory,
        *,
        deadline_s: float,
    ) -> None:
        self._sock = sock
        self._guard = guard
        self._context = context
        self._factory = factory
        self._deadline_s = deadline_s
        self._loop = asyncio.get_running_loop()
        self._repeats = Repeats()
        self._silent: dict[socket.socket, tuple[Place, asyncio.TimerHandle]] = {}
        self._handshakes: Counter[str] = Counter()
        self._waiting: dict[str, deque[tuple[socket.socket, Place, float]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = False

    def start(self) -> None:
        """Begin to accept."""
        self._open = True
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Accept no more, and close what has not completed its handshake."""
        if self._open:
            self._loop.remove_reader(self._sock)
        self._open = False
        for conn in list(self._silent):
            self._close_silent(conn)
        for queue in self._waiting.values():
            for conn, place, _ in queue:
                conn.close()
                place.leave()
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        self._repeats.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                conn, address = self._sock.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:  # no files, no memory, no network
                self._pause(error)
                return
            place = self._guard.enter(limit_key(address[0]))
            if place is None:
                conn.close()
                continue
            conn.setblocking(False)
            ends = self._loop.time() + self._deadline_s
            timer = self._loop.call_at(ends, self._close_silent, conn)
            self._silent[conn] = place, timer
            self._loop.add_reader(conn, self._on_first_byte, conn, ends)

    def _pause(self, error: OSError) -> None:
        self._repeats.warning(
            "accept_failed",
            alike=errno.errorcode.get(error.errno or 0, ""),
            error=error.strerror,
            means="new connections wait until others end",
        )
        self._loop.remove_reader(self._sock)
        self._loop.call_later(_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._open:
            self._loop.add_reader(self._sock, self._accept)

    def _close_silent(self, conn: socket.socket) -> None:
        self._forget(conn).leave()
        conn.close()

    def _forget(self, conn: socket.socket) -> Place:
        place, timer = self._silent.pop(conn)
        timer.cancel()
        self._loop.remove_reader(conn)
        return place

    def _on_first_byte(self, conn: socket.socket, ends: float) -> None:
        """Begin the handshake with the first byte, or queue the connection."""
        place = self._forget(conn)
        peer = place.peer
        if self._handshakes[peer] < _MOST_HANDSHAKES or self._guard.proxies.trust(peer):
            self._begin(conn, place, ends)
        else:
            self._waiting.setdefault(peer, deque()).append((conn, place, ends))

    def _begin(self, conn: socket.socket, place: Place, ends: float) -> None:
        self._handshakes[place.peer] += 1
        task = self._loop.create_task(self._handshake(conn, place, ends))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handshake(self, conn: socket.socket, place: Place, ends: float) -> None:
        """Complete the handshake; from then on the protocol gives the place back.

        A deadline, or the end of the server, may come in the very step in which the
        protocol got the connection: then both give it back, which counts once.
        """
        done = False
        try:
            protocol = self._factory(place)
            async with asyncio.timeout_at(ends):
                await self._loop.connect_accepted_socket(
                    lambda: protocol, conn, ssl=self._context
                )
            done = True
        except (OSError, TimeoutError):
            pass  # a stranger who speaks no TLS, or leaves; his to know
        finally:
            if not done:
                conn.close()
                place.leave()
            self._end_handshake(place.peer)

    def _end_handshake(self, peer: str) -> None:
        self._handshakes[peer] -= 1
        if not self._handshakes[peer]:
            del self._handshakes[peer]
        queue = self._waiting.get(peer)
        if not queue:
            return
        conn, place, ends = queue.popleft()
        if not queue:
            del self._waiting[peer]
        self._begin(conn, place, ends)
