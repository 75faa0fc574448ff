# SPDX-License-Identifier: Apache-2.0
"""TLS connections, counted from accept on: who says nothing costs a socket, no more.

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

from updaterd.repeats import Repeats
from updaterd.server.addresses import counted
from updaterd.server.guard import Guard

_AT_ONCE = 100  # accepts before others get the loop
_HANDSHAKES = 32  # of one address under way
_PAUSE_S = 0.2
_FULL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

Factory = Callable[[str], asyncio.Protocol]


class Acceptor:
    """Accepts, counts, and hands over what has shaken hands.

    Args:
        sock: listening, not blocking.
        guard: shared limits; each connection is entered once, and left by whoever
            has it in the end.
        context: of the server's certificate.
        factory: makes the protocol for a connection of a counted address, which it
            leaves when the connection is lost.
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
        self._silent: dict[socket.socket, asyncio.TimerHandle] = {}
        self._shaking: Counter[str] = Counter()
        self._waiting: dict[str, deque[tuple[socket.socket, float]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = False

    def start(self) -> None:
        """Begin to accept."""
        self._open = True
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Accept no more, and let go who has not shaken hands."""
        if self._open:
            self._loop.remove_reader(self._sock)
        self._open = False
        for conn in list(self._silent):
            self._let_go(conn)
        for queue in self._waiting.values():
            for conn, _ in queue:
                conn.close()
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        self._repeats.close()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                conn, address = self._sock.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._pause(error)
                return
            peer = counted(address[0])
            if not self._guard.enter(peer):
                conn.close()
                continue
            conn.setblocking(False)
            ends = self._loop.time() + self._deadline_s
            self._silent[conn] = self._loop.call_at(ends, self._late, conn, peer)
            self._loop.add_reader(conn, self._heard, conn, peer, ends)

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

    def _late(self, conn: socket.socket, peer: str) -> None:
        self._let_go(conn)
        self._guard.leave(peer)

    def _let_go(self, conn: socket.socket) -> None:
        self._silent.pop(conn).cancel()
        self._loop.remove_reader(conn)
        conn.close()

    def _heard(self, conn: socket.socket, peer: str, ends: float) -> None:
        """Begin the handshake with the first byte, or wait for a place."""
        self._silent.pop(conn).cancel()
        self._loop.remove_reader(conn)
        if self._shaking[peer] < _HANDSHAKES or self._guard.proxies.trust(peer):
            self._begin(conn, peer, ends)
        else:
            self._waiting.setdefault(peer, deque()).append((conn, ends))

    def _begin(self, conn: socket.socket, peer: str, ends: float) -> None:
        self._shaking[peer] += 1
        task = self._loop.create_task(self._shake(conn, peer, ends))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _shake(self, conn: socket.socket, peer: str, ends: float) -> None:
        protocol = self._factory(peer)
        done = False
        try:
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
                self._guard.leave(peer)
            self._next(peer)

    def _next(self, peer: str) -> None:
        self._shaking[peer] -= 1
        if not self._shaking[peer]:
            del self._shaking[peer]
        queue = self._waiting.get(peer)
        if not queue:
            return
        conn, ends = queue.popleft()
        if not queue:
            del self._waiting[peer]
        self._begin(conn, peer, ends)
