# SPDX-License-Identifier: Apache-2.0
"""The process that answers applications: started by the first, gone after the last.

systemd hands over the socket it listens at (sd_listen_fds(3)); without systemd the
process makes one. It ends when nobody has been connected for a while, so that a machine
whose applications are quiet has none of it.
"""

import asyncio
import os
import socket
import sys
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from updaterd.api import callers, wire
from updaterd.api.methods import Connection, Inhibitors, World, is_endless
from updaterd.errors import BrokenError, MalformedError

SOCKET = "io.updaterd"
_FIRST_FD = 3
# From Python 3.13 on a server takes its socket's file away: it is systemd's, which
# listens on, and nobody would find it again.
_LEAVES_THE_FILE: dict[str, Any] = (
    {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
)
_IDLE_S = 10.0
_MOST = 128
_MOST_OF_ONE_USER = 16


class Listener:
    """Answers who connects.

    Args:
        world: what calls are about.
        idle_s: ends when nobody has been connected for so long.
    """

    def __init__(self, world: World, *, idle_s: float = _IDLE_S) -> None:
        self._world = world
        self._idle_s = idle_s
        self._inhibitors = Inhibitors()
        self._open: dict[asyncio.Task[None], int] = {}
        self._changed = asyncio.Event()

    @property
    def connections(self) -> int:
        """Return how many are connected: what the limits count."""
        return len(self._open)

    async def run(self, ear: socket.socket) -> None:
        """Answer until nobody has been connected for a while."""
        server = await asyncio.start_unix_server(
            self._welcome, sock=ear, limit=wire.LONGEST, **_LEAVES_THE_FILE
        )
        try:
            while True:
                self._changed.clear()
                try:
                    patience = None if self._open else self._idle_s
                    await asyncio.wait_for(self._changed.wait(), patience)
                except TimeoutError:
                    if not _arriving():
                        return
        finally:
            server.close()
            for task in self._open:
                task.cancel()

    def _welcome(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            caller = callers.of(writer.get_extra_info("socket"))
        except OSError:
            writer.close()
            return
        of_this_user = sum(uid == caller.uid for uid in self._open.values())
        is_full = len(self._open) >= _MOST or of_this_user >= _MOST_OF_ONE_USER
        if is_full and caller.uid not in (0, os.geteuid()):
            caller.forget()
            writer.close()  # one user must not keep the others out
            return
        task = asyncio.create_task(self._serve(reader, writer, caller))
        self._open[task] = caller.uid
        self._changed.set()
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._open.pop(task, None)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        caller: callers.Caller,
    ) -> None:
        client = Connection(self._world, caller, self._inhibitors)
        # an answer waits until it is taken: nobody leaves any behind, uncounted
        writer.transport.set_write_buffer_limits(0)
        try:
            while (call := await wire.read(reader)) is not None:
                answering = asyncio.create_task(_answer(client, call, writer))
                if is_endless(call):  # until the client leaves
                    leaving = asyncio.create_task(reader.read(1))
                    await asyncio.wait(
                        {answering, leaving}, return_when=asyncio.FIRST_COMPLETED
                    )
                    if leaving.done():
                        answering.cancel()
                        with suppress(asyncio.CancelledError):
                            await answering
                        return
                    leaving.cancel()
                    with suppress(asyncio.CancelledError):
                        await leaving
                await answering
        except (MalformedError, ConnectionError):
            return  # it speaks something else, or is gone
        finally:
            client.close()
            caller.forget()
            writer.transport.abort()


async def _answer(
    client: Connection, call: wire.Call, writer: asyncio.StreamWriter
) -> None:
    """Send the answers to a call, each when the one before is taken."""
    try:
        async with aclosing(client.answers(call)) as answers:
            async for parameters in answers:
                if not call.oneway:
                    writer.write(wire.reply(parameters, continues=is_endless(call)))
                    await writer.drain()
    except wire.CallError as error:
        if not call.oneway:
            writer.write(wire.failure(error))
            await writer.drain()


def _arriving() -> bool:
    """Tell whether a connection was taken off the queue and is not welcomed yet.

    Who ends now would hang up on it; what is still in the queue is for the process that
    systemd starts next.
    """
    return len(asyncio.all_tasks()) > 1  # all but the one that asks


def listening(path: Path) -> socket.socket:
    """Return the socket that systemd handed over, or a new one at `path`.

    Raises:
        BrokenError: it cannot be made.

    Power cut: the socket is in /run and gone.
    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        if os.environ.get("LISTEN_FDS") != "1":
            raise BrokenError(
                "systemd handed over another number of sockets than one",
                do="correct updaterd-api.socket",
                code="config",
            )
        os.set_inheritable(_FIRST_FD, False)
        ear = socket.socket(fileno=_FIRST_FD)
        ear.setblocking(False)
        return ear
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with suppress(FileNotFoundError):
            path.unlink()
        ear.bind(str(path))
        path.chmod(0o666)  # who may do what is told by who connects
        ear.listen(64)
        ear.setblocking(False)
    except OSError as error:
        ear.close()
        raise BrokenError(
            f"cannot listen at {path}: {error.strerror}",
            do="name another place with --socket",
            code="machine_refused",
        ) from error
    return ear
