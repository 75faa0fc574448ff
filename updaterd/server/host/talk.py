# SPDX-License-Identifier: Apache-2.0
"""What the processes of a host say to each other: questions and answers, both ways.

Over a socket pair that a worker inherits, so that nobody else can speak on it. A
message is its length in four bytes, then JSON. A question that is answered again and
again (the tail of the log) stays open until either side goes.
"""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from updaterd.server.log.contract import LogDownError

_LENGTH = struct.Struct("!I")
_MOST = 64 << 20
_MORE = "more"

Said = dict[str, Any]
Answer = Callable[[Said], Awaitable[Any]]
Answers = Callable[[Said], AsyncIterator[Any]]


class Talk:
    """One end of a conversation.

    Args:
        sock: connected.
        answer: by subject, what answers a question.
        tell: by subject, what answers one again and again.
    """

    def __init__(
        self,
        sock: socket.socket,
        answer: Mapping[str, Answer],
        tell: Mapping[str, Answers] | None = None,
    ) -> None:
        self._sock = sock
        self._answer = answer
        self._tell = tell or {}
        self._writer: asyncio.StreamWriter | None = None
        self._questions: dict[int, asyncio.Queue[Said | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._next = 0
        self._begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def run(self) -> None:
        """Speak until the other end goes."""
        reader, self._writer = await asyncio.open_connection(sock=self._sock)
        self._begun.set()
        try:
            while True:
                head = await reader.readexactly(_LENGTH.size)
                (size,) = _LENGTH.unpack(head)
                if size > _MOST:
                    break
                self._take(json.loads(await reader.readexactly(size)))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Say no more."""
        self.ended.set()
        self._begun.set()
        if self._writer is not None:
            self._writer.close()
        for queue in self._questions.values():
            queue.put_nowait(None)
        for task in self._tasks:
            task.cancel()

    def _take(self, message: Said) -> None:
        if "subject" not in message:
            if (queue := self._questions.get(message["id"])) is not None:
                queue.put_nowait(message)
            return
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._reply(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, message: Said) -> None:
        number, subject = message["id"], message["subject"]
        with suppress(OSError):
            if subject in self._tell:
                async for part in self._tell[subject](message):
                    await self._say({"id": number, _MORE: part})
                return
            try:
                answer = await self._answer[subject](message)
            except LogDownError as error:
                await self._say({"id": number, "down": down_of(error)})
            else:
                await self._say({"id": number, "is": answer})

    async def _say(self, message: Said) -> None:
        await self._begun.wait()
        if self._writer is None or self.ended.is_set():
            raise ConnectionError
        data = json.dumps(message).encode()
        self._writer.write(_LENGTH.pack(len(data)) + data)
        await self._writer.drain()

    async def ask(self, subject: str, **more: Any) -> Any:
        """Return the answer to a question.

        Raises:
            LogDownError: the other end is gone, or its log does not answer.
        """
        async for part in self._ask(subject, more):
            if "down" in part:
                error = error_of(part["down"])
                raise error
            return part["is"]
        error = _ended_error()
        raise error

    async def follow(self, subject: str, **more: Any) -> AsyncIterator[Any]:
        """Yield the answers to a question that has many.

        Raises:
            LogDownError: the other end is gone.
        """
        async for part in self._ask(subject, more):
            yield part[_MORE]
        error = _ended_error()
        raise error

    async def _ask(self, subject: str, more: Said) -> AsyncIterator[Said]:
        self._next += 1
        number = self._next
        queue = self._questions[number] = asyncio.Queue()
        try:
            with suppress(OSError):
                await self._say({"id": number, "subject": subject, **more})
                while (part := await queue.get()) is not None:
                    yield part
        finally:
            del self._questions[number]


def down_of(error: LogDownError) -> Said:
    """Return an error of the log as it is sent."""
    return {"cause": error.cause, "means": error.means, "do": error.do}


def error_of(message: Said) -> LogDownError:
    """Return the error of the log that was sent."""
    return LogDownError(message["cause"], means=message["means"], do=message["do"])


def _ended_error() -> LogDownError:
    return LogDownError(
        "the process that keeps the event log has ended",
        means="an announcement may or may not have been stored",
        do="send it again with the same Idempotency-Key",
    )
